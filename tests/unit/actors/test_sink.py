"""What a broadcaster is told, and what waits for it: a fake handle in front of the real readers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from harmonia_actors.actors.ray_ports import ActorRef, RaySink
from harmonia_actors.runtime.broadcast import Batch, Broadcast
from tests.support.scripted_actors import settle, until


class Publish:
    """The method of the actor, called as Ray's are."""

    def __init__(self, broadcaster: Broadcaster) -> None:
        self._broadcaster = broadcaster

    def remote(self, batches: Sequence[Batch]) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self._broadcaster.take(batches))


class Broadcaster:
    """A broadcaster that answers nobody as long as it hangs."""

    def __init__(self) -> None:
        self.broadcast = Broadcast()
        self.goes_on = asyncio.Event()
        self.publish = Publish(self)

    async def get(self) -> Broadcaster:
        return self

    def forget(self) -> None:
        """It is the same one afterwards."""

    async def take(self, batches: Sequence[Batch]) -> None:
        await self.goes_on.wait()
        self.broadcast.publish(batches)


async def test_what_waits_for_a_broadcaster_that_hangs_is_bounded() -> None:
    """Whoever follows finds what is left out in the log."""
    broadcaster = Broadcaster()
    sink = RaySink(cast(ActorRef, broadcaster), buffered_max=100, buffered_bytes_max=10_000)
    sink.publish("exec-1", 1, [b"under way"])
    await settle()
    for index in range(1_000):
        sink.publish("exec-1", 2 + index, [b"x" * 1_000])
    for index in range(1_000):
        sink.publish("exec-2", 1 + index, [b""])
    broadcaster.goes_on.set()
    await until(lambda: broadcaster.broadcast.published == 1 + 100)
    sink.publish("exec-1", 1_002, [b"x" * 1_000])
    await until(lambda: broadcaster.broadcast.published == 102)


async def test_what_is_too_large_to_wait_leaves_room_for_others() -> None:
    broadcaster = Broadcaster()
    sink = RaySink(cast(ActorRef, broadcaster), buffered_bytes_max=10_000)
    sink.publish("exec-1", 1, [b"under way"])
    await settle()
    for index in range(100):
        sink.publish("exec-1", 2 + index, [b"x" * 3_000])
    broadcaster.goes_on.set()
    await until(lambda: broadcaster.broadcast.published >= 1 + 3)
    await settle()
    assert broadcaster.broadcast.published == 1 + 3
