"""The broadcaster actor: committed events in, batches for streaming replicas out.

There may be several, each of which has a share of all executions and knows nothing of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ray

from harmonia_actors.runtime.broadcast import Batch, Broadcast, UnknownReader
from harmonia_actors.runtime.collection import collect_rarely
from harmonia_actors.runtime.logs import log_to_stderr

__all__ = ["Broadcaster"]


@ray.remote
class Broadcaster:
    """Holds nothing that is not in the store's log; may die at any moment."""

    def __init__(self, log_level: str) -> None:
        log_to_stderr(log_level)
        collect_rarely()
        self._broadcast = Broadcast()

    async def ready(self) -> None:
        """Return when it serves."""

    async def publish(self, batches: Sequence[Batch], kept_back: int = 0) -> bool:
        """Committed events from an execution actor. Whether anybody follows anything.

        `kept_back`: how many more there were that nobody wanted.
        """
        self._broadcast.publish(batches, kept_back)
        return self._broadcast.is_wanted

    async def wanted(self, wait_s: float) -> None:
        """Return when anybody follows anything, after `wait_s` seconds at the latest."""
        await self._broadcast.wanted(wait_s)

    async def follow(self, reader: str, execution_ids: Sequence[str]) -> None:
        """A reader wants these executions' events."""
        self._broadcast.follow(reader, execution_ids)

    async def unfollow(self, reader: str, execution_ids: Sequence[str]) -> None:
        """A reader does not want these any more."""
        self._broadcast.unfollow(reader, execution_ids)

    async def pull(self, reader: str, wait_s: float) -> Sequence[Batch] | None:
        """What has come for a reader; None if it is not known here."""
        try:
            return await self._broadcast.pull(reader, wait_s)
        except UnknownReader:
            return None

    async def counts(self) -> Mapping[str, int]:
        """Readers, events published and dropped."""
        return self._broadcast.counts()
