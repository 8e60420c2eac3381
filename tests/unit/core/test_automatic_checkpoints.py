"""When an execution decides to take a checkpoint by itself, and when it does not."""

from __future__ import annotations

from typing import Any

import pytest

from harmonia_actors.core import stimuli as st
from harmonia_actors.core.commands import TakeCheckpoint
from harmonia_actors.core.execution import CoreLimits, Execution
from harmonia_actors.core.invariants import violations
from harmonia_actors.core.options import (
    CheckpointPolicy,
    ExecutionOptions,
    parse_checkpoint_policy,
)
from harmonia_actors.core.records import AutomaticCheckpoint, OutputReference, TaskRow
from harmonia_actors.core.statuses import TaskStatus
from tests.support.executions import START_MS, Story, new_head, workflow_of

WIDE = {f"t{i}": "" for i in range(9)}


def story_of(policy: CheckpointPolicy, tasks: dict[str, Any] | None = None, **fields: Any) -> Story:
    story = Story(
        workflow_of(WIDE if tasks is None else tasks, **fields),
        options=ExecutionOptions(checkpoint=policy),
    )
    story.start()
    return story


def every(completions: int, keep: int | None = None) -> CheckpointPolicy:
    return CheckpointPolicy(every_completions=completions, keep=keep)


def asked(story: Story) -> list[str]:
    return [shown for shown in story.ordered() if shown.startswith("checkpoint")]


def taken(story: Story, seq: int | None = None) -> None:
    last = story.execution.head.automatic
    assert last is not None
    seq = last.seq if seq is None else seq
    story.take(st.AutomaticCheckpointTaken(story.at_ms, seq, f"cp-{seq}"))


# By completions ----------------------------------------------------------------------------------


def test_one_is_due_after_so_many_completions() -> None:
    story = story_of(every(2))
    story.succeeded("t0")
    assert asked(story) == []
    story.succeeded("t1")
    # Started, twice two events: the decision is about all of them.
    assert asked(story) == ["checkpoint 5 keep 5"]
    taken(story)
    assert story.told(story.last) == ["checkpoint_created"]
    assert story.bodies()[-1]["data"] == {"checkpoint_id": "cp-5", "name": "auto-5"}
    story.succeeded("t2")
    assert asked(story) == []
    story.succeeded("t3")
    assert asked(story) == ["checkpoint 10 keep 5"]


def test_completions_that_come_together_make_one() -> None:
    story = story_of(every(2, keep=3))
    story.take(*(st.AttemptSucceeded(i, 1, story.at_ms, st.Output(4, b"null")) for i in range(6)))
    assert asked(story) == ["checkpoint 13 keep 3"]


def test_the_next_waits_until_the_last_is_there() -> None:
    story = story_of(every(1))
    story.succeeded("t0")
    for name in ("t1", "t2", "t3"):
        story.succeeded(name)
        assert asked(story) == []
    taken(story)
    assert asked(story) == ["checkpoint 10 keep 5"]


def test_what_fails_or_starts_is_no_completion() -> None:
    tasks = {"a": {"retry_policy": {"max_retries": 9, "retry_interval": 0}}, "b": ""}
    story = story_of(every(1), tasks)
    for _ in range(3):
        story.failed("a")
        story.wait(0)
    story.started("b")
    story.lost("b")
    assert asked(story) == []


def test_none_is_taken_when_nothing_is_left_to_do() -> None:
    story = story_of(every(1), {"a": ""})
    story.succeeded("a")
    assert story.status() == "completed"
    assert asked(story) == []


def test_none_is_taken_while_the_output_is_made() -> None:
    story = Story(
        workflow_of({"a": "", "b": ""}),
        options=ExecutionOptions(checkpoint=every(2)),
        limits=CoreLimits(inline_output_bytes_max=5),
    )
    story.start()
    story.succeeded("a")
    story.succeeded("b")
    assert story.ordered() == ["compose"]


def test_what_completes_in_an_execution_that_is_bound_to_fail_is_kept_too() -> None:
    story = story_of(every(1), {"a": "", "b": "", "c": ""})
    story.started("a", "b", "c")
    story.failed("a", retriable=False)
    story.succeeded("b")
    assert len(asked(story)) == 1


def test_an_answer_after_the_end_or_to_another_question_tells_nothing() -> None:
    story = story_of(every(1), {"a": "", "b": ""})
    story.succeeded("a")
    taken(story, seq=99)
    assert story.told(story.last) == []
    taken(story)
    taken(story)
    assert story.told(story.last) == [], "told before"
    story.succeeded("b")
    assert story.status() == "completed"
    taken(story)
    assert story.told(story.last) == []


# By time -----------------------------------------------------------------------------------------


def timed(every_ms: int, **more: Any) -> Story:
    return story_of(CheckpointPolicy(every_ms=every_ms, **more))


def test_one_is_due_after_so_long_if_something_has_completed() -> None:
    story = timed(1_000)
    assert story.ordered() == [f"start t{i} 1" for i in range(9)], "nothing to wait for yet"
    story.at_ms += 400
    story.succeeded("t0")
    assert story.ordered() == ["timer +600"]
    story.wait(600)
    assert asked(story) == ["checkpoint 3 keep 5"]


def test_time_without_completions_asks_for_none_and_the_first_one_does_at_once() -> None:
    story = timed(1_000)
    story.wait(5_000)
    assert story.ordered() == []
    story.succeeded("t0")
    assert asked(story) == ["checkpoint 3 keep 5"]
    taken(story)
    story.succeeded("t1")
    assert story.ordered() == ["timer +1000"], "from the last one on"


def test_both_together_whichever_comes_first() -> None:
    story = timed(1_000, every_completions=2)
    story.succeeded("t0")
    story.succeeded("t1")
    assert len(asked(story)) == 1
    taken(story)
    story.at_ms += 999
    story.succeeded("t2")
    story.wait(1)
    assert len(asked(story)) == 1
    taken(story)
    story.wait(10_000)
    assert asked(story) == []


def test_a_clock_that_was_behind_delays_but_does_not_lose_it() -> None:
    story = timed(1_000)
    story.succeeded("t0")
    story.take(
        st.TimerFired(story.at_ms + 1_000),
        st.AttemptStarted(1, 1, story.at_ms),
    )
    assert asked(story) == []
    assert story.ordered() == ["timer +1000"]
    story.wait(1_000)
    assert len(asked(story)) == 1


# Another owner -----------------------------------------------------------------------------------


def test_a_decision_whose_outcome_is_unknown_is_carried_out_again() -> None:
    story = story_of(every(1, keep=2))
    story.succeeded("t0")
    story.restart(*list(WIDE)[1:])
    assert story.ordered() == ["checkpoint 3 keep 2"]
    taken(story)
    assert story.told(story.last) == ["checkpoint_created"]


def test_one_that_is_there_is_not_taken_again() -> None:
    story = story_of(every(1))
    story.succeeded("t0")
    taken(story)
    story.restart(*list(WIDE)[1:])
    assert asked(story) == []


def test_the_time_goes_on_under_another_owner() -> None:
    story = timed(1_000)
    story.succeeded("t0")
    story.at_ms += 300
    story.restart(*list(WIDE)[1:])
    assert story.ordered() == ["timer +700"]
    story.at_ms += 900
    story.restart(*list(WIDE)[1:])
    assert asked(story) == ["checkpoint 11 keep 5"], "behind the starts that were not told"


def test_a_clock_that_was_put_back_delays_it_by_no_more_than_its_interval() -> None:
    story = timed(1_000)
    story.succeeded("t0")
    story.at_ms -= 900_000
    story.restart(*list(WIDE)[1:])
    assert story.ordered() == ["timer +1000"]


def test_after_the_end_nothing_is_carried_out_again() -> None:
    story = story_of(every(1), {"a": "", "b": ""})
    story.succeeded("a")
    story.succeeded("b")
    story.restart()
    assert story.ordered() == []


def test_whoever_only_ends_it_takes_no_checkpoint_of_the_end() -> None:
    """What ran when it was cancelled is gone; a checkpoint would restore an ended execution."""
    story = story_of(every(1), {"a": "", "b": ""})
    story.succeeded("a")
    story.take(st.CancelRequested(story.at_ms))
    story.restart()
    assert story.status() == "cancelled"
    assert asked(story) == []


# Policies ----------------------------------------------------------------------------------------


def test_the_workflow_has_a_policy_and_the_options_another() -> None:
    fields = {"checkpoint": {"every_completions": 2, "keep": 1}}
    story = Story(workflow_of(WIDE, **fields))
    story.start()
    story.succeeded("t0")
    story.succeeded("t1")
    assert asked(story) == ["checkpoint 5 keep 1"]
    overruled = story_of(every(1), **fields)
    overruled.succeeded("t0")
    assert asked(overruled) == ["checkpoint 3 keep 5"]


def test_without_a_policy_nothing_is_kept_of_it() -> None:
    story = Story(workflow_of(WIDE))
    story.start()
    story.succeeded("t0")
    assert story.execution.head.automatic is None


def test_completions_are_counted_from_where_a_restored_execution_begins() -> None:
    workflow = workflow_of(WIDE)
    head = new_head(workflow, ExecutionOptions(checkpoint=every(2)))
    head.completed_tasks, head.checkpoint_id = 3, "cp-1"
    rows = {
        index: TaskRow(
            TaskStatus.COMPLETED,
            completed_ms=START_MS,
            output=OutputReference("another", f"{index}:1", 4),
        )
        for index in range(3)
    }
    execution = Execution(workflow=workflow, head=head, rows=rows)
    execution.handle(st.StartRequested(START_MS))
    assert execution.head.automatic == AutomaticCheckpoint(0, 3, START_MS, taken=True)
    done = st.Output(4, b"null")
    one = execution.handle(st.AttemptSucceeded(3, 1, START_MS, done))
    assert not any(isinstance(command, TakeCheckpoint) for command in one.commands)
    two = execution.handle(st.AttemptSucceeded(4, 1, START_MS, done))
    assert TakeCheckpoint(5, 5) in two.commands
    assert violations(execution) == []


def found(value: Any) -> dict[str, str]:
    problems: dict[str, str] = {}
    parse_checkpoint_policy(
        value, "checkpoint", kept_max=10, most_s=60, report=problems.__setitem__
    )
    return problems


def test_policies_are_read() -> None:
    def read(value: Any) -> CheckpointPolicy | None:
        return parse_checkpoint_policy(value, "c", kept_max=10, most_s=60, report=pytest.fail)

    assert read(None) is None
    assert read({"every_completions": 3}) == CheckpointPolicy(every_completions=3)
    assert read({"every_s": 0.5, "keep": 10}) == CheckpointPolicy(every_ms=500, keep=10)


@pytest.mark.parametrize(
    ("value", "field", "says"),
    [
        (True, "checkpoint", "like"),
        ([], "checkpoint", "like"),
        ({}, "checkpoint", "every_completions, every_s or both"),
        ({"keep": 2}, "checkpoint", "every_completions, every_s or both"),
        ({"every_completions": 0}, "checkpoint.every_completions", "1 or more, not 0"),
        ({"every_completions": 1.5}, "checkpoint.every_completions", "whole number"),
        ({"every_completions": True}, "checkpoint.every_completions", "whole number"),
        ({"every_s": 0}, "checkpoint.every_s", "above 0 and at most 60"),
        ({"every_s": "1"}, "checkpoint.every_s", "number of seconds"),
        ({"every_s": 1, "keep": 0}, "checkpoint.keep", "from 1 to 10, not 0"),
        ({"every_s": 1, "keep": 11}, "checkpoint.keep", "from 1 to 10, not 11"),
        ({"every_s": 1, "every": 2}, "checkpoint.every", "every_completions, every_s, keep"),
    ],
)
def test_policies_that_are_none(value: Any, field: str, says: str) -> None:
    problems = found(value)
    assert list(problems) == [field]
    assert says in problems[field]
