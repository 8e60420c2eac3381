"""When a server's append-only file is worth writing anew, and asking the server to do so.

The file holds every write since the server last wrote it anew by itself, which it does only once it
has doubled. After much has expired it may so be many times as large as what there is to keep, for
as long as little is written.
"""

from __future__ import annotations

import logging

from redis.exceptions import ResponseError

from persistence.redis_client import RedisClient
from persistence.redis_replies import info_fields

__all__ = ["compact", "is_worth_it"]

_log = logging.getLogger(__name__)


async def compact(client: RedisClient, bytes_min: int) -> bool:
    """See `Retention.compact`."""
    try:
        info = info_fields(await client.command("INFO", "everything"))
        if not is_worth_it(info, bytes_min):
            return False
        await client.command("BGREWRITEAOF")
    except ResponseError as error:
        # It may be forbidden, or another child of the server may have begun since.
        _log.info("the append-only file is not written anew now: %s", error)
        return False
    return True


def is_worth_it(info: dict[str, str], bytes_min: int) -> bool:
    """Whether the file is of that size, and larger than all that the server has in memory.

    What a server has in memory takes less on disk once it is written anew, so this ends.
    """
    busy = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress", "loading")
    if info.get("aof_enabled") != "1" or any(info.get(name, "0") != "0" for name in busy):
        return False
    size = int(info.get("aof_current_size", 0))
    return size >= bytes_min and size > int(info.get("used_memory", size))
