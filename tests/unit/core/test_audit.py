"""Every rule of the auditor has histories that keep it and histories that break it and no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from harmonia_actors.core import events as ev
from harmonia_actors.core import jsontext
from harmonia_actors.core.audit import Auditor
from harmonia_actors.core.audit_findings import AUDIT_RULES
from harmonia_actors.core.audit_state import inherited_tasks
from harmonia_actors.core.audit_tasks import ToldTask
from harmonia_actors.core.options import ExecutionOptions
from harmonia_actors.core.records import OutputReference, TaskRow
from harmonia_actors.core.statuses import TaskStatus
from tests.support.auditing import bodies_of
from tests.support.executions import EXECUTION_ID, Story, new_head, workflow_of
from tests.unit.core.audit_logs import (
    AT_MS,
    BROKEN,
    GOOD,
    HEAD,
    REST,
    TIMED_OUT,
    WORKFLOW,
    audited,
    begin,
    checkpoint,
    complete,
    completed,
    found,
    lines,
    messages,
    progress,
    ran_out,
    run,
    start,
)


@pytest.mark.parametrize("name", GOOD)
def test_a_history_that_can_be_breaks_no_rule(name: str) -> None:
    auditor = audited(messages(*GOOD[name]))
    assert auditor.findings.violations == []
    assert (auditor.final is None) == (name in ("nothing yet", "under way"))


def test_what_is_counted() -> None:
    auditor = audited(messages(*GOOD["retried and lost"]))
    assert (auditor.events, auditor.told.attempts, auditor.told.lost_attempts) == (12, 5, 1)
    auditor = audited(messages(*GOOD["lost before it was seen to start"]))
    assert (auditor.told.attempts, auditor.told.lost_attempts) == (3, 1)


@pytest.mark.parametrize(
    ("rule", "log"),
    [(rule, log) for rule, _, log in BROKEN],
    ids=[f"{r} {n}" for r, n, _ in BROKEN],
)
def test_a_history_that_cannot_be_breaks_the_rule(rule: str, log: list[Any]) -> None:
    assert set(found(audited(messages(*log)))) == {rule}


def changed(place: int, change: Callable[[dict[str, Any]], object]) -> list[dict[str, Any]]:
    """A good log whose event at this place (of progress) is another one."""
    log = messages(begin(), start("a"), progress("a"), complete("a"), REST)
    change(log[place])
    return log


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("A1", lambda m: m.update(seq=2)),
        ("A2", lambda m: m.update(type="task_progressed")),
        ("A2", lambda m: m.update(timestamp="2025-01-15T12:00:00Z")),
        ("A2", lambda m: m.update(timestamp_ms=10**20)),
        ("A2", lambda m: m.update(timestamp_ms=True)),
        ("A2", lambda m: m.update(data=[])),
        ("A2", lambda m: m.update(more=1)),
        ("A2", lambda m: m.pop("timestamp")),
        ("A2", lambda m: m["data"].update(progress=1.5)),
        ("A2", lambda m: m["data"].update(progress="0.5")),
        ("A2", lambda m: m["data"].update(more=1)),
        ("A2", lambda m: m["data"].pop("message")),
        ("A5", lambda m: m.update(execution_id="exec-2")),
    ],
)
def test_an_event_that_is_none_breaks_a_rule(rule: str, change: Any) -> None:
    log = changed(2, change)
    auditor = Auditor(WORKFLOW, HEAD)
    for seq, message in enumerate(log, 1):
        auditor.feed(seq, jsontext.encode(message))
    assert found(auditor) == [rule]
    assert auditor.findings.violations[0].seq == 3


@pytest.mark.parametrize(
    "odd",
    [{"text": "half \ud800"}, {"text": 7}, {"stream": ["log"]}, {"level": "loud"}, {"more": 1}],
    ids=str,
)
def test_a_line_that_is_none_breaks_a_rule(odd: dict[str, Any]) -> None:
    line = {"stream": "log", "text": "x", "timestamp_ms": AT_MS, "level": "info"}
    log = messages(begin(), start("a"), lines("a", 1, "x"))
    log[2]["data"]["lines"] = [{**line, **odd}]
    auditor = Auditor(WORKFLOW, HEAD)
    for seq, message in enumerate(log, 1):
        auditor.feed(seq, json.dumps(message).encode())
    assert found(auditor) == ["A2"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_event_break_a_rule(body: bytes) -> None:
    auditor = audited(messages(begin(), start("a")))
    auditor.feed(3, body)
    assert found(auditor) == ["A2"]


@pytest.mark.parametrize(
    ("order", "places"), [([1, 2, 4, 5], [4]), ([1, 2, 2, 3], [2]), ([1, 3, 2, 4], [3, 2])]
)
def test_numbers_that_do_not_follow_each_other_break_a_rule(
    order: list[int], places: list[int]
) -> None:
    log = messages(begin(), start("a"), progress("a"), progress("a"), progress("a"))
    log[1:] = messages(*[checkpoint(f"cp-{n}") for n in range(5)])[1:]
    bodies = {message["seq"]: jsontext.encode(message) for message in log}
    auditor = Auditor(WORKFLOW, HEAD)
    for seq in order:
        auditor.feed(seq, bodies[seq])
    ones = [v for v in auditor.findings.violations if v.rule == "A1"]
    assert [violation.seq for violation in ones] == places


def test_without_a_timeout_no_time_runs_out() -> None:
    workflow = workflow_of({"a": ""})
    auditor = Auditor(workflow, new_head(workflow))
    for body in bodies_of(Story(workflow).start().events, EXECUTION_ID):
        auditor.feed(1, body)
    out = ev.TaskSkipped("a", 0, 1, TIMED_OUT)
    auditor.feed(2, ev.encode_event(out, seq=2, at_ms=AT_MS, execution_id=EXECUTION_ID))
    assert found(auditor) == ["A12"]


def test_a_restored_execution_owes_only_what_had_not_completed() -> None:
    head = new_head(WORKFLOW)
    head.checkpoint_id = "cp-1"
    rows = {
        0: TaskRow(TaskStatus.COMPLETED, output=OutputReference("exec-before", "0:1", 2)),
        2: TaskRow(TaskStatus.COMPLETED, output=OutputReference(EXECUTION_ID, "2:1", 2)),
    }
    inherited = inherited_tasks(head, rows)
    assert inherited == {0}
    assert inherited_tasks(HEAD, rows) == frozenset(), "it was not restored"
    good = audited(messages(begin(), run("b"), run("c"), completed()), inherited=inherited)
    assert found(good) == []
    again = audited(messages(begin(), start("a")), inherited=inherited)
    assert found(again) == ["A10"]
    assert "before the checkpoint" in again.findings.violations[0].message
    unbegun = audited(messages(*GOOD["cancelled before it began"]), head=head)
    assert found(unbegun) == ["A3"], "a restored execution has begun when it is made"


def test_the_findings_are_bounded_and_all_are_counted() -> None:
    auditor = audited(messages(begin(), [progress("a")] * 50), violations_max=3)
    assert (len(auditor.findings.violations), auditor.findings.total) == (3, 50)


def test_a_violation_says_where_and_what() -> None:
    auditor = audited(messages(begin(), run("c"), start("b")))
    assert [violation.to_json() for violation in auditor.findings.violations] == [
        {
            "rule": "A6",
            "seq": 4,
            "task": "b",
            "message": "it depends on 'a', not completed by then",
        }
    ]


def test_many_names_are_not_all_listed() -> None:
    tasks: dict[str, Any] = {f"t{n}": "" for n in range(9)}
    workflow = workflow_of({**tasks, "end": list(tasks)})
    auditor = Auditor(workflow, new_head(workflow))
    auditor.feed(
        1,
        ev.encode_event(
            ev.TaskStarted("end", 9, 10, 1), seq=1, at_ms=AT_MS, execution_id=EXECUTION_ID
        ),
    )
    assert "'t0', 't1', 't2', 't3', 't4' and 4 more" in auditor.findings.violations[1].message


class CountedTasks(list[ToldTask]):
    """Tasks that count how often they are looked at."""

    looks = 0

    def __getitem__(self, key: Any) -> Any:
        CountedTasks.looks += 1
        return super().__getitem__(key)

    def __iter__(self) -> Any:
        CountedTasks.looks += len(self)
        return super().__iter__()


def test_an_event_costs_the_same_in_a_small_and_in_a_large_workflow() -> None:
    def looks(count: int) -> int:
        workflow = workflow_of({"a": "", **{f"t{n}": ["a"] for n in range(count)}, "z": ["t0"]})
        story = Story(workflow)
        story.start()
        auditor = Auditor(workflow, new_head(workflow))
        auditor.told.tasks = CountedTasks(auditor.told.tasks)
        story.succeeded("a")
        before = bodies_of(story.events, EXECUTION_ID)
        for seq, body in enumerate(before, 1):
            auditor.feed(seq, body)
        CountedTasks.looks = 0
        story.succeeded("t0")
        for seq, body in enumerate(bodies_of(story.last.events, EXECUTION_ID), len(before) + 1):
            auditor.feed(seq, body)
        assert auditor.findings.total == 0
        return CountedTasks.looks

    assert 0 < looks(10) == looks(1_000)


def test_every_rule_is_broken_by_something_here() -> None:
    of_logs = {rule for rule, _, _ in BROKEN}
    assert of_logs | {"A1", "A2", "A16", "A17", "A18"} == set(AUDIT_RULES)


def test_options_of_the_execution_are_known() -> None:
    head = new_head(WORKFLOW, ExecutionOptions(timeout_ms=5_000))
    log = messages(begin(), run("a"), run("b"), run("c"), ran_out(5_000))
    assert found(audited(log, head=head)) == []
