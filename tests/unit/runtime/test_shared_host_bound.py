"""How many async attempts run at a time, whoever sends them, and what those do that wait."""

from __future__ import annotations

import asyncio
import threading

from harmonia_actors.runtime.shared_task_host import SharedTaskHost
from harmonia_actors.runtime.task_host import TaskHostLimits
from tests.support.scripted_actors import until
from tests.unit.runtime.test_task_host import Bench, order, shown

TWO = TaskHostLimits(
    start_report_ms=60_000, outcome_report_ms=60_000, progress_interval_ms=0, live_attempts_max=2
)


def begun(bench: Bench) -> list[str]:
    return [name.partition("/")[2] for name, _ in bench.gates.began]


def batch(host: SharedTaskHost, owner: str, *tasks: int) -> asyncio.Future[object]:
    return asyncio.ensure_future(host.run(owner, [order(task, "hold_async") for task in tasks]))


async def test_no_more_run_at_a_time_than_the_limit_whoever_sends_them(bench: Bench) -> None:
    host = SharedTaskHost(bench.runner(), TWO, bench.send)
    one, other = batch(host, "one", 0, 1, 2), batch(host, "other", 3, 4)
    await until(bench.began("t0", "t1"))
    bench.gates.open("t2")
    assert begun(bench) == ["t0", "t1"]
    bench.gates.open("t1")
    await until(bench.began("t2", "t3"))
    bench.gates.open("t0", "t3", "t4")
    await asyncio.gather(one, other)
    assert begun(bench) == ["t0", "t1", "t2", "t3", "t4"], "in the order in which they came"


async def test_what_waits_is_stopped_at_once_and_never_starts(bench: Bench) -> None:
    host = SharedTaskHost(bench.runner(), TWO, bench.send)
    running, waiting = batch(host, "one", 0, 1), batch(host, "other", 2)
    await until(bench.began("t0", "t1"))
    assert host.stop(("exec-1", 2, 1), only_waiting=False)
    await waiting
    assert await host.settled([("exec-1", 2, 1)]) == []
    bench.gates.open("t0", "t1", "t2")
    await running
    assert begun(bench) == ["t0", "t1"]


async def test_a_stop_may_overtake_what_it_stops(bench: Bench) -> None:
    """It comes by a way of its own; taken for unknown, it would cost the whole process."""
    host = SharedTaskHost(bench.runner(), TWO, bench.send)
    assert host.stop(("exec-1", 0, 1), only_waiting=False)
    await batch(host, "one", 0)
    assert begun(bench) == []
    bench.gates.open("t1")
    await batch(host, "one", 1)
    assert not host.stop(("exec-1", 1, 1), only_waiting=False), "it has ended, and how is known"


async def test_what_waits_is_settled_when_it_has_run(bench: Bench) -> None:
    host = SharedTaskHost(bench.runner(), TWO, bench.send)
    runs = [batch(host, "one", 0, 1), batch(host, "one", 2)]
    await until(bench.began("t0", "t1"))
    settled = asyncio.ensure_future(host.settled([("exec-1", 2, 1)]))
    bench.gates.open("t0", "t1", "t2")
    assert [shown(report) for report in await settled] == ["Started 2", "Succeeded 2"]
    await asyncio.gather(*runs)


async def test_what_waits_can_be_taken_back(bench: Bench) -> None:
    host = SharedTaskHost(bench.runner(), TWO, bench.send)
    running, waiting = batch(host, "one", 0, 1), batch(host, "one", 2, 3)
    await until(bench.began("t0", "t1"))
    assert host.take_back() == [("exec-1", 2, 1), ("exec-1", 3, 1)]
    await waiting
    host.cancel_all()
    await running


async def test_a_successor_does_not_adopt_what_waits(bench: Bench) -> None:
    """It has not run: the successor gives it out again, under the next number."""
    host = SharedTaskHost(bench.runner(), TWO, bench.send)
    running, waiting = batch(host, "one", 0, 1), batch(host, "one", 2)
    await until(bench.began("t0", "t1"))
    assert sorted(host.census("exec-1", 2, "heir")[0]) == [("exec-1", 0, 1), ("exec-1", 1, 1)]
    await waiting
    host.cancel_all()
    await running
    assert begun(bench) == ["t0", "t1"]


async def test_before_its_end_a_process_drops_what_waits(bench: Bench) -> None:
    host = SharedTaskHost(bench.runner(), TWO, bench.send)
    runs = [batch(host, "one", 0, 1), batch(host, "one", 2)]
    await until(bench.began("t0", "t1"))
    host.cancel_all()
    await asyncio.gather(*runs)
    assert begun(bench) == ["t0", "t1"]


async def test_another_loop_in_another_thread_can_ask_the_host(bench: Bench) -> None:
    """Control calls have a loop of their own, so that nothing that runs can hold them up."""
    host = SharedTaskHost(bench.runner(), TWO, bench.send)
    running = batch(host, "one", 0, 1, 2)
    await until(bench.began("t0", "t1"))

    def elsewhere() -> tuple[bool, bool]:
        async def stop() -> tuple[bool, bool]:
            found = await asyncio.gather(
                host.asked(lambda host: host.stop(("exec-1", 2, 1), only_waiting=False)),
                host.asked(lambda _: threading.current_thread() is here),
            )
            return found[0], found[1]

        return asyncio.run(stop())

    here = threading.current_thread()
    assert await asyncio.to_thread(elsewhere) == (True, True)
    bench.gates.open("t0", "t1")
    await running
    assert begun(bench) == ["t0", "t1"]
