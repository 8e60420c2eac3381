"""How lines travel: from a task host behind the start, to a new owner again, into few commits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from harmonia_actors.components.contract import TaskContext
from harmonia_actors.core import events as ev
from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.cursors import Place
from harmonia_actors.core.log_lines import LogLine
from harmonia_actors.core.records import encode_head
from harmonia_actors.core.state import NumberedEvent
from harmonia_actors.core.statuses import ExecutionStatus
from harmonia_actors.runtime import mailbox
from harmonia_actors.runtime.attempt_log import LogLimits
from harmonia_actors.runtime.broadcast import Batch
from harmonia_actors.runtime.event_hub import EventHub
from harmonia_actors.runtime.mailbox import LinesRoom, Mailbox
from harmonia_actors.runtime.orders import AttemptOrder, Report
from harmonia_actors.runtime.shared_task_host import SharedTaskHost
from harmonia_actors.runtime.task_host import HeldOutcomes, TaskHostLimits
from persistence.memory_store import MemoryStore
from persistence.store import Commit, NewExecution
from persistence.stored_event import StoredEvent
from tests.support.executions import EXECUTION_ID, new_head, output, workflow_of
from tests.support.scripted_actors import settle, until
from tests.unit.runtime.driver_rig import Rig, a_rig
from tests.unit.runtime.test_task_host import Bench, order, shown

MUCH = 10**12
AT_ONCE = TaskHostLimits(start_report_ms=1, outcome_report_ms=60_000, log=LogLimits(interval_ms=0))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)

    @made.component.action
    def say(value: Any = None, *, context: TaskContext) -> None:
        for line in value:
            context.log(line)
        made.gates.hold(context=context)

    @made.component.action
    async def say_async(value: Any = None, *, context: TaskContext) -> None:
        for line in value:
            context.log(line)
        await made.gates.hold_async(context=context)

    yield made
    made.gates.open("t0", "t1")
    made.close()


def saying(*lines: str, action: str = "say") -> AttemptOrder:
    return replace(order(0, action, value=list(lines)), component="bench")


def texts(reports: list[Report]) -> list[str]:
    stimuli = [each.stimulus for each in reports if isinstance(each.stimulus, st.LinesReported)]
    return [line.text for each in stimuli for line in each.lines]


# Task hosts --------------------------------------------------------------------------------------


def test_lines_of_a_short_attempt_come_with_its_outcome(bench: Bench) -> None:
    bench.gates.open("t0")
    reports, _ = bench.start(bench.host(), saying("one", "two")).result(10)
    assert [shown(each) for each in reports] == ["Started 0", "LinesReported 0", "Succeeded 0"]
    assert texts(reports) == ["one", "two"]
    assert bench.sent == []


def test_lines_are_told_while_the_attempt_runs_behind_its_start(bench: Bench) -> None:
    run = bench.start(bench.host(AT_ONCE), saying("one", "two"))
    bench.wait(lambda: ("me", "LinesReported 0") in bench.told())
    told = [text for _, text in bench.told()]
    assert told[0] == "Started 0"
    assert not run.done()
    bench.gates.open("t0")
    reports, _ = run.result(10)
    # What was told just before may come behind the outcome.
    assert texts(reports) == ["one", "two"]


async def test_an_async_attempt_tells_its_lines_while_it_runs(bench: Bench) -> None:
    host = SharedTaskHost(bench.runner(), AT_ONCE, bench.send)
    run = asyncio.ensure_future(host.run("me", [saying("one", "two", action="say_async")]))
    await until(lambda: ("me", "LinesReported 0") in bench.told())
    assert bench.told()[0] == ("me", "Started 0")
    running, told = host.census("exec-1", 2, "heir")
    assert (running, texts(told)) == ([("exec-1", 0, 1)], ["one", "two"])
    bench.gates.open("t0")
    await run
    await until(lambda: ("heir", "Succeeded 0") in bench.told())


def test_a_new_owner_is_told_again_what_the_former_one_may_not_have_kept(bench: Bench) -> None:
    host = bench.host(AT_ONCE)
    run = bench.start(host, saying("one", "two"))
    bench.wait(lambda: ("me", "LinesReported 0") in bench.told())
    running, told = host.census("exec-1", 2, "heir")
    assert (running, texts(told)) == ([("exec-1", 0, 1)], ["one", "two"])
    bench.gates.open("t0")
    run.result(10)
    to_heir = [report for owner, report in bench.sent if owner == "heir"]
    assert texts(to_heir) == ["one", "two"]


def test_lines_that_are_held_with_outcomes_do_not_push_them_out() -> None:
    def ended(task: int, lines: int) -> list[Report]:
        told = tuple(LogLine("log", "x" * 936, 1) for _ in range(lines))
        return [
            Report("exec-1", st.AttemptStarted(task, 1, 1)),
            Report("exec-1", st.LinesReported(task, 1, 1, 0, told[: lines // 2])),
            Report("exec-1", st.LinesReported(task, 1, 1, lines // 2, told[lines // 2 :], True)),
            Report("exec-1", st.AttemptSucceeded(task, 1, 1, output(None))),
        ]

    held = HeldOutcomes(10**9, 100_000)
    for task in range(5):
        held.keep(("exec-1", task, 1), ended(task, 1_000))
    assert {report.stimulus.task for report in held.of("exec-1")} == set(range(5))
    kept = [each.stimulus for each in held.of_attempts([("exec-1", 4, 1)])]
    lines = [each for each in kept if isinstance(each, st.LinesReported)]
    # Nothing stands for lines that are left out: the numbers of those that come tell how many.
    assert [(each.first, len(each.lines), each.end) for each in lines] == [(984, 16, 1_000)]
    assert len(held.of_attempts([("exec-1", 4, 1)])) == 3


# The mailbox -------------------------------------------------------------------------------------


def lines(task: int, first: int, count: int, *, last: bool = False) -> st.LinesReported:
    told = tuple(LogLine("stdout", "x" * 936, 1) for _ in range(count))
    return st.LinesReported(task, 1, 1, first, told, last)


def test_lines_wait_within_bounds_and_their_end_is_always_known() -> None:
    box = Mailbox()
    for first in range(0, 100_000, 100):
        box.put([lines(0, first, 100)])
    box.put([lines(0, 100_000, 100, last=True), st.AttemptStopped(0, 1, 1)])
    taken = box.take(MUCH, MUCH).stimuli
    told = [each for each in taken if isinstance(each, st.LinesReported)]
    assert sum(each.cost for each in told) <= mailbox._LINES_BYTES_MAX + 1_000
    assert [each.first for each in told[:-1]] == list(range(0, 100 * (len(told) - 1), 100))
    assert (told[-1].lines, told[-1].end, told[-1].last) == ((), 100_100, True)
    assert taken[-1] == st.AttemptStopped(0, 1, 1)
    box.put([lines(0, 0, 100)])
    assert len(box) == 1, "there is room again"


def test_all_executions_of_a_host_share_the_room_for_lines_that_wait() -> None:
    room = LinesRoom(200_000)
    boxes = [Mailbox(room) for _ in range(10)]
    for box in boxes:
        box.put([lines(0, 0, 100)])
    assert sum(len(box) for box in boxes) == 1
    boxes[0].take(MUCH, MUCH)
    assert room.bytes == 0
    boxes[1].put([lines(0, 0, 100)])
    assert len(boxes[1]) == 1
    boxes[1].close()
    boxes[1].put([lines(0, 100, 100, last=True)])
    boxes[1].close()
    assert room.bytes == 0, "an execution that has left takes no room"


def test_lines_count_for_the_size_of_a_batch() -> None:
    box = Mailbox()
    box.put([lines(0, first, 10) for first in range(0, 100, 10)])
    assert len(box.take(MUCH, 30_000).stimuli) == 3
    assert len(box.take(MUCH, 1).stimuli) == 1


# The driver --------------------------------------------------------------------------------------


async def started(rigs: list[Rig], wait_s: float) -> Rig:
    rig = await a_rig(rigs, {"a": "", "b": ""})
    rig.driver._lines_wait_s = wait_s
    rig.begin()
    await until(lambda: len(rig.orders) == 2)
    rig.driver.deliver(st.AttemptStarted(0, 1, rig.clock.now_ms()))
    await until(lambda: len(rig.store.commits) == 2)
    return rig


def kinds(rig: Rig) -> list[str]:
    return [text.partition(" ")[2] for text in rig.story if text.startswith("publish")]


async def test_lines_alone_wait_for_one_another(rigs: list[Rig]) -> None:
    rig = await started(rigs, 0.01)
    for first in range(20):
        rig.driver.deliver(lines(0, first, 1))
    await until(lambda: sum(text.count("task_log") for text in kinds(rig)) == 20)
    assert len(rig.store.commits) == 3
    stored = await rig.store.read_events(EXECUTION_ID, after=0, limit=100)
    told = [jsontext.decode(event.body) for event in stored]
    assert sum(len(each["data"]["lines"]) for each in told if each["type"] == "task_log") == 20


async def test_lines_go_with_the_next_commit_there_is(rigs: list[Rig]) -> None:
    rig = await started(rigs, 3_600.0)
    rig.driver.deliver(lines(0, 0, 3))
    await settle()
    assert len(rig.store.commits) == 2
    rig.done("a")
    await until(lambda: len(rig.store.commits) == 3)
    assert kinds(rig)[-1].endswith("task_log,task_completed")
    rig.driver.deliver(lines(1, 0, 3))
    rig.done("b")
    await rig.running
    assert rig.driver._mail._room.bytes == 0


# The hub -----------------------------------------------------------------------------------------


class CountedReads(MemoryStore):
    reads = 0

    async def read_events(self, execution_id: str, *, after: int, limit: int) -> list[StoredEvent]:
        CountedReads.reads += 1
        return await super().read_events(execution_id, after=after, limit=limit)


LINES = ev.TaskLog("a", 1, (LogLine("log", "x", 1, "info"),), 0)
END = ev.ExecutionCancelled("wf-1", "n", 5)


async def store_events(store: MemoryStore, events: list[NumberedEvent]) -> None:
    await store.renew_owner("o", lease_ms=10**9)
    await store.put_definition("d", b"{}")
    workflow = workflow_of({"a": ""})
    head = new_head(workflow)
    new = NewExecution(EXECUTION_ID, "d", {"head": encode_head(head)})
    await store.create_execution(new, owners_max=1)
    bodies = [each.encoded(EXECUTION_ID) for each in events]
    head.status = ExecutionStatus.CANCELLED
    fields = {"head": encode_head(head)}
    await store.commit(Commit(EXECUTION_ID, "o", 1, 2, 1, fields, events=bodies, release=True))


class NoFeed:
    """Nobody tells anything: all comes from the log."""

    async def follow(self, execution_ids: Sequence[str]) -> None:
        return None

    async def unfollow(self, execution_ids: Sequence[str]) -> None:
        return None

    async def pull(self, _wait_s: float) -> Sequence[Batch]:
        await asyncio.Event().wait()
        return ()


@given(some.lists(some.integers(0, 40), min_size=1, max_size=8), some.data())
async def test_whoever_resumes_at_a_place_gets_what_comes_after_it(
    counts: list[int], data: some.DataObject
) -> None:
    """However many events of lines there are, few looks find where that is."""
    events: list[NumberedEvent] = []
    for seq, count in enumerate([*counts, 0], 1):
        told = ev.TaskStarted("a", 0, 1, seq) if seq <= len(counts) else END
        events.append(NumberedEvent(seq, 1, told))
        events += [NumberedEvent(seq, 1, LINES, part) for part in range(1, count + 1)]
    places = [Place(each.seq, each.part) for each in events]
    store = CountedReads()
    await store_events(store, events)
    hub = EventHub(store, [NoFeed()])
    place = data.draw(some.sampled_from([Place(), *places[:-1]]))
    CountedReads.reads = 0
    batches = hub.events(EXECUTION_ID, after=place.seq, part=place.part)
    found = [event.place async for batch in batches for event in batch]
    await hub.close()
    assert found == [each for each in places if each > place]
    assert CountedReads.reads <= 2 * len(bin(len(places))) + 4
