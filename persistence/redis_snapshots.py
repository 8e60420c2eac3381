"""Readings of executions and checkpoints over a Redis-protocol server.

Large fields lie apart from the others, and those of a checkpoint are its execution's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from persistence import redis_replies
from persistence.redis_log import RedisLog
from persistence.store import Snapshot

__all__ = ["RedisSnapshots"]


class RedisSnapshots(RedisLog):
    """Implements the part of `Store` that reads fields."""

    async def read_execution(self, execution_id: str, *, rows: bool = True) -> Snapshot | None:
        """See `Store.read_execution`."""
        kinds = ("EXECUTION", "CONSTANTS", "ROWS") if rows else ("EXECUTION", "CONSTANTS")
        commands = [("HGETALL", self._keys.of(kind, execution_id)) for kind in kinds]
        head, constants, *flat_rows = await self._client.commands(commands, atomic=True)
        return redis_replies.snapshot(head, flat_rows[0] if rows else (), constants)

    async def read_executions(
        self, ids: Sequence[str], fields: Sequence[str]
    ) -> list[Mapping[str, bytes] | None]:
        """See `Store.read_executions`."""
        names = [f".{field}" for field in fields]
        replies = await self._client.commands(
            [("HMGET", self._keys.of("EXECUTION", one), "v", "l", *names) for one in ids]
        )
        found: list[Mapping[str, bytes] | None] = []
        large: list[tuple[int, list[str]]] = []
        for at, (version, constants, *bodies) in enumerate(replies):
            pairs = zip(fields, bodies, strict=True)
            here = {name: body for name, body in pairs if body is not None}
            found.append(None if version is None else here)
            apart = [name for name in redis_replies.constant_names(constants) if name in fields]
            if missing := [name for name in apart if name not in here]:
                large.append((at, missing))
        kept = await self._client.commands(
            [("HMGET", self._keys.of("CONSTANTS", ids[at]), *missing) for at, missing in large]
        )
        for (at, missing), bodies in zip(large, kept, strict=True):
            # If they are gone, it has expired since.
            here = dict(found[at] or {}) | dict(zip(missing, bodies, strict=True))
            found[at] = None if None in bodies else here
        return found

    async def read_checkpoint(self, checkpoint_id: str) -> Snapshot | None:
        """See `Store.read_checkpoint`."""
        kinds = ("CHECKPOINT", "CHECKPOINT_ROWS")
        commands = [("HGETALL", self._keys.of(kind, checkpoint_id)) for kind in kinds]
        head, rows = await self._client.commands(commands, atomic=True)
        holder = redis_replies.constants_holder(head)
        constants = ()
        if holder:
            constants = await self._client.command("HGETALL", self._keys.of("CONSTANTS", holder))
            if not constants:
                return None  # It was deleted in between, and was the last to need them.
        return redis_replies.snapshot(head, rows, constants)
