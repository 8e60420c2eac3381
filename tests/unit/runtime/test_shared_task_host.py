"""Async attempts side by side in one process: told as they end, stopped, adopted, never held up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.components.contract import TaskContext
from harmonia_actors.components.workspace import Workspace
from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from harmonia_actors.runtime import shared_task_host
from harmonia_actors.runtime.files import WorkspaceFiles
from harmonia_actors.runtime.orders import Report
from harmonia_actors.runtime.shared_task_host import WATCHING, SharedTaskHost, told_after_s
from harmonia_actors.runtime.task_host import TaskHostLimits
from persistence.blobs import FileBlobs
from tests.support.holding_up import Blocking
from tests.support.scripted_actors import until
from tests.unit.runtime.test_task_host import SLOW, Bench, fractions, order, shown


async def test_async_attempts_run_at_once_and_are_told_as_they_end(bench: Bench) -> None:
    host = SharedTaskHost(bench.runner(), SLOW, bench.send)
    run = asyncio.ensure_future(host.run("me", [order(i, "hold_async") for i in range(3)]))
    await until(bench.began("t0", "t1", "t2"))
    bench.gates.open("t1")
    await until(lambda: ("me", "Succeeded 1") in bench.told())
    assert not run.done()
    bench.gates.open("t0", "t2")
    reports, _ = await run
    assert host.census("exec-1", 1, "me")[0] == []
    ended = {text for _, text in bench.told()} | {shown(report) for report in reports}
    assert ended >= {"Succeeded 0", "Succeeded 1", "Succeeded 2"}


def test_the_more_attempts_live_the_more_reports_go_by_one_call() -> None:
    waits_s = [told_after_s(live, TaskHostLimits()) for live in (0, 100, 500, 1_000, 100_000)]
    assert waits_s == pytest.approx([0.002, 0.002, 0.01, 0.02, 0.02])
    assert told_after_s(100_000, TaskHostLimits(start_report_ms=0)) == 0.02
    assert told_after_s(0, TaskHostLimits(start_report_ms=0)) == 0


async def test_what_is_to_be_told_in_one_moment_goes_by_one_call(bench: Bench) -> None:
    calls: list[int] = []

    def send(owner: str, reports: Sequence[Report]) -> None:
        calls.append(len(reports))

    host = SharedTaskHost(bench.runner(), TaskHostLimits(), send)
    run = asyncio.ensure_future(host.run("me", [order(i, "hold_async") for i in range(9)]))
    await until(lambda: calls)
    assert calls == [9]
    bench.gates.open(*(f"t{number}" for number in range(9)))
    await run


async def test_a_batch_returns_nothing_of_others(bench: Bench) -> None:
    """Its answer may be lost, and of others nobody asks before all of their batch has ended."""
    began: list[str] = []
    go = asyncio.Event()

    @bench.component.action
    async def wait(value: Any = None, *, context: TaskContext) -> None:
        began.append(context.task_name)
        await (asyncio.Event() if context.task_name == "t2" else go).wait()

    made = [replace(order(n), component="bench", action="wait") for n in range(4)]
    host = SharedTaskHost(bench.runner(), SLOW, bench.send)
    long = asyncio.ensure_future(host.run("me", made[:3]))
    short = asyncio.ensure_future(host.run("me", made[3:]))
    await until(lambda: len(bench.told()) == 4)
    go.set()
    reports, _ = await short
    assert [shown(report) for report in reports] == ["Started 3", "Succeeded 3"]
    await until(lambda: ("me", "Succeeded 1") in bench.told())
    assert sorted(text for _, text in bench.told() if "Succeeded" in text) == [
        "Succeeded 0",
        "Succeeded 1",
    ]
    host.cancel_all()
    await long


async def test_an_outcome_is_told_with_its_start_wherever_that_has_gone(bench: Bench) -> None:
    @bench.component.action
    async def at_once(value: Any = None) -> None:
        return None

    host = SharedTaskHost(bench.runner(), SLOW, bench.send)
    first, second = (replace(order(n), component="bench", action="at_once") for n in range(2))
    for made in (first, second):
        reports, _ = await host.run("me", [made])
        shown_reports = [shown(report) for report in reports]
        assert shown_reports == [f"Started {made.task}", f"Succeeded {made.task}"]
    assert bench.told() == []


class BlockingBlobs(FileBlobs):
    """Blobs that take their time."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.getting, self.putting = Blocking(), Blocking()

    def get(self, url: str) -> bytes:
        self.getting.wait()
        return super().get(url)

    def put(self, name: str, body: bytes) -> str:
        self.putting.wait()
        return super().put(name, body)


async def test_large_inputs_and_outputs_do_not_hold_up_other_async_actions(bench: Bench) -> None:
    url = FileBlobs(bench.directory / "blobs").put("x.json", b'"large"')
    runner = bench.runner(inline_output_bytes_max=3)
    runner.blobs = blobs = BlockingBlobs(bench.directory / "blobs")
    host = SharedTaskHost(runner, SLOW, bench.send)
    made = replace(
        order(0, "hold_async"),
        input=b'{"value":"${tasks.a.output}"}',
        values={"": b"{}", "a": url},
        tasks=("a",),
    )
    run = asyncio.ensure_future(host.run("me", [made]))
    await blobs.getting.let_end()
    bench.gates.open("t0")
    await blobs.putting.let_end()
    await run
    (*_, ended) = await host.settled([made.id])
    assert isinstance(ended.stimulus, st.AttemptSucceeded)
    assert ended.stimulus.output.url is not None
    stored = FileBlobs(bench.directory / "blobs").get(ended.stimulus.output.url)
    assert jsontext.decode(stored) == {"task": "t0", "value": "large"}


class SlowRows(dict[str, Any]):
    """An output that takes long to write."""

    def __init__(self) -> None:
        super().__init__({str(number): number for number in range(20_000)})
        self.writing = Blocking()

    def items(self) -> Any:
        self.writing.wait()
        return super().items()


async def test_writing_a_large_output_does_not_hold_up_other_async_actions(bench: Bench) -> None:
    rows = SlowRows()

    @bench.component.action
    async def tell() -> Any:
        return rows

    host = SharedTaskHost(bench.runner(), SLOW, bench.send)
    made = replace(order(0), component="bench", action="tell", input=b"{}")
    run = asyncio.ensure_future(host.run("me", [made]))
    await rows.writing.let_end()
    await run
    (*_, ended) = await host.settled([made.id])
    assert isinstance(ended.stimulus, st.AttemptSucceeded)


async def test_taking_over_files_does_not_hold_up_other_async_actions(bench: Bench) -> None:
    copying = Blocking()
    runner = bench.runner()
    files = WorkspaceFiles(bench.directory / "workspaces")

    def workspace_of(execution_id: str, files_from: Any) -> Workspace:
        copying.wait()
        return files.workspace(execution_id, files_from)

    @bench.component.action(uses_files=True)
    async def writes(value: Any = None, *, context: TaskContext) -> str:
        return str(context.workspace.write_file("x", b"x"))

    runner.workspace_of = workspace_of
    host = SharedTaskHost(runner, SLOW, bench.send)
    made = replace(order(0), component="bench", action="writes", files_from=("exec-0",))
    run = asyncio.ensure_future(host.run("me", [made]))
    await copying.let_end()
    await run
    (*_, ended) = await host.settled([made.id])
    assert isinstance(ended.stimulus, st.AttemptSucceeded)


async def test_an_async_attempt_can_be_stopped_while_its_input_is_made(bench: Bench) -> None:
    url = FileBlobs(bench.directory / "blobs").put("x.json", b'"large"')
    runner = bench.runner()
    runner.blobs = blobs = BlockingBlobs(bench.directory / "blobs")
    host = SharedTaskHost(runner, SLOW, bench.send)
    made = replace(order(0), input=b'{"value":"${tasks.a.output}"}', values={"a": url})
    made = replace(made, action="hold_async", tasks=("a",))
    run = asyncio.ensure_future(host.run("me", [made]))
    await until(blobs.getting.began.is_set)
    host.stop(made.id, only_waiting=False)
    await run
    blobs.getting.may_end.set()
    (*_, ended) = await host.settled([made.id])
    assert isinstance(ended.stimulus, st.AttemptStopped)
    assert bench.gates.began == []


async def test_progress_that_is_held_back_is_told_when_its_time_has_come(bench: Bench) -> None:
    @bench.component.action
    async def steps(value: Any = None, *, context: TaskContext) -> None:
        for fraction in (0.1, 0.5, 0.9):
            context.progress(fraction)
        await asyncio.Event().wait()

    host = SharedTaskHost(bench.runner(), TaskHostLimits(progress_interval_ms=50), bench.send)
    run = asyncio.ensure_future(
        host.run("me", [replace(order(0), component="bench", action="steps")])
    )
    await until(lambda: fractions([report for _, report in bench.sent]) == [0.1, 0.9])
    host.cancel_all()
    await run


async def test_an_async_attempt_is_stopped(bench: Bench) -> None:
    host = SharedTaskHost(bench.runner(), SLOW, bench.send)
    run = asyncio.ensure_future(host.run("me", [order(0, "hold_async"), order(1, "hold_async")]))
    await until(bench.began("t0", "t1"))
    assert not host.stop(("exec-1", 0, 1), only_waiting=True)
    assert not host.stop(("exec-1", 0, 1), only_waiting=False)
    await until(lambda: ("me", "Stopped 0") in bench.told())
    assert host.take_back() == []
    host.cancel_all()
    await run
    found = await host.settled([("exec-1", 0, 1), ("exec-1", 1, 1)])
    assert {"Stopped 0", "Lost 1"} <= {shown(report) for report in found}, "its process ended"


async def test_an_async_attempt_that_is_stopped_at_once_says_so(bench: Bench) -> None:
    host = SharedTaskHost(bench.runner(), SLOW, bench.send)
    run = asyncio.ensure_future(host.run("me", [order(0, "hold_async")]))
    await asyncio.sleep(0)
    host.stop(("exec-1", 0, 1), only_waiting=False)
    await run
    found = await host.settled([("exec-1", 0, 1)])
    assert "Stopped 0" in [shown(report) for report in found]


async def test_an_async_outcome_that_is_asked_for_comes_with_its_last_progress(
    bench: Bench,
) -> None:
    @bench.component.action
    async def steps(value: Any = None, *, context: TaskContext) -> None:
        context.progress(0.5, "half")
        context.progress(0.9, "nearly")

    host = SharedTaskHost(bench.runner(), SLOW, bench.send)
    await host.run("me", [replace(order(0), component="bench", action="steps")])
    expected = ["Started 0", "ProgressReported 0", "Succeeded 0"]
    for found in (await host.settled([("exec-1", 0, 1)]), host.census("exec-1", 2, "heir")[1]):
        assert [shown(report) for report in found] == expected
        assert fractions(found) == [0.9]


async def test_a_successor_adopts_async_attempts(bench: Bench) -> None:
    stale: list[object] = []
    note = lambda *what: stale.append(what)  # noqa: E731
    host = SharedTaskHost(bench.runner(), SLOW, bench.send, note_stale=note)
    run = asyncio.ensure_future(host.run("me", [order(0, "hold_async")]))
    await until(bench.began("t0"))
    running, _ = host.census("exec-1", 2, "heir")
    assert running == [("exec-1", 0, 1)]
    settled = asyncio.ensure_future(host.settled(running))
    bench.gates.open("t0")
    assert "Succeeded 0" in [shown(report) for report in await settled]
    await run
    await until(lambda: ("heir", "Succeeded 0") in bench.told())
    bench.gates.open("t1")
    reports, _ = await host.run("me", [order(1, "hold_async", epoch=1)])
    assert reports == []
    assert ("exec-1/t1", 1) not in bench.gates.began
    assert stale == [("orders_refused", 1)]


async def test_without_a_name_all_that_is_here_is_waited_for(bench: Bench) -> None:
    """So the pool knows when nothing of a holder that has died runs here any more."""
    host = SharedTaskHost(bench.runner(), SLOW, bench.send)
    run = asyncio.ensure_future(host.run("me", [order(0, "hold_async")]))
    await until(bench.began("t0"))
    settled = asyncio.ensure_future(host.settled([]))
    await asyncio.sleep(0)
    assert not settled.done()
    bench.gates.open("t0")
    assert await settled == []
    await run


def watching() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == WATCHING}


def test_nobody_watches_a_loop_that_is_over(bench: Bench) -> None:
    """Threads that wake for nothing take the interpreter from whoever has something to do."""
    before = watching()

    async def begin() -> set[threading.Thread]:
        SharedTaskHost(bench.runner(), SLOW, bench.send)
        return watching() - before

    begun = asyncio.run(begin())
    assert len(begun) == 1
    for thread in begun:
        thread.join(timeout=10)
        assert not thread.is_alive()


async def test_owners_of_what_has_ended_are_forgotten_while_something_runs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_task_host, "_OWNERS_KEPT", 10)
    host = SharedTaskHost(bench.runner(), SLOW, bench.send)
    long = asyncio.ensure_future(host.run("me", [order(0, "hold_async")]))
    await until(bench.began("t0"))
    bench.gates.open("t1")
    for number in range(60):
        await host.run("me", [replace(order(1, "hold_async"), execution_id=f"exec-{number + 9}")])
    await until(lambda: len(host._owner_of) <= 12)
    bench.gates.open("t0")
    reports, _ = await long
    assert "Succeeded 0" in [shown(report) for report in reports]
