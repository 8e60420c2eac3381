"""Events over a Redis-protocol server: a stream for each execution, and one that names them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from persistence import checks, redis_replies
from persistence.log import LOG_START, LogEntry, LogId
from persistence.redis_client import RedisClient
from persistence.redis_keys import Keys
from persistence.stored_event import StoredEvent

__all__ = ["RedisLog"]


class RedisLog:
    """Implements `EventLog` and `Store.read_events`; what is read, commits have written."""

    _client: RedisClient
    _keys: Keys

    async def read_events(self, execution_id: str, *, after: int, limit: int) -> list[StoredEvent]:
        """See `Store.read_events`."""
        checks.check_count("after", after, 0)
        checks.check_count("limit", limit)
        exists, entries = await self._client.commands(
            [
                ("EXISTS", self._keys.of("EXECUTION", execution_id)),
                (
                    "XRANGE",
                    self._keys.of("EVENTS", execution_id),
                    f"{after + 1}-0",
                    "+",
                    "COUNT",
                    limit,
                ),
            ],
            atomic=True,
        )
        if not exists:
            raise redis_replies.no_execution(execution_id)
        return redis_replies.events(entries)

    async def read_log(self, *, after: LogId, limit: int, wait_ms: int = 0) -> Sequence[LogEntry]:
        """See `EventLog.read_log`."""
        checks.check_count("limit", limit)
        checks.check_count("wait_ms", wait_ms, 0)
        key, start = self._keys.of("LOG"), f"{after.at_ms}-{after.number}"
        if not wait_ms:
            found = await self._client.command("XRANGE", key, f"({start}", "+", "COUNT", limit)
            return [_entry(*one) for one in found]
        # The server must answer before the connection counts as broken; 0 would be for ever.
        wait_ms = max(1, min(wait_ms, self._client.timeout_ms // 2))
        options = ("COUNT", limit, "BLOCK", wait_ms)
        found = await self._client.waiting_command("XREAD", *options, "STREAMS", key, start)
        return [_entry(*one) for one in found[0][1]] if found else []

    async def log_end(self) -> LogId:
        """See `EventLog.log_end`."""
        key = self._keys.of("LOG")
        found = await self._client.command("XREVRANGE", key, "+", "-", "COUNT", 1)
        return _log_id(found[0][0]) if found else LOG_START

    async def read_event_ranges(
        self, ranges: Sequence[tuple[str, int, int]]
    ) -> list[Sequence[StoredEvent]]:
        """See `EventLog.read_event_ranges`."""
        replies = await self._client.commands(
            [
                ("XRANGE", self._keys.of("EVENTS", one), f"{first}-0", f"{first + count - 1}-0")
                for one, first, count in ranges
            ]
        )
        return [redis_replies.events(reply) for reply in replies]


def _log_id(text: bytes) -> LogId:
    at_ms, _, number = text.partition(b"-")
    return LogId(int(at_ms), int(number))


def _entry(entry_id: bytes, flat: Sequence[bytes]) -> LogEntry:
    found: Any = redis_replies.mapping(flat)
    return LogEntry(_log_id(entry_id), found[b"x"].decode(), int(found[b"f"]), int(found[b"n"]))
