"""Takes committed events in and hands them to readers, each of which pulls in batches.

A reader is a streaming replica: it names the executions that its clients follow and gets each event
once, however many clients there are. What a reader does not fetch in time is dropped; it sees the
gap by the numbers and reads the log in the store, which is the truth. Nothing here is durable.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["LEFT_OUT", "Batch", "Broadcast", "BroadcastLimits", "UnknownReader"]

#: (execution id, number of the first in the log, bodies in order without a gap)
Batch = tuple[str, int, Sequence[bytes]]
#: In place of a number, with no bodies: events may have been left out, so the log is to be read.
LEFT_OUT = 2**62


class UnknownReader(Exception):
    """The reader is not known here (any more): it must say again what it follows."""


@dataclass(frozen=True, slots=True)
class BroadcastLimits:
    """Bounds per reader."""

    buffered_events_max: int = 50_000
    buffered_bytes_max: int = 64_000_000
    #: A reader that has not pulled for this long is forgotten.
    reader_idle_s: float = 60.0


@dataclass(slots=True)
class _Reader:
    follows: set[str] = field(default_factory=set)
    batches: list[Batch] = field(default_factory=list)
    events: int = 0
    bytes: int = 0
    dropped: int = 0
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    seen_s: float = 0.0


class Broadcast:
    """The readers and what waits for each."""

    def __init__(self, limits: BroadcastLimits | None = None) -> None:
        self._limits = limits or BroadcastLimits()
        self._readers: dict[str, _Reader] = {}
        #: Names of readers per execution, in the order of their coming.
        self._followers: dict[str, dict[str, None]] = {}
        #: Set as long as anybody follows anything.
        self._wanted = asyncio.Event()
        self.published = 0

    @property
    def is_wanted(self) -> bool:
        """Whether anybody follows anything."""
        return self._wanted.is_set()

    async def wanted(self, wait_s: float) -> None:
        """Return when anybody follows anything, after `wait_s` seconds at the latest."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wanted.wait()

    def publish(self, batches: Sequence[Batch], kept_back: int = 0) -> None:
        """Committed events; each batch goes to the readers that follow its execution.

        `kept_back`: how many more there were that nobody wanted. Whoever follows by now has perhaps
        begun before whoever publishes knew of it, and may miss some of them.
        """
        self.published += kept_back
        for batch in batches:
            execution_id, _, bodies = batch
            self.published += len(bodies)
            for name in self._followers.get(execution_id, ()):
                self._offer(self._readers[name], batch)
        if kept_back:
            for execution_id, followers in self._followers.items():
                for name in followers:
                    self._offer(self._readers[name], (execution_id, LEFT_OUT, ()))

    def follow(self, reader: str, execution_ids: Sequence[str]) -> None:
        """From now on the reader wants these executions' events, too."""
        known = self._reader(reader)
        for execution_id in execution_ids:
            known.follows.add(execution_id)
            self._followers.setdefault(execution_id, {})[reader] = None
        if execution_ids:
            self._wanted.set()

    def unfollow(self, reader: str, execution_ids: Sequence[str]) -> None:
        """The reader does not want these any more."""
        known = self._readers.get(reader)
        if known is None:
            return
        for execution_id in execution_ids:
            known.follows.discard(execution_id)
            self._drop_follower(execution_id, reader)

    async def pull(self, reader: str, wait_s: float) -> Sequence[Batch]:
        """What has come since the last pull; waits up to `wait_s` seconds for something."""
        known = self._readers.get(reader)
        if known is None:
            raise UnknownReader(reader)
        known.seen_s = asyncio.get_running_loop().time()
        if not known.batches:
            known.filled.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await known.filled.wait()
        known.seen_s = asyncio.get_running_loop().time()
        batches, known.batches = known.batches, []
        known.events = known.bytes = 0
        return batches

    def forget_idle(self) -> None:
        """Forget readers that do not pull any more."""
        now_s = asyncio.get_running_loop().time()
        for name, reader in list(self._readers.items()):
            if now_s - reader.seen_s > self._limits.reader_idle_s:
                for execution_id in reader.follows:
                    self._drop_follower(execution_id, name)
                del self._readers[name]

    def _reader(self, name: str) -> _Reader:
        known = self._readers.get(name)
        if known is None:
            self.forget_idle()
            known = self._readers[name] = _Reader(seen_s=asyncio.get_running_loop().time())
        return known

    def _offer(self, reader: _Reader, batch: Batch) -> None:
        size = sum(len(body) for body in batch[2])
        full = (
            reader.events + len(batch[2]) > self._limits.buffered_events_max
            or reader.bytes + size > self._limits.buffered_bytes_max
        )
        if full:
            reader.dropped += len(batch[2])
            return
        reader.batches.append(batch)
        reader.events += len(batch[2])
        reader.bytes += size
        reader.filled.set()

    def _drop_follower(self, execution_id: str, reader: str) -> None:
        followers = self._followers.get(execution_id)
        if followers is not None:
            followers.pop(reader, None)
            if not followers:
                del self._followers[execution_id]
                if not self._followers:
                    self._wanted.clear()

    def counts(self) -> Mapping[str, int]:
        """Readers, followed executions, events published and dropped."""
        return {
            "readers": len(self._readers),
            "followed": len(self._followers),
            "published": self.published,
            "dropped": sum(reader.dropped for reader in self._readers.values()),
        }
