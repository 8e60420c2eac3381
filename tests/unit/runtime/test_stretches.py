"""Stretches on their way: ordered by a driver, run by a task host, and told in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from harmonia_actors.components.contract import Component, TaskContext
from harmonia_actors.components.registry import Registry
from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from harmonia_actors.runtime.inputs import PlannedWorkflow
from harmonia_actors.runtime.notes import decode_note
from harmonia_actors.runtime.orders import AttemptOrder, QueueKey, Report
from harmonia_actors.runtime.task_host import TaskHost, TaskHostLimits
from harmonia_actors.runtime.turns import Turns, members_of, ran_of
from persistence.store import InboxEntry
from tests.support.executions import workflow_of
from tests.support.scripted_actors import order as plain_order
from tests.support.scripted_actors import until
from tests.unit.runtime.driver_rig import Rig, a_rig
from tests.unit.runtime.test_dispatcher import Desk
from tests.unit.runtime.test_task_host import SLOW, Bench, shown

# What a task host does ---------------------------------------------------------------------------


class Inbox:
    """Where outcomes are left; it may refuse them from one on."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.entries: list[InboxEntry] = []
        self.refuses_task: int | None = None
        self.breaks: Exception | None = None
        #: What had begun to run when each entry came.
        self.begun: list[int] = []

    def keep(self, order: AttemptOrder, entry: InboxEntry) -> bool:
        if self.breaks is not None:
            raise self.breaks
        if order.task == self.refuses_task:
            return False
        self.begun.append(len(self.bench.gates.began))
        self.entries.append(entry)
        return True


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with Desk() as found:
        yield found


@pytest.fixture
def inbox(bench: Bench) -> Inbox:
    return Inbox(bench)


def host_of(bench: Bench, inbox: Inbox, limits: TaskHostLimits = SLOW) -> TaskHost:
    limits = replace(limits, stretch_ms=60_000) if limits is SLOW else limits
    bench.hosts.append(TaskHost(bench.runner(), limits, bench.send, keep=inbox.keep))
    return bench.hosts[-1]


def member(task: int, action: str = "echo", *, value: Any = None, of: int | None = None) -> Any:
    """An order; `of` names the task whose output it is given."""
    given = value if of is None else f"${{tasks.t{of}.output}}"
    made = replace(
        plain_order(task),
        component="gates",
        action=action,
        input=jsontext.encode({} if action == "crash" else {"value": given}),
    )
    return made if of is None else replace(made, values={}, tasks=(f"t{of}",))


def stretch(first: AttemptOrder, *then: AttemptOrder) -> AttemptOrder:
    return replace(first, then=then)


def kinds(reports: Sequence[Report]) -> list[str]:
    return [shown(report) for report in reports]


def outputs(reports: Sequence[Report]) -> list[Any]:
    found = [r.stimulus for r in reports if isinstance(r.stimulus, st.AttemptSucceeded)]
    return [jsontext.decode(each.output.inline or b"null") for each in found]


def test_each_outcome_is_in_the_inbox_before_the_next_starts(bench: Bench, inbox: Inbox) -> None:
    host = host_of(bench, inbox)
    given = stretch(member(0, value=[7]), member(1, of=0), member(2, of=1))
    reports, _ = bench.start(host, given).result(10)
    assert kinds(reports) == [
        f"{kind} {task}" for task in range(3) for kind in ("Started", "Succeeded")
    ]
    assert outputs(reports) == [[7], [7], [7]]
    assert inbox.begun == [1, 2]
    # The last one starts nothing: its outcome is told in the usual way.
    assert [entry.entry_id for entry in inbox.entries] == ["outcome:0:1", "outcome:1:1"]
    assert [r.entry_id for r in reports if "Succeeded" in shown(r)] == [
        *("outcome:0:1", "outcome:1:1"),
        "",
    ]
    assert list(decode_note(inbox.entries[0].body)) == [r.stimulus for r in reports[:2]]


def test_a_large_output_goes_on_by_its_place(bench: Bench, inbox: Inbox) -> None:
    text = "x" * 100_000
    reports, _ = bench.start(
        host_of(bench, inbox), stretch(member(0, value=text), member(1, of=0))
    ).result(10)
    assert b"x" * 1_000 not in inbox.entries[0].body
    stimulus = reports[-1].stimulus
    assert isinstance(stimulus, st.AttemptSucceeded)
    assert stimulus.output.size == len(text) + 2


def test_what_cannot_be_left_in_the_inbox_ends_the_stretch(bench: Bench, inbox: Inbox) -> None:
    inbox.refuses_task = 1
    given = stretch(*(member(task) for task in range(4)))
    reports, _ = bench.start(host_of(bench, inbox), given).result(10)
    # The last one first: when the turn of one comes, what follows it can go with it again.
    assert kinds(reports)[3:] == ["Succeeded 1", "Returned 3", "Returned 2"]
    assert reports[3].entry_id == ""
    assert len(bench.gates.began) == 2


def test_what_came_back_is_known_when_its_batch_has_ended(bench: Bench, inbox: Inbox) -> None:
    """What was told of it may be late: nothing is lost, and no loss is counted."""
    inbox.refuses_task = 0
    host = host_of(bench, inbox)
    orders = [replace(member(task), number=task + 3) for task in range(2)]
    bench.start(host, stretch(*orders)).result(10)
    (report,) = host.settled([orders[1].id])
    assert shown(report) == "Returned 1"
    assert report.returned_from == (1, 4)
    bench.start(host, orders[1]).result(10)
    assert kinds(host.settled([orders[1].id])) == ["Started 1", "Succeeded 1"]


def test_whatever_goes_wrong_with_the_inbox_ends_the_stretch_only(
    bench: Bench, inbox: Inbox
) -> None:
    inbox.breaks = RuntimeError("a loop runs already")
    host = host_of(bench, inbox)
    reports, _ = bench.start(host, stretch(member(0), member(1))).result(10)
    assert kinds(reports) == ["Started 0", "Succeeded 0", "Returned 1"]
    reports, _ = bench.start(host, member(5)).result(10)
    assert kinds(reports) == ["Started 5", "Succeeded 5"]


def test_an_outcome_with_very_many_lines_is_told_with_all_of_them(
    bench: Bench, inbox: Inbox
) -> None:
    """An entry has room for few: read before the reports come, it would say that some are lost."""
    count = 400

    @bench.component.action
    def chatty(context: TaskContext) -> None:
        for number in range(count):
            context.log(f"{number} " + "x" * 100)

    first = replace(member(0), component="bench", action="chatty", input=b"{}")
    reports, _ = bench.start(host_of(bench, inbox), stretch(first, member(1))).result(10)
    assert len(inbox.entries) == 0
    lines = [r.stimulus for r in reports if isinstance(r.stimulus, st.LinesReported)]
    assert sum(len(report.lines) for report in lines) == count
    assert kinds(reports)[-2:] == ["Succeeded 0", "Returned 1"]


def test_a_failure_ends_the_stretch(bench: Bench, inbox: Inbox) -> None:
    given = stretch(member(0), member(1, "crash"), member(2))
    reports, _ = bench.start(host_of(bench, inbox), given).result(10)
    assert kinds(reports)[3:] == ["Failed 1", "Returned 2"]
    assert len(inbox.entries) == 1


def test_a_stretch_has_its_time(bench: Bench, inbox: Inbox) -> None:
    host = host_of(bench, inbox, TaskHostLimits(stretch_ms=0))
    reports, _ = bench.start(host, stretch(member(0), member(1)), member(5)).result(10)
    told = [shown(report) for _, report in bench.sent] + kinds(reports)
    assert told[1:] == ["Succeeded 0", "Returned 1", "Started 5", "Succeeded 5"]


def test_what_follows_can_be_stopped_and_those_behind_it_come_back(
    bench: Bench, inbox: Inbox
) -> None:
    host = host_of(bench, inbox)
    run = bench.start(host, stretch(member(0, "hold"), member(1), member(2), member(3)))
    bench.wait(bench.began("t0"))
    assert host.stop(("exec-1", 2, 1), only_waiting=True)
    bench.gates.open("t0")
    reports, _ = run.result(10)
    assert sorted(kinds(reports)) == ["Returned 1", "Returned 3", "Started 0", "Succeeded 0"]


def test_a_stop_of_what_has_ended_ends_the_stretch(bench: Bench, inbox: Inbox) -> None:
    """Whoever stops it does not know yet how far the stretch is."""
    host = host_of(bench, inbox)
    run = bench.start(host, stretch(member(0), member(1, "hold"), member(2)))
    bench.wait(bench.began("t1"))
    assert not host.stop(("exec-1", 0, 1), only_waiting=False)
    bench.gates.open("t1")
    reports, _ = run.result(10)
    assert "Succeeded 1" in kinds(reports)
    assert "Returned 2" in kinds(reports)
    assert len(bench.gates.began) == 2


def test_a_stretch_that_waits_can_be_stopped_at_either_end(bench: Bench, inbox: Inbox) -> None:
    host = host_of(bench, inbox)
    held = member(0, "hold")
    run = bench.start(host, held, stretch(member(1), member(2)), stretch(member(3), member(4)))
    bench.wait(bench.began("t0"))
    assert host.stop(("exec-1", 1, 1), only_waiting=False)
    assert host.stop(("exec-1", 4, 1), only_waiting=False)
    bench.gates.open("t0")
    reports, _ = run.result(10)
    assert sorted(kinds(reports)) == [
        *("Returned 2", "Started 0", "Started 3", "Succeeded 0", "Succeeded 3")
    ]


def test_a_new_owner_ends_the_stretch_and_adopts_what_runs(bench: Bench, inbox: Inbox) -> None:
    host = host_of(bench, inbox)
    run = bench.start(host, stretch(member(0), member(1, "hold"), member(2)))
    bench.wait(bench.began("t1"))
    running, ended = host.census("exec-1", 2, "heir")
    assert running == [("exec-1", 1, 1)]
    assert kinds(ended) == ["Started 0", "Succeeded 0"]
    bench.gates.open("t1")
    run.result(10)
    bench.wait(lambda: ("heir", "Succeeded 1") in bench.told())
    assert [entry.entry_id for entry in inbox.entries] == ["outcome:0:1"]
    assert len(bench.gates.began) == 2


def test_a_new_owner_ends_the_stretch_between_two_of_its_tasks(bench: Bench, inbox: Inbox) -> None:
    host = host_of(bench, inbox)
    host.take_in("me", [stretch(member(0), member(1))])
    live = host.begin_next()
    assert live is not None
    outcome = st.AttemptSucceeded(0, 1, 5, st.Output(4, b"null"))
    entry = host.entry_before_next(live, outcome)
    assert entry is not None
    host.finish(live, outcome, entry)
    host.census("exec-1", 2, "heir")
    assert host.begin_next() is None


def test_an_owner_that_is_superseded_meanwhile_gets_no_further_outcome(
    bench: Bench, inbox: Inbox
) -> None:
    host = host_of(bench, inbox)
    live = member(0, "hold")
    run = bench.start(host, stretch(live, member(1)))
    bench.wait(bench.began("t0"))
    host.census("exec-1", 2, "heir")
    bench.gates.open("t0")
    run.result(10)
    assert inbox.entries == []


# In order ----------------------------------------------------------------------------------------


def told(task: int, kind: str = "success") -> Report:
    stimuli: dict[str, st.AttemptStimulus] = {
        "start": st.AttemptStarted(task, 1, 1),
        "success": st.AttemptSucceeded(task, 1, 2, st.Output(2, b"{}")),
        "returned": st.AttemptReturned(task, 1, 2),
    }
    return Report("exec-1", stimuli[kind])


def test_what_comes_too_early_waits_for_the_outcome_before_it() -> None:
    turns = Turns()
    turns.given(stretch(member(0), member(1), member(2)))
    late = [told(2, "start"), told(2)]
    assert list(turns.in_order(late)) == []
    assert list(turns.in_order([told(1, "start"), told(1)])) == []
    assert kinds(list(turns.in_order([told(0, "start"), told(0)]))) == [
        f"{kind} {task}" for task in range(3) for kind in ("Started", "Succeeded")
    ]


def test_a_stretch_may_be_as_long_as_is_set() -> None:
    turns = Turns()
    turns.given(stretch(*(member(task) for task in range(3_000))))
    assert list(turns.in_order([told(task) for task in range(1, 3_000)])) == []
    assert len(list(turns.in_order([told(0)]))) == 3_000


def test_what_comes_back_waits_for_nothing() -> None:
    turns = Turns()
    turns.given(stretch(member(0), member(1)))
    assert kinds(list(turns.in_order([told(1, "returned")]))) == ["Returned 1"]
    assert turns.follows(("exec-1", 1, 1))
    turns.ended(("exec-1", 1, 1))
    assert not turns.follows(("exec-1", 1, 1))


def test_what_has_ended_leaves_nothing_behind() -> None:
    turns = Turns()
    turns.given(stretch(member(0), member(1), member(2)))
    list(turns.in_order([told(2)]))
    for task in range(3):
        turns.ended(("exec-1", task, 1))
    assert turns == Turns()


def test_what_did_not_run_teaches_nothing_about_durations() -> None:
    orders = [stretch(member(0), member(1), member(2)), member(3)]
    assert [each.task for each in members_of(orders)] == [0, 1, 2, 3]
    assert [each.task for each in ran_of(orders, [told(2, "returned")])] == [0, 1, 3]


# Whose it is -------------------------------------------------------------------------------------


async def test_what_comes_back_late_from_a_former_epoch_is_not_the_present_one(desk: Desk) -> None:
    """Its number is the same, because it never started."""
    actor = desk.leases.add()
    desk.start(stretch(plain_order(1), plain_order(2)))
    await until(actor.running)
    desk.dispatcher.forget("exec-1")
    other = desk.leases.add()
    desk.start(replace(plain_order(2), epoch=2))
    await until(other.running)
    returned = st.AttemptReturned(2, 1, 1)
    desk.dispatcher.reported([Report("exec-1", returned, returned_from=(1, 0))])
    assert desk.told() == []
    assert desk.stale == {"reports_ignored": 1}
    desk.dispatcher.reported([Report("exec-1", returned, returned_from=(2, 0))])
    assert desk.told() == ["AttemptReturned 2 1"]
    actor.end(1)
    await until(lambda: len(desk.told()) == 2)
    assert desk.told()[1:] == ["AttemptSucceeded 1 1"], "nothing is lost that was forgotten"


async def test_what_comes_back_twice_is_given_out_once(desk: Desk) -> None:
    """Else it would begin a second time under its number."""
    actor = desk.leases.add()
    desk.start(stretch(plain_order(1), replace(plain_order(2), number=7)))
    await until(actor.running)
    report = Report("exec-1", st.AttemptReturned(2, 1, 1), returned_from=(1, 7))
    desk.dispatcher.reported([report])
    assert desk.told() == ["AttemptReturned 2 1"]
    other = desk.leases.add()
    desk.start(replace(plain_order(2), number=8))
    await until(other.running)
    desk.dispatcher.reported([report])
    assert desk.told() == ["AttemptReturned 2 1"]


async def test_a_death_tells_of_the_last_of_a_stretch_first(desk: Desk) -> None:
    actor = desk.leases.add()
    desk.start(stretch(plain_order(1), plain_order(2), plain_order(3)))
    await until(actor.running)
    actor.die()
    await until(desk.told)
    assert desk.told() == ["AttemptLost 3 1", "AttemptLost 2 1", "AttemptLost 1 1"]


# What can follow, and with what ------------------------------------------------------------------

component = Component("kinds")


@component.action
def plain() -> None: ...


@component.action
async def waiting() -> None: ...


@component.action(uses_files=True)
def writing() -> None: ...


def joined_of(tasks: dict[str, Any]) -> set[str]:
    written = {
        name: {"component": "kinds", "action": "plain", **task} for name, task in tasks.items()
    }
    workflow = workflow_of(written)
    planned = PlannedWorkflow(workflow, Registry([component]))
    return {workflow.tasks[index].name for index in planned.joined}


@pytest.mark.parametrize(
    ("first", "second", "joins"),
    [
        ({}, {}, True),
        ({}, {"action": "waiting"}, False),
        ({"action": "waiting"}, {}, False),
        ({"action": "waiting"}, {"action": "waiting"}, False),
        ({}, {"action": "writing"}, False),
        ({"action": "writing"}, {"action": "writing"}, True),
        ({}, {"resources": {"num_cpus": 2}}, False),
        ({"resources": {"num_cpus": 2}}, {"resources": {"num_cpus": 2}}, True),
        ({}, {"action": "not installed"}, False),
    ],
)
def test_the_same_worker_must_do_for_both(
    first: dict[str, Any], second: dict[str, Any], joins: bool
) -> None:
    assert joined_of({"a": first, "b": {**second, "depends_on": ["a"]}}) == (
        {"b"} if joins else set()
    )


def test_what_waits_for_several_must_fit_each_that_it_may_follow() -> None:
    tasks = {
        "a": {},
        "b": {"resources": {"num_cpus": 2}},
        "c": {"depends_on": ["a", "b"]},
        "d": {"depends_on": ["a"]},
    }
    assert joined_of(tasks) == {"d"}
    assert joined_of({**tasks, "e": {"depends_on": ["b"]}}) == {"c", "d", "e"}


FOLLOWING = {
    "a": "",
    "b": {"depends_on": ["a"], "input": {"value": ["${tasks.a.output}", "${workflow.input.n}"]}},
    "c": {"depends_on": ["b"], "input": {"value": "${tasks.a.output}"}},
    "d": ["c"],
}


async def test_a_driver_hands_over_what_follows_with_what_is_known(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, FOLLOWING, joined=True)
    rig.begin()
    await until(lambda: "a" in rig.orders)
    then = rig.orders["a"].then
    assert [(each.task_name, each.values) for each in then] == [
        *(("b", {"": b'{"n":7}'}), ("c", {}), ("d", None))
    ]
    assert all(each.key == rig.orders["a"].key == QueueKey() for each in then)
    assert len({each.number for each in (rig.orders["a"], *then)}) == 4
    assert len(rig.store.commits) == 1


async def test_what_cannot_be_handed_over_waits_for_its_turn(rigs: list[Rig]) -> None:
    rig = await a_rig(
        rigs, {"a": "", "b": ["a"], "c": {"depends_on": ["b"], "action": "gone"}}, joined=True
    )
    rig.begin()
    await until(lambda: "a" in rig.orders)
    assert [each.task_name for each in rig.orders["a"].then] == ["b"]
    assert rig.execution.handed_out == {0, 1}
    rig.done("a")
    rig.driver.deliver(st.AttemptSucceeded(1, 1, rig.clock.now_ms(), st.Output(2, b"{}")))
    await rig.running
    failure = rig.execution.rows[2].failure
    assert failure is not None
    assert failure.code == "UNKNOWN_ACTION"


async def test_reports_acknowledge_what_lies_in_the_inbox(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, {"a": "", "b": ["a"]}, joined=True)
    rig.begin()
    await until(lambda: "a" in rig.orders)
    success = rig.success("a", st.Output(2, b"{}"))
    rig.driver.deliver_reports([Report(rig.driver.execution_id, success, "outcome:0:1")])
    await until(lambda: len(rig.store.commits) == 2)
    assert rig.store.commits[-1].inbox_done == ["outcome:0:1"]
    rig.driver.deliver(success, inbox_ids=["outcome:0:1"])
    rig.driver.deliver(st.AttemptSucceeded(1, 1, rig.clock.now_ms(), st.Output(2, b"{}")))
    await rig.running
    assert rig.execution.stale_reports == 0
