"""The auditor finds a history wrong exactly if the core could not have written it.

Histories of small workflows are lived through at random, then changed in one place and numbered
anew: an event dropped, told once more anywhere later, exchanged with any other, or one of its
values altered (its type, its ids, names, indexes, counts, flags, reasons, codes and errors; not
times, outputs, progress and names of checkpoints, which a log cannot contradict). Each is then
looked for among all that the core can write (`explained`). The auditor must agree in each case, but
for one: an attempt number that is higher than it could be, if it stays below the next one told.
Numbers are passed over when an owner dies, and to tell whether one did takes the whole graph.

With the stored state at hand more is found: whatever is dropped or told twice except progress and
checkpoints, and times of starts and ends that are not those of the rows. The start of an attempt
can be missing if it has failed and is not the one whose start the row still knows: an attempt may
fail before it starts, and a row forgets a start with the next one or with a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as some

from harmonia_actors.core import events as ev
from harmonia_actors.core import jsontext
from harmonia_actors.core.audit import Auditor
from harmonia_actors.core.audit_state import disagreements
from harmonia_actors.core.options import ExecutionOptions
from harmonia_actors.core.records import Head, OutputReference, TaskRow
from harmonia_actors.core.state import why_ending
from harmonia_actors.core.statuses import TaskStatus
from harmonia_actors.core.stimuli import WORKER_LOST, Failure
from harmonia_actors.core.timestamps import timestamp
from harmonia_actors.core.workflow import Workflow
from tests.property.explained import Explained
from tests.property.histories import Message, Steps, joinable, live_through
from tests.property.mutations import dropped, every_mutation, told_twice
from tests.support.executions import new_head, output, workflow_of
from tests.unit.core.audit_logs import BROKEN, GOOD, HEAD, WORKFLOW, messages

#: Of all mutations of a history, so many are looked for: each takes a search.
_LOOKED_FOR = 30
_EVENTS_MAX = 10
#: Nothing in a log can contradict these, unless their place does.
_BESIDE = ("task_progress", "checkpoint_created")
_ENDS = ("task_completed", "task_skipped", "task_cancelled")

#: Logs of the unit tests whose search would take long, and those that only times tell apart.
_DEEP = {"lost before it was seen to start"}
_TIMES = {"a duration of its own"}

_SETTINGS = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@some.composite
def workflows(draw: some.DrawFn, tasks_max: int) -> Workflow:
    tasks: dict[str, Any] = {}
    for index in range(draw(some.integers(1, tasks_max))):
        parents = draw(some.sets(some.integers(0, index - 1))) if index else set()
        retries = draw(some.sampled_from([0, 1, 2]))
        tasks[f"t{index}"] = {
            "depends_on": [f"t{parent}" for parent in sorted(parents)],
            "retry_policy": {"max_retries": retries, "retry_interval": 0},
            "resources": {"num_cpus": draw(some.sampled_from([1, 1, 1, 2]))},
        }
    return workflow_of(
        tasks, **draw(some.sampled_from([{}, {"output": {"x": "${tasks.t0.output.n}"}}]))
    )


@some.composite
def beginnings(draw: some.DrawFn, tasks_max: int) -> Steps:
    """An execution that is to be lived through: a new one, or one that was restored."""
    workflow = draw(workflows(tasks_max))
    head = new_head(workflow, ExecutionOptions(timeout_ms=draw(some.sampled_from([9_000, None]))))
    rows = {}
    if draw(some.sampled_from([False, False, True])):
        head.checkpoint_id = "cp-0"
        for index, parents in enumerate(workflow.graph.parents):
            if rows.keys() >= set(parents) and draw(some.booleans()):
                rows[index] = _before(head, index)
    return Steps(workflow=workflow, head=head, rows=rows, joined=joinable(workflow))


def _before(head: Head, index: int) -> TaskRow:
    head.completed_tasks += 1
    return TaskRow(
        TaskStatus.COMPLETED,
        started_ms=1,
        completed_ms=2,
        output=OutputReference("exec-before", f"{index}:1", 2),
    )


def beginning_of(workflow: Workflow) -> Steps:
    """An execution that nobody has begun, with no options of its own."""
    return Steps(workflow=workflow, head=new_head(workflow), joined=joinable(workflow))


lucks = some.randoms(use_true_random=False)


def audited(first: Steps, log: Sequence[Message]) -> Auditor:
    inherited = [i for i, row in enumerate(first.rows) if row.status is TaskStatus.COMPLETED]
    auditor = Auditor(first.workflow, first.head, inherited=inherited)
    for index, message in enumerate(log, 1):
        auditor.feed(index, jsontext.encode(message))
    return auditor


def stored_otherwise(first: Steps, last: Steps, log: Sequence[Message]) -> list[str]:
    """All that an audit finds with the state at hand, as if it knew of just these events."""
    auditor = audited(first, log)
    state = disagreements(auditor, last.head_record(), dict(enumerate(last.rows)), len(log))
    return [str(violation) for violation in [*auditor.findings.violations, *state]]


def passes_over(name: str, log: Sequence[Message], mutated: Sequence[Message]) -> bool:
    """Whether all that was altered is an attempt number, to a higher one."""
    if ".attempt:" not in name:
        return False
    pairs = zip(log, mutated, strict=True)
    return any(b["data"].get("attempt", 0) > a["data"].get("attempt", 0) for a, b in pairs)


def is_forgotten(log: Sequence[Message], place: int, last: Steps) -> bool:
    """Whether this is the start of an attempt of which just a failure is left besides.

    Only the loss of an attempt that had started is told before another one follows.
    """
    data = log[place]["data"]
    if log[place]["type"] != "task_started" or is_known(log[place], last):
        return False
    name = data["task_name"]
    outcome = next((m for m in log[place + 1 :] if m["data"].get("task_name") == name), None)
    if outcome is None or outcome["type"] != "task_failed":
        return False
    return bool(outcome["data"]["error_details"]["code"] != WORKER_LOST)


def is_known(start: Message, last: Steps) -> bool:
    """Whether the row still has this start of an attempt; no two of a task are at one time."""
    began_ms = last.rows[start["data"]["task_index"]].started_ms
    return bool(began_ms == start["timestamp_ms"])


def shown(log: Sequence[Message]) -> str:
    return "\n".join(f"{m['seq']} {m['type']} {jsontext.encode_text(m['data'])}" for m in log)


def agree(first: Steps, log: list[Message], mutations: Sequence[tuple[str, list[Message]]]) -> None:
    explained = Explained(first, log)
    assert explained.is_explained()
    for name, mutated in mutations:
        violations = audited(first, mutated).findings.violations
        if explained.explains(mutated):
            assert violations == [], f"{name}: the core could have written {shown(mutated)}"
        elif not passes_over(name, log, mutated):
            assert violations, f"{name}: the core could not have written {shown(mutated)}"


@pytest.mark.parametrize("name", GOOD.keys() - _DEEP)
def test_the_search_explains_what_can_be(name: str) -> None:
    log = messages(*GOOD[name])
    assert Explained(beginning_of(WORKFLOW), log).is_explained()


@pytest.mark.parametrize(
    "log", [log for _, name, log in BROKEN if name not in _TIMES], ids=lambda log: None
)
def test_the_search_explains_nothing_that_cannot_be(log: list[Any]) -> None:
    found = Explained(beginning_of(WORKFLOW), messages(*log))
    assert not found.is_explained()


def fails(name: str, *, of: int) -> ev.Event:
    failure = Failure("broke", "BROKE", {"why": 1})
    return ev.TaskFailed(name, int(name[1:]), of, 1, failure, 0, 0, will_retry=False)


def fails_all(name: str) -> ev.Event:
    """The execution fails because of this task: as its end, or quarantined by its head alone."""
    error = {
        "code": "component_error",
        "message": f"task '{name}' failed: broke",
        "details": {"code": "BROKE", "why": 1},
        "task": name,
    }
    return ev.ExecutionFailed(HEAD.workflow_id, "wf", 0, error)


def runs(name: str, *, of: int) -> list[ev.Event]:
    index = int(name[1:])
    completed = ev.TaskCompleted(name, index, of, 1, output({"n": 1}))
    return [ev.TaskStarted(name, index, of, 1), completed]


CHAIN = {"t0": "", "t1": ["t0"]}
CHAIN_APART = {"t0": "", "t1": {"depends_on": ["t0"], "resources": {"num_cpus": 2}}}
JOIN = {"t0": "", "t1": "", "t2": ["t0", "t1"]}
JOIN_APART = {**JOIN, "t0": {"resources": {"num_cpus": 2}}}
SKIPPED = ev.TaskSkipped("t1", 1, 2, why_ending({"task": "t0"}))
BEGUN = ev.ExecutionStarted(HEAD.workflow_id, "wf")
LATE = [ev.TaskStarted("t1", 1, 3, 1), *runs("t0", of=3)]
IN_TIME = [*runs("t0", of=3), ev.TaskStarted("t1", 1, 3, 1)]

#: What is told after one task has failed for good, and whether it can be.
STRETCHES: dict[str, tuple[dict[str, Any], list[ev.Event], bool]] = {
    "dropped at once": (CHAIN, [fails("t0", of=2), SKIPPED], True),
    "not dropped yet": (CHAIN, [fails("t0", of=2), ev.CheckpointCreated("cp-1", "")], True),
    "ended while it is being stopped": (CHAIN, [fails("t0", of=2), fails_all("t0")], True),
    "goes on": (CHAIN, [fails("t0", of=2), ev.TaskStarted("t1", 1, 2, 1)], False),
    "apart": (CHAIN_APART, [fails("t0", of=2), fails_all("t0")], False),
    "handed out with the last": (JOIN, [*IN_TIME, fails("t1", of=3), fails_all("t1")], True),
    "not ready for that": (JOIN, [*LATE, fails("t1", of=3), fails_all("t1")], False),
    "apart from the first": (JOIN_APART, [*IN_TIME, fails("t1", of=3), fails_all("t1")], False),
}


@pytest.mark.parametrize("name", STRETCHES)
def test_only_what_follows_in_a_stretch_need_not_be_dropped_at_once(name: str) -> None:
    """Found by seeds: it is being stopped when the execution is quarantined by its head alone."""
    tasks, told, can_be = STRETCHES[name]
    first, log = beginning_of(workflow_of(tasks)), messages(BEGUN, told)
    assert Explained(first, log).is_explained() == can_be
    assert (audited(first, log).findings.violations == []) == can_be


@settings(_SETTINGS, max_examples=12)
@given(beginnings(tasks_max=2), lucks)
def test_a_history_is_found_wrong_if_it_could_not_have_been(first: Steps, luck: Random) -> None:
    log, _ = live_through(first, luck, _EVENTS_MAX)
    note(shown(log))
    mutations = list(every_mutation(log))
    agree(first, log, luck.sample(mutations, min(_LOOKED_FOR, len(mutations))))


@settings(_SETTINGS, max_examples=8)
@given(beginnings(tasks_max=1), lucks)
def test_every_mutation_of_a_short_history_is_judged_rightly(first: Steps, luck: Random) -> None:
    log, _ = live_through(first, luck, 7)
    note(shown(log))
    agree(first, log, list(every_mutation(log)))


@settings(_SETTINGS, max_examples=60)
@given(beginnings(tasks_max=6), lucks)
def test_the_stored_state_gives_away_what_is_missing_or_told_twice(
    first: Steps, luck: Random
) -> None:
    log, last = live_through(first, luck, 60, tick_ms=1)
    assert stored_otherwise(first, last, log) == []
    for place, (name, mutated) in enumerate(dropped(log)):
        if log[place]["type"] not in _BESIDE and not is_forgotten(log, place, last):
            assert stored_otherwise(first, last, mutated), name
    for name, mutated in told_twice(log):
        if "task_progress" not in name:
            assert stored_otherwise(first, last, mutated), name


@settings(_SETTINGS, max_examples=60)
@given(beginnings(tasks_max=6), lucks)
def test_the_stored_state_gives_away_other_times(first: Steps, luck: Random) -> None:
    log, last = live_through(first, luck, 60, tick_ms=1)
    for place, message in enumerate(log):
        kind, data = message["type"], message["data"]
        is_start = kind == "task_started" and is_known(message, last)
        is_end = kind in _ENDS or data.get("will_retry") is False
        if is_start or is_end or kind.startswith("execution_"):
            mutated = list(log)
            at_ms = message["timestamp_ms"] + 7
            mutated[place] = {
                **message,
                "timestamp_ms": at_ms,
                "timestamp": timestamp(at_ms),
            }
            assert stored_otherwise(first, last, mutated), f"{message['seq']} {kind}"
