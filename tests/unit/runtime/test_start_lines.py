"""Both ends of a line together: what takes a call, and who hears of which end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from harmonia_actors.runtime import start_lines
from harmonia_actors.runtime.ending import Ending
from harmonia_actors.runtime.start_lines import Ended, LineCut, News, Start, StartLine, StartLines
from tests.simulation.virtual_loop import VirtualLoop, run_virtually
from tests.support.scripted_actors import settle, until


class Owner:
    """Its executions end when the test says so."""

    def __init__(self) -> None:
        self.begun: list[Start] = []
        self.ends: dict[str, asyncio.Event] = {}
        #: How executions have ended, of those of which that is known.
        self.endings: dict[str, Ending] = {}
        self.lines = StartLines(self._begin, self._wait_ended, self._nudge)
        self.calls: list[tuple[list[str], list[str]]] = []
        self.heard: list[str] = []
        self.may_begin = asyncio.Event()
        self.may_begin.set()
        self.under_way = 0
        self.is_gone = False
        self.is_claimed_at_once = False
        self.defect: Exception | None = None

    async def _begin(self, start: Start) -> None:
        if not start.fields and self.is_claimed_at_once:
            self.heard.append(f"claim {start.execution_id}")
            return
        if start.execution_id.startswith("bad"):
            raise ValueError("it cannot be begun")
        await self.may_begin.wait()
        self.begun.append(start)
        self.heard.append(f"start {start.execution_id}")

    async def _nudge(self, execution_id: str) -> None:
        self.heard.append(f"nudge {execution_id}")

    async def _wait_ended(self, execution_id: str) -> Ending | None:
        await self.end_of(execution_id).wait()
        return self.endings.get(execution_id)

    def end_of(self, execution_id: str) -> asyncio.Event:
        return self.ends.setdefault(execution_id, asyncio.Event())

    def line(self, replica: str = "r") -> StartLine:
        """A replica's end."""

        async def exchange(news: News) -> Sequence[Ended]:
            self.calls.append(([start.execution_id for start in news.starts], list(news.awaited)))
            self.under_way += 1
            try:
                await asyncio.sleep(0)
                if self.is_gone:
                    raise LineCut("gone")
                if self.defect is not None:
                    raise self.defect
                return await self.lines.exchange(replica, news)
            finally:
                self.under_way -= 1

        return StartLine(exchange)


def start(execution_id: str) -> Start:
    return Start(execution_id, "d", {"head": b"1"})


def waiting(line: StartLine, *execution_ids: str) -> list[asyncio.Task[Ending | None]]:
    return [asyncio.create_task(line.wait_ended(each)) for each in execution_ids]


async def test_how_an_execution_has_ended_is_told_to_all_who_wait() -> None:
    owner = Owner()
    line = owner.line()
    owner.endings["e"] = Ending(3, 2, 1, b"head", {"0": b"row"}, {"0:1": b"1"})
    line.start(start("e"))
    waiters = waiting(line, "e", "e")
    await settle()
    owner.end_of("e").set()
    assert await asyncio.gather(*waiters) == [owner.endings["e"]] * 2


async def started_and_awaited(line: StartLine, execution_id: str) -> None:
    line.start(start(execution_id))
    await line.wait_ended(execution_id)


@pytest.fixture
async def owner() -> Any:
    made = Owner()
    yield made
    await made.lines.close()


async def test_start_and_end_of_one_execution_take_one_call(owner: Owner) -> None:
    line = owner.line()
    wait = asyncio.create_task(started_and_awaited(line, "e"))
    await settle()
    assert owner.begun == [start("e")]
    assert not wait.done()
    owner.end_of("e").set()
    await wait
    await settle()
    assert owner.calls == [(["e"], ["e"])]
    assert line.is_idle


async def test_a_start_that_nobody_waits_for_returns_at_once(owner: Owner) -> None:
    line = owner.line()
    line.start(start("e"))
    await until(lambda: line.is_idle)
    assert owner.calls == [(["e"], [])]
    assert owner.begun == [start("e")]


async def test_starts_that_come_while_calls_are_under_way_go_together(owner: Owner) -> None:
    line = owner.line()
    names = [f"e{number}" for number in range(100)]
    waits = [asyncio.create_task(started_and_awaited(line, name)) for name in names]
    await settle()
    assert len(owner.begun) == 100
    assert len(owner.calls) <= 3
    assert owner.under_way == 1, "only the newest call waits"
    for name in names:
        owner.end_of(name).set()
    await asyncio.gather(*waits)
    assert len(owner.calls) <= 5
    await until(lambda: line.is_idle)


async def test_a_nudge_never_overtakes_the_start(owner: Owner) -> None:
    line = owner.line()
    owner.may_begin.clear()
    line.start(start("e"))
    line.nudge("e")
    line.nudge("e")
    await settle()
    line.nudge("e")
    line.nudge("other")
    await settle()
    assert owner.heard == ["nudge other"]
    owner.may_begin.set()
    await until(lambda: line.is_idle)
    await until(lambda: len(owner.heard) == 4)
    assert owner.heard[1:] == ["start e", "nudge e", "nudge e"]


async def test_a_nudge_that_has_overtaken_the_start_on_its_way_is_made_up_for(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two calls may arrive in another order than that in which they were made."""
    await owner.lines.exchange("r", News(nudges=["e"]))
    await settle()
    await owner.lines.exchange("r", News([start("e")]))
    await until(lambda: owner.heard == ["nudge e", "start e", "nudge e"])
    await owner.lines.exchange("r", News([start("e")]))
    await until(lambda: owner.heard == ["nudge e", "start e", "nudge e", "start e"])
    monkeypatch.setattr(start_lines, "_NUDGED_KEPT", 3)
    await owner.lines.exchange("r", News(nudges=[f"e{number}" for number in range(10)]))
    await settle()
    assert list(owner.lines._nudged) == ["e7", "e8", "e9"]


async def test_what_ends_while_others_are_started_is_heard_of(owner: Owner) -> None:
    line = owner.line()
    first = asyncio.create_task(started_and_awaited(line, "first"))
    await settle()
    owner.end_of("first").set()
    second = asyncio.create_task(started_and_awaited(line, "second"))
    await first
    owner.end_of("second").set()
    await second


async def test_two_replicas_hear_of_their_own_and_of_what_both_await(owner: Owner) -> None:
    one, other = owner.line("one"), owner.line("other")
    waits = [*waiting(one, "a", "both"), *waiting(other, "b", "both")]
    await settle()
    owner.end_of("both").set()
    await asyncio.gather(waits[1], waits[3])
    assert not waits[0].done()
    assert not waits[2].done()
    owner.end_of("a").set()
    owner.end_of("b").set()
    await asyncio.gather(*waits)


async def test_two_who_await_the_same_ask_once(owner: Owner) -> None:
    line = owner.line()
    waits = waiting(line, "e", "e")
    await settle()
    assert owner.calls == [([], ["e"])]
    waits[0].cancel()
    await settle()
    owner.end_of("e").set()
    await waits[1]


async def test_who_waits_no_longer_leaves_nothing_behind(owner: Owner) -> None:
    line = owner.line()
    wait = asyncio.create_task(started_and_awaited(line, "e"))
    await settle()
    wait.cancel()
    await settle()
    owner.end_of("e").set()
    await until(lambda: line.is_idle)
    # It is awaited anew, and known to have ended.
    await line.wait_ended("e")


async def test_what_cannot_be_begun_is_no_concern_of_others(owner: Owner) -> None:
    line = owner.line()
    owner.end_of("bad").set()
    waits = [asyncio.create_task(started_and_awaited(line, name)) for name in ("bad", "good")]
    await waits[0]
    assert [each.execution_id for each in owner.begun] == ["good"]
    owner.end_of("good").set()
    await waits[1]


async def test_whoever_waits_is_let_go_when_the_owner_is_gone(owner: Owner) -> None:
    line = owner.line()
    owner.is_gone = True
    await started_and_awaited(line, "e")
    await until(lambda: line.is_idle)
    # He comes again, for as long as he likes, and once there is an owner again he waits.
    await line.wait_ended("e")
    owner.is_gone = False
    wait = waiting(line, "e")[0]
    await settle()
    assert not wait.done()
    owner.end_of("e").set()
    await wait


async def test_a_long_wait_is_asked_for_again_and_again(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_lines, "_WAIT_S", 0.001)
    line = owner.line()
    wait = asyncio.create_task(started_and_awaited(line, "e"))
    await until(lambda: len(owner.calls) > 3)
    assert owner.calls[1:3] == [([], ["e"]), ([], ["e"])]
    assert len(owner.lines._background) == 1, "the owner knew"
    assert not wait.done()
    owner.end_of("e").set()
    await wait


async def test_a_replica_that_is_no_more_is_forgotten(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_lines, "_WAIT_S", 0.0)
    monkeypatch.setattr(start_lines, "_IDLE_S", -1.0)
    for number in range(10):
        await owner.lines.exchange(f"replica-{number}", News(awaited=[f"e{number}"]))
    assert len(owner.lines._replicas) == 1


async def test_whoever_the_owner_has_forgotten_says_again_what_he_awaits(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica stood still for so long that it was taken for gone."""
    line = owner.line()
    waits = waiting(line, "first", "second")
    await settle()
    monkeypatch.setattr(start_lines, "_IDLE_S", -100.0)
    await owner.lines.exchange("another", News())
    owner.end_of("first").set()
    await waits[0]
    await settle()
    assert len(owner.calls) < 5, "it does not ask again and again"
    owner.end_of("second").set()
    await waits[1]


async def test_whatever_a_call_fails_by_nobody_waits_for_ever(owner: Owner) -> None:
    line = owner.line()
    owner.defect = TypeError("it cannot be sent")
    await started_and_awaited(line, "e")
    await until(lambda: line.is_idle)
    owner.defect = None
    wait = waiting(line, "e")[0]
    await settle()
    owner.end_of("e").set()
    await wait


async def test_a_nudge_waits_for_the_first_of_two_starts_of_the_same(owner: Owner) -> None:
    """Who starts again what nobody drives yet has it claimed, while it is being begun."""
    line = owner.line()
    owner.may_begin.clear()
    line.start(start("e"))
    await settle()
    owner.is_claimed_at_once = True
    line.start(Start("e", "d", {}))
    await settle()
    line.nudge("e")
    await settle()
    assert "nudge e" not in owner.heard
    owner.may_begin.set()
    await until(lambda: owner.heard == ["start e", "claim e", "nudge e"])


async def test_who_leaves_while_the_one_before_goes_on_leaves_nothing_behind(owner: Owner) -> None:
    line = owner.line()
    first = waiting(line, "e")[0]
    await settle()

    def come_and_leave(_: object) -> None:
        # The end was heard of, and the first has not gone on yet.
        second = line.wait_ended("e")
        second.send(None)
        second.close()

    line._awaited["e"].heard.add_done_callback(come_and_leave)
    owner.end_of("e").set()
    await first
    assert not line._awaited


@pytest.mark.parametrize("limit", ["_STARTS_MAX", "_START_BYTES_MAX"])
async def test_many_starts_go_by_several_calls_and_nothing_overtakes_them(
    owner: Owner, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(start_lines, limit, 3)
    line = owner.line()
    names = [f"e{number}" for number in range(10)]
    for name in names:
        line.start(start(name) if limit == "_STARTS_MAX" else Start(name, "d", {"head": b"12"}))
        line.nudge(name)
    waits = waiting(line, *names)
    await until(lambda: len(owner.begun) == 10)
    counts = [len(starts) for starts, _ in owner.calls if starts]
    assert max(counts) <= 3
    assert [each.execution_id for each in owner.begun] == names
    await until(lambda: len(owner.heard) == 20)
    for name in names:
        assert owner.heard.index(f"start {name}") < owner.heard.index(f"nudge {name}")
        owner.end_of(name).set()
    await asyncio.gather(*waits)


class Crowd:
    """Clients of two replicas."""

    def __init__(self, owner: Owner, choose: random.Random) -> None:
        self.owner = owner
        self.choose = choose
        self.lines = [owner.line("one"), owner.line("other")]
        self.ended: set[str] = set()
        self.waits: list[tuple[str, asyncio.Task[None]]] = []

    def step(self, fresh: str) -> None:
        """One thing happens."""
        step = self.choose.randrange(6)
        if step < 2 or not self.waits:
            self.come(fresh, begins=True)
        elif step == 2:
            self.come(self.choose.choice(self.waits)[0], begins=False)
        elif step == 3:
            self.end(self.choose.choice(self.waits)[0])
        elif step == 4:
            self.choose.choice(self.waits)[1].cancel()
        else:
            self.owner.is_gone = self.choose.random() < 0.3

    def come(self, name: str, *, begins: bool) -> None:
        waiting = self.wait(self.choose.choice(self.lines), name, begins=begins)
        self.waits.append((name, asyncio.create_task(waiting)))

    def end(self, name: str) -> None:
        self.ended.add(name)
        self.owner.end_of(name).set()

    async def wait(self, line: StartLine, name: str, *, begins: bool) -> None:
        if begins:
            line.start(start(name))
        while True:
            await line.wait_ended(name)
            if name in self.ended:
                return
            # The line was cut: he looks into the store, and comes again.
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_comes_when_everybody_hears_of_his_end(owner: Owner, seed: int) -> None:
    """Starts, ends, cuts and those who leave, in any order: who stays is told, and only then."""
    crowd = Crowd(owner, random.Random(seed))
    for step in range(200):
        crowd.step(f"e{step}")
        for _ in range(crowd.choose.randrange(4)):
            await asyncio.sleep(0)
    owner.is_gone = False
    for name, _ in crowd.waits:
        crowd.end(name)
    tasks = [task for _, task in crowd.waits]
    async with asyncio.timeout(20):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() or task.exception() is None for task in tasks)
    await until(lambda: all(line.is_idle for line in crowd.lines))


def test_who_waits_for_an_owner_that_hangs_is_let_go() -> None:
    """Others may have what it had by then."""

    async def run(loop: VirtualLoop) -> None:
        async def never(news: News) -> Sequence[Ended]:
            await asyncio.Event().wait()
            raise AssertionError

        line = StartLine(never)
        assert await line.wait_ended("exec-1") is None
        assert 30 < loop.time() < 60

    run_virtually(run)
