"""What is stored of an execution is held against its log: each disagreement is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harmonia_actors.core import stimuli as st
from harmonia_actors.core.audit import Auditor
from harmonia_actors.core.audit_findings import Violation
from harmonia_actors.core.audit_state import disagreements, missing_output, wrong_output
from harmonia_actors.core.execution import CoreLimits
from harmonia_actors.core.records import OutputReference, TaskRow
from harmonia_actors.core.statuses import ExecutionStatus, TaskStatus
from tests.support.executions import EXECUTION_ID, Story, output, workflow_of
from tests.unit.core.audit_logs import WORKFLOW


def told(story: Story) -> Auditor:
    return story.audited.auditor


def broken(story: Story, rows: dict[int, TaskRow] | None = None) -> list[str]:
    """Rules that the state breaks, beside the log."""
    rows = dict(enumerate(story.execution.rows)) if rows is None else rows
    head = story.execution.head
    return [
        v.rule
        for v in disagreements(
            *(told(story), head, rows, story.execution.seq),
            lost_attempts_max=story.limits.lost_attempts_max,
        )
    ]


def ended(ending: str = "completed") -> Story:
    story = Story(WORKFLOW)
    story.start()
    story.started("a", "c")
    story.succeeded("a")
    if ending == "failed":
        story.failed("c")
        story.stopped("b")
    else:
        story.succeeded("b")
        story.succeeded("c")
    assert (story.status(), broken(story)) == (ending, [])
    return story


def test_a_log_that_is_shorter_than_what_was_stored_breaks_a_rule() -> None:
    story = ended()
    rows = dict(enumerate(story.execution.rows))
    (violation,) = disagreements(told(story), story.execution.head, rows, 99)
    assert (violation.rule, violation.message) == (
        "A1",
        "the log ends with event 8, but 99 were stored",
    )


@pytest.mark.parametrize(
    ("ending", "name", "value"),
    [
        ("completed", "status", ExecutionStatus.CANCELLED),
        ("completed", "completed_ms", 1),
        ("completed", "started_ms", None),
        ("completed", "completed_tasks", 2),
        ("completed", "total", 4),
        ("completed", "output", None),
        ("failed", "error", None),
        ("failed", "error", {"code": "timeout"}),
        ("failed", "output", OutputReference(EXECUTION_ID, "execution", 2)),
    ],
)
def test_a_head_that_says_otherwise_breaks_a_rule(ending: str, name: str, value: Any) -> None:
    story = ended(ending)
    setattr(story.execution.head, name, value)
    assert set(broken(story)) == {"A16"}


def test_an_end_without_its_event_breaks_a_rule() -> None:
    story = Story(WORKFLOW)
    story.start()
    story.execution.head.status = ExecutionStatus.FAILED
    assert broken(story) == ["A16"]
    story.execution.head.status = ExecutionStatus.PENDING
    assert broken(story) == ["A16"]


def test_an_ending_that_the_head_does_not_know_breaks_a_rule() -> None:
    story = Story(WORKFLOW)
    story.start()
    story.started("a")
    story.failed("c")
    assert (story.status(), broken(story)) == ("running", [])
    story.execution.head.error = None
    assert broken(story) == ["A16"]


ELSEWHERE = OutputReference("exec-2", "0:1", 2)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("a", {"status": TaskStatus.RUNNING}),
        ("a", {"status": TaskStatus.FAILED}),
        ("a", {"attempt": 2}),
        ("a", {"failures": 1}),
        ("a", {"started_ms": None}),
        ("a", {"completed_ms": 1}),
        ("a", {"output": None}),
        ("a", {"output": ELSEWHERE}),
        ("b", {"output": ELSEWHERE}),
        ("b", {"attempt": 0}),
        ("c", {"failure": None}),
        ("c", {"attempt": 2}),
        ("c", {"losses": -1}),
    ],
)
def test_a_row_that_says_otherwise_breaks_a_rule(name: str, changed: dict[str, Any]) -> None:
    story = ended("failed")
    row = story.execution.rows[story.index(name)]
    for column, value in changed.items():
        setattr(row, column, value)
    found = disagreements(
        told(story),
        story.execution.head,
        dict(enumerate(story.execution.rows)),
        story.execution.seq,
    )
    assert [(violation.rule, violation.task) for violation in found] == [("A17", name)]


def test_rows_of_tasks_under_way_are_held_against_the_log() -> None:
    story = Story(WORKFLOW, limits=CoreLimits(lost_attempts_max=9))
    story.start()
    story.started("a")
    story.failed("a")
    row = story.execution.rows[0]
    assert (row.status, broken(story)) == (TaskStatus.RETRYING, [])
    row.attempt = 1
    assert broken(story) == ["A17"]
    row.attempt = 2
    story.execution.rows[1].status = TaskStatus.RETRYING
    assert broken(story) == ["A17"]
    story.execution.rows[1].status = TaskStatus.PENDING
    story.started("c")
    story.execution.rows[2].status = TaskStatus.PENDING
    assert broken(story) == ["A17"]


# What was tried again, and what was not --------------------------------------------------------


def decided_otherwise(story: Story, name: str, **changed: Any) -> list[tuple[str, str | None]]:
    """What is found if the failure of a task was another one than what its log followed from."""
    assert broken(story) == []
    row = story.execution.rows[story.index(name)]
    assert row.failure is not None
    row.failure = replace(row.failure, **changed)
    found = disagreements(
        *(told(story), story.execution.head),
        *(dict(enumerate(story.execution.rows)), story.execution.seq),
    )
    return [(violation.rule, violation.task) for violation in found]


def test_a_failure_that_should_have_been_tried_again_breaks_a_rule() -> None:
    story = Story(WORKFLOW)
    story.start()
    story.started("a")
    story.failed("a", retriable=False)
    assert decided_otherwise(story, "a", retriable=True) == [("A11", "a")]


def test_a_failure_that_should_not_have_been_tried_again_breaks_a_rule() -> None:
    story = Story(WORKFLOW)
    story.start()
    story.started("a")
    story.failed("a")
    assert story.execution.rows[0].status is TaskStatus.RETRYING
    assert decided_otherwise(story, "a", retriable=False) == [("A11", "a")]


def test_what_fails_when_all_is_bound_to_end_is_not_tried_again() -> None:
    story = Story(WORKFLOW)
    story.start()
    story.started("a", "c")
    story.failed("c")
    story.failed("a")
    assert (story.status(), broken(story)) == ("failed", [])
    story = Story(WORKFLOW)
    story.start()
    story.started("a")
    story.wait(60_000)
    story.failed("a")
    assert broken(story) == []


def test_a_loss_that_ends_the_task_too_soon_breaks_a_rule_if_it_is_known_how_many_may_be() -> None:
    story = Story(WORKFLOW, limits=CoreLimits(lost_attempts_max=0))
    story.start()
    story.started("c")
    story.lost("c")
    assert broken(story) == []
    story.limits = CoreLimits(lost_attempts_max=1)
    assert broken(story) == ["A11"]


@pytest.mark.parametrize(
    "changed", [{"message": "it was well"}, {"code": "X"}, {"details": {"n": 1}}]
)
def test_a_failure_that_is_not_the_one_of_the_log_breaks_a_rule(changed: dict[str, Any]) -> None:
    assert decided_otherwise(ended("failed"), "c", **changed) == [("A17", "c")]


# Outputs ---------------------------------------------------------------------------------------

LARGE = st.Output(70_000, None, f"mem:{EXECUTION_ID}/0-1.json", '{"x": 1')


def large(of_execution: bool) -> Story:
    """One task, with an output that is kept in a blob; and so is the execution's, if wanted."""
    story = Story(workflow_of({"a b": ""}))
    story.start()
    story.take(st.AttemptSucceeded(0, 1, story.at_ms, LARGE))
    if of_execution:
        url = f"mem:{EXECUTION_ID}/execution.json"
        story.take(st.OutputComposed(story.at_ms, replace(LARGE, url=url)))
    else:
        story.take(st.OutputComposed(story.at_ms, output({"is": "small"})))
    assert (story.status(), broken(story)) == ("completed", [])
    return story


@pytest.mark.parametrize(
    "changed",
    [
        {"key": "0:2"},
        {"key": "1:1"},
        {"size": 11},
        {"preview": "x"},
        {"url": f"mem:{EXECUTION_ID}/0-1.json"},
    ],
)
def test_a_reference_to_an_output_that_is_not_the_one_of_the_log_breaks_a_rule(
    changed: dict[str, Any],
) -> None:
    story = ended()
    row, head = story.execution.rows[0], story.execution.head
    assert row.output is not None and head.output is not None
    row.output = replace(row.output, **changed)
    assert broken(story) == ["A17"]
    row.output = replace(row.output, key="0:1", size=10, preview="", url=None)
    assert broken(story) == []
    head.output = replace(head.output, **{**changed, "size": changed.get("size", 1)})
    assert broken(story) == ["A16"]


@pytest.mark.parametrize(
    "changed",
    [
        {"key": "0:2"},
        {"size": 70_001},
        {"preview": ""},
        {"url": None},
        {"url": f"mem:{EXECUTION_ID}/0-2.json"},
        {"execution_id": "exec-2"},
    ],
)
def test_a_reference_to_a_blob_that_is_not_the_one_of_the_log_breaks_a_rule(
    changed: dict[str, Any],
) -> None:
    story = large(of_execution=False)
    row = story.execution.rows[0]
    assert row.output is not None
    row.output = replace(row.output, **changed)
    assert broken(story) == ["A17"]
    story = large(of_execution=True)
    head = story.execution.head
    assert head.output is not None
    head.output = replace(head.output, **changed)
    assert broken(story) == ["A16"]


def test_an_output_that_is_stored_otherwise_than_told_is_another_one() -> None:
    auditor = told(ended())
    assert auditor.told.tasks[0].output is not None
    assert wrong_output("a", auditor.told.tasks[0].output, b'{"of":"a"}') is None
    assert wrong_output("a", auditor.told.tasks[0].output, b'{"of":"b"}') == Violation(
        "A17", None, "a", "the output of task 'a' is stored otherwise than it was told"
    )
    assert auditor.output is not None
    found = wrong_output(None, auditor.output, b"[]")
    assert found is not None and found.rule == "A16"


def test_a_row_that_was_never_written_is_one_that_waits() -> None:
    story = Story(WORKFLOW)
    story.start()
    assert broken(story, {}) == []
    story.started("a")
    assert broken(story, {}) == ["A17"]


def test_a_missing_output_is_said_to_be_missing() -> None:
    assert missing_output("a") == Violation(
        "A18", None, "a", "the output of task 'a' is not stored"
    )
    assert missing_output(None).message == "the output of the execution is not stored"
