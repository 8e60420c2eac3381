"""What a broadcaster is told, and what waits for it: a fake handle in front of the real readers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

from harmonia_actors.actors.ray_ports import ActorRef, RaySink
from harmonia_actors.runtime.broadcast import LEFT_OUT, Batch, Broadcast
from tests.support.scripted_actors import settle, until


class Method:
    """A method of the actor, called as Ray's are."""

    def __init__(self, method: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self._method = method

    def remote(self, *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self._method(*arguments))


class Broadcaster:
    """A broadcaster that answers nobody as long as it hangs. Somebody follows an execution."""

    def __init__(self) -> None:
        self.broadcast = Broadcast()
        self.broadcast.follow("reader", ["exec-of-others"])
        self.calls = 0
        self.goes_on = asyncio.Event()
        self.publish = Method(self.take)
        self.wanted = Method(self.broadcast.wanted)

    async def get(self) -> Broadcaster:
        return self

    def forget(self) -> None:
        """It is the same one afterwards."""

    async def take(self, batches: Sequence[Batch], kept_back: int) -> bool:
        await self.goes_on.wait()
        self.calls += 1
        self.broadcast.publish(batches, kept_back)
        return self.broadcast.is_wanted


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


async def an_unwanted_one() -> tuple[Broadcaster, RaySink]:
    """A broadcaster that nobody follows, and a sink that has learned so by its first event."""
    broadcaster = Broadcaster()
    broadcaster.broadcast.unfollow("reader", ["exec-of-others"])
    broadcaster.goes_on.set()
    sink = RaySink(cast(ActorRef, broadcaster), kept_back_max=10, kept_back_bytes_max=100)
    sink.publish("exec-1", 1, [b"one"])
    await settle()
    return broadcaster, sink


async def test_while_nobody_follows_anything_the_broadcaster_is_not_told() -> None:
    broadcaster, sink = await an_unwanted_one()
    for index in range(1_000):
        sink.publish("exec-1", 2 + index, [b"x" * 9])
        await settle()
    assert broadcaster.calls == 1
    # Whoever begins to follow has read all until then, and gets what comes from then on at once.
    broadcaster.broadcast.follow("reader", ["exec-1"])
    sink.publish("exec-1", 1_002, [b"last"])
    await until(lambda: broadcaster.calls == 2)
    found = await broadcaster.broadcast.pull("reader", 0)
    assert [first for _, first, _ in found] == [*range(993, 1_003), LEFT_OUT]
    assert broadcaster.broadcast.published == 1_002, "what was kept back is counted, too"
    sink.publish("exec-1", 1_003, [b"live"])
    await until(lambda: broadcaster.calls == 3)
    assert [first for _, first, _ in await broadcaster.broadcast.pull("reader", 0)] == [1_003]


async def test_a_batch_that_is_too_large_to_be_kept_back_is_not() -> None:
    broadcaster, sink = await an_unwanted_one()
    sink.publish("exec-1", 2, [b"x" * 101])
    sink.publish("exec-1", 3, [b"y"])
    broadcaster.broadcast.follow("reader", ["exec-1"])
    await until(lambda: broadcaster.calls == 2)
    found = await broadcaster.broadcast.pull("reader", 0)
    assert [first for _, first, _ in found] == [3, LEFT_OUT]
