"""Those who follow executions live: the real hub and broadcaster, and clients that come back.

A client that is cut off comes again with the last seq that it has. Whatever gets lost on the way,
it must have seen every event of the log once, and in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from harmonia_actors.core.cursors import Place
from harmonia_actors.core.errors import ServiceUnavailable
from harmonia_actors.core.requests import StreamEvent
from harmonia_actors.runtime.broadcast import Batch, Broadcast, UnknownReader
from harmonia_actors.runtime.event_hub import EventHub
from harmonia_actors.runtime.feeds import FeedGone
from harmonia_actors.runtime.ports import TaskActorDied
from persistence.store import Store
from tests.simulation.network import Network
from tests.simulation.store import DistantStore
from tests.simulation.virtual_loop import Process, pass_time

__all__ = ["Broadcaster", "Streams", "Subscriber"]

_AGAIN_S = 0.2


class Broadcaster:
    """One of the broadcaster actors."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.broadcast = Broadcast()

    async def pull(self, reader: str, wait_s: float) -> Sequence[Batch] | None:
        """As the actor has it: None for a reader that is not known here."""
        try:
            return await self.broadcast.pull(reader, wait_s)
        except UnknownReader:
            return None


class _Feed:
    """The port EventFeed."""

    def __init__(
        self, process: Process, network: Network, broadcaster: Callable[[], Broadcaster]
    ) -> None:
        self._process = process
        self._network = network
        self._broadcaster = broadcaster
        self._reader = f"reader of {process.name}"

    async def follow(self, execution_ids: Sequence[str]) -> None:
        broadcast = self._broadcaster().broadcast
        await self._call(broadcast.follow, self._reader, list(execution_ids))

    async def unfollow(self, execution_ids: Sequence[str]) -> None:
        broadcast = self._broadcaster().broadcast
        await self._call(broadcast.unfollow, self._reader, list(execution_ids))

    async def pull(self, wait_s: float) -> Sequence[Batch]:
        found = await self._call(self._broadcaster().pull, self._reader, wait_s)
        if found is None:
            raise UnknownReader(self._reader)
        return cast(Sequence[Batch], found)

    async def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        to = self._broadcaster().process
        try:
            return await self._network.call(self._process, to, "feed", method, *arguments)
        except TaskActorDied as error:
            raise FeedGone(str(error)) from error


class Streams:
    """A streaming replica; its methods are called in its process."""

    def __init__(
        self,
        process: Process,
        network: Network,
        store: DistantStore,
        broadcasters: Sequence[Callable[[], Broadcaster]],
    ) -> None:
        self.process = process
        feeds = [_Feed(process, network, broadcaster) for broadcaster in broadcasters]
        self.hub = EventHub(cast(Store, store), feeds)

    async def serve(
        self,
        execution_id: str,
        after: Place,
        send: Callable[[Sequence[StreamEvent]], Awaitable[None]],
    ) -> None:
        """One connection, until the last event."""
        async for batch in self.hub.events(execution_id, after=after.seq, part=after.part):
            await send(batch)


@dataclass
class Subscriber:
    """One client that follows one execution to its end."""

    execution_id: str
    process: Process
    network: Network
    streams: Callable[[], Streams]
    #: How long it takes over each batch.
    takes_s: float
    received: list[bytes] = field(default_factory=list)
    place: Place = field(default_factory=Place)
    broken: str = ""
    ended: bool = False
    #: Which connection it listens to: what an earlier one still brings is lost.
    _connection: int = 0

    async def run(self) -> None:
        """Come again until the end has been seen."""
        while not self.ended:
            streams = self.streams()
            self._connection += 1
            try:
                await self.network.call(
                    self.process,
                    streams.process,
                    "stream",
                    streams.serve,
                    self.execution_id,
                    self.place,
                    partial(self._take, self._connection),
                )
                self.ended = True
            except (TaskActorDied, ServiceUnavailable):
                await pass_time(_AGAIN_S)

    async def _take(self, connection: int, batch: Sequence[StreamEvent]) -> None:
        if connection != self._connection:
            return
        for event in batch:
            if event.index != len(self.received) + 1 and not self.broken:
                self.broken = f"event {event.index} comes behind {len(self.received)}"
            self.received.append(event.body)
            self.place = event.place
        if self.takes_s and batch:
            await pass_time(self.takes_s)
        await asyncio.sleep(0)
