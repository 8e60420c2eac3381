"""A task actor tells of many executions in one call: what runs there, and what has ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from harmonia_actors.core import stimuli as st
from harmonia_actors.runtime.orders import Report
from harmonia_actors.runtime.shared_task_host import SharedTaskHost
from harmonia_actors.runtime.task_host import HeldOutcomes
from tests.support.scripted_actors import until
from tests.unit.runtime.test_task_host import SLOW, Bench, order, shown


def test_one_census_of_many_executions_tells_of_those_that_are_here(bench: Bench) -> None:
    host = bench.host()
    orders = [replace(order(i, "hold"), execution_id=f"exec-{i}") for i in range(3)]
    ended = [replace(order(i), execution_id=f"done-{i}") for i in range(2)]
    run = bench.start(host, *ended, *orders)
    bench.wait(lambda: ("exec-0/t0", 1) in bench.gates.began)
    asked = [(f"exec-{i}", 2) for i in range(500)] + [("done-0", 2), ("done-1", 0)]
    found = host.census_of_all(asked, "heir")
    running = {execution_id: attempts for execution_id, (attempts, _) in found.items()}
    assert running == {"exec-0": [("exec-0", 0, 1)], "done-0": []}
    assert [shown(report) for report in found["done-0"][1]] == ["Started 0", "Succeeded 0"]
    bench.gates.open("t0")
    run.result(10)
    assert ("heir", "Succeeded 0") in bench.told(), "the successor hears of the end"
    assert ("exec-1/t1", 1) not in bench.gates.began, "what waited was dropped"
    reports, _ = bench.start(host, replace(order(7), execution_id="exec-499")).result(10)
    assert reports == [], "its epoch is known although nothing of it was here"


async def test_one_census_of_many_executions_adopts_async_attempts(bench: Bench) -> None:
    host = SharedTaskHost(bench.runner(), SLOW, bench.send)
    orders = [replace(order(i, "hold_async"), execution_id=f"exec-{i}") for i in range(3)]
    run = asyncio.ensure_future(host.run("me", orders))
    await until(lambda: len(bench.gates.began) == 3)
    found = host.census_of_all([("exec-0", 2), ("exec-1", 2), ("exec-2", 0), ("none", 1)], "heir")
    assert found == {f"exec-{i}": ([(f"exec-{i}", i, 1)], []) for i in range(2)}
    bench.gates.open("t0", "t1", "t2")
    await until(lambda: {("heir", "Succeeded 0"), ("heir", "Succeeded 1")} <= set(bench.told()))
    await run


def test_held_outcomes_are_found_by_execution() -> None:
    held = HeldOutcomes(4, 10**9)
    for task in range(6):
        execution = f"exec-{task % 2}"
        held.keep(
            (execution, task, 1),
            [
                Report(execution, st.AttemptStarted(task, 1, 1)),
                Report(execution, st.AttemptStopped(task, 1, 1)),
            ],
        )
    assert [report.stimulus.task for report in held.of("exec-0")] == [2, 2, 4, 4]
    assert [report.stimulus.task for report in held.of("exec-1")] == [3, 3, 5, 5]
    assert held.of("exec-2") == []
