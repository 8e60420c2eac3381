"""What travels together, in which order, and that everybody gets his own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from persistence.errors import StoreUnavailable
from persistence.redis_batches import Batches
from tests.support.scripted_actors import settle, until


class Server:
    """Answers each call with itself, as soon as it may."""

    def __init__(self, **limits: Any) -> None:
        self.batches: list[list[bytes]] = []
        self.may_answer = asyncio.Event()
        self.error: Exception | None = None
        self.under_way = self.under_way_most = 0
        chosen = {"calls_max": 100, "bytes_max": 1_000, **limits}
        self.calls: Batches[bytes] = Batches(self._send, size_of=len, **chosen)

    async def _send(self, calls: Sequence[bytes]) -> list[Any]:
        self.batches.append(list(calls))
        self.under_way += 1
        self.under_way_most = max(self.under_way_most, self.under_way)
        await self.may_answer.wait()
        self.under_way -= 1
        if self.error is not None:
            raise self.error
        return [call + b"!" for call in calls]

    def ask(self, *calls: bytes) -> list[asyncio.Future[Any]]:
        return [asyncio.ensure_future(self.calls.run(call)) for call in calls]


async def test_calls_of_the_same_moment_go_together_and_each_gets_its_reply() -> None:
    server = Server(lanes=4)
    asked = server.ask(b"a", b"b", b"c")
    await settle()
    server.may_answer.set()
    assert await asyncio.gather(*asked) == [b"a!", b"b!", b"c!"]
    assert server.batches == [[b"a", b"b", b"c"]]


async def test_while_all_lanes_are_busy_calls_wait_and_then_go_together_in_order() -> None:
    server = Server(lanes=2)
    asked = []
    for call in (b"a", b"b", b"c", b"d", b"e"):
        asked += server.ask(call)
        await settle()
    assert server.batches == [[b"a"], [b"b"]]
    server.may_answer.set()
    await asyncio.gather(*asked)
    assert server.batches == [[b"a"], [b"b"], [b"c", b"d", b"e"]]
    assert server.under_way_most == 2


@pytest.mark.parametrize("limits", [{"calls_max": 2}, {"bytes_max": 2}])
async def test_what_is_too_much_for_one_batch_goes_with_the_next(limits: dict[str, int]) -> None:
    server = Server(**limits)
    server.may_answer.set()
    await asyncio.gather(*server.ask(b"a", b"b", b"c"))
    assert server.batches == [[b"a", b"b"], [b"c"]]


async def test_what_came_in_one_moment_and_is_too_much_for_one_batch_takes_all_lanes() -> None:
    server = Server(lanes=3, calls_max=2)
    asked = server.ask(*(b"%d" % number for number in range(10)))
    await settle()
    assert server.batches == [[b"0", b"1"], [b"2", b"3"], [b"4", b"5"]]
    server.may_answer.set()
    assert await asyncio.gather(*asked) == [b"%d!" % number for number in range(10)]
    assert server.under_way_most == 3


@pytest.mark.parametrize("lanes", [1, 3])
async def test_whoever_comes_as_a_lane_ends_gets_his_turn(lanes: int) -> None:
    server = Server(lanes=lanes)
    server.may_answer.set()
    for ticks in range(12):
        first = server.ask(b"first")
        for _ in range(ticks):
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            assert await server.calls.run(b"second") == b"second!"
        await asyncio.gather(*first)


async def test_whoever_had_no_turn_for_too_long_hears_that_the_server_cannot_be_used() -> None:
    server = Server(wait_ms=50)
    first = server.ask(b"a")[0]
    await settle()
    second = server.ask(b"b")[0]
    await settle()
    due_s = asyncio.get_running_loop().time() + 0.06
    await until(lambda: asyncio.get_running_loop().time() > due_s)
    server.may_answer.set()
    assert await first == b"a!"
    assert isinstance(await second, StoreUnavailable)
    assert server.batches == [[b"a"]]


async def test_an_error_is_everybodys_but_nobody_shares_it() -> None:
    server = Server()
    server.error = StoreUnavailable("away")
    server.may_answer.set()
    one, other = await asyncio.gather(*server.ask(b"a", b"b"))
    assert (str(one), str(other)) == ("away", "away")
    assert one is not other


async def test_who_does_not_wait_any_more_takes_no_place() -> None:
    server = Server()
    first = server.ask(b"a")[0]
    await settle()
    gone, last = server.ask(b"b", b"c")
    await settle()
    gone.cancel()
    server.may_answer.set()
    assert await first == b"a!"
    assert await last == b"c!"
    assert server.batches == [[b"a"], [b"c"]]


async def test_nobody_waits_for_a_lane_that_was_ended() -> None:
    server = Server()
    asked = server.ask(b"a")
    await settle()
    asked += server.ask(b"b")
    await settle()
    for lane in list(server.calls._sending):
        lane.cancel()
    async with asyncio.timeout(10):
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in found] == [asyncio.CancelledError] * 2
