"""What an execution decides, told as stories: what happened, what was ordered, what was told."""

from __future__ import annotations

import pytest

from harmonia_actors.core import stimuli as st
from harmonia_actors.core.execution import CoreLimits
from harmonia_actors.core.options import ExecutionOptions
from harmonia_actors.core.retry import RetryPolicy
from tests.support.executions import Story, output, workflow_of

DIAMOND = {"a": "", "b": ["a"], "c": ["a"], "d": ["b", "c"]}


def one(**fields: object) -> Story:
    story = Story(workflow_of({"a": fields}))
    story.start()
    return story


# The straight way --------------------------------------------------------------------------------


def test_a_diamond_runs_in_order_and_completes() -> None:
    story = Story(workflow_of(DIAMOND))
    story.start()
    assert story.ordered() == ["start a 1"]
    story.started("a")
    story.succeeded("a")
    assert story.ordered() == ["start b 1", "start c 1"]
    story.started("b", "c")
    story.succeeded("c")
    assert story.ordered() == []
    story.succeeded("b")
    assert story.ordered() == ["start d 1"]
    story.started("d")
    story.succeeded("d", {"answer": 42})
    assert story.status() == "completed"
    assert story.told() == [
        "execution_started",
        "task_started a",
        "task_completed a",
        "task_started b",
        "task_started c",
        "task_completed c",
        "task_completed b",
        "task_started d",
        "task_completed d",
        "execution_completed",
    ]
    assert story.bodies()[-1]["data"]["output"] == {"answer": 42}


def test_nothing_is_started_before_it_is_asked_for() -> None:
    story = Story(workflow_of(DIAMOND))
    assert story.take(st.TimerFired(story.at_ms)).is_empty
    assert story.status() == "pending"


def test_a_second_start_changes_nothing() -> None:
    story = one()
    assert story.start().is_empty


def test_an_outcome_without_a_start_tells_both() -> None:
    story = one()
    story.succeeded("a")
    assert story.told()[1:3] == ["task_started a", "task_completed a"]


def test_a_duplicate_outcome_changes_nothing_and_is_counted() -> None:
    story = Story(workflow_of(DIAMOND))
    story.start()
    story.succeeded("a", 1)
    assert story.take(st.AttemptSucceeded(0, 1, story.at_ms, output(2))).is_empty
    assert story.take(st.AttemptFailed(0, 1, story.at_ms, st.Failure("x", "X", {}))).is_empty
    assert story.execution.stale_reports == 2


def test_a_report_of_an_attempt_that_was_never_handed_out_changes_nothing() -> None:
    story = Story(workflow_of(DIAMOND))
    story.start()
    forged: list[st.Stimulus] = [
        st.AttemptStarted(3, 1, story.at_ms),
        st.AttemptSucceeded(3, 1, story.at_ms, output("forged")),
        st.AttemptLost(2, 1, story.at_ms, "forged"),
        st.AttemptFailed(1, 1, story.at_ms, st.Failure("forged", "F", {})),
    ]
    assert story.take(*forged).is_empty
    assert story.execution.stale_reports == 4
    assert story.statuses() == dict.fromkeys("abcd", "pending")


def test_progress_is_told_and_kept_while_the_task_runs() -> None:
    story = one()
    story.take(st.ProgressReported(0, 1, story.at_ms, 0.1, "too early"))
    assert story.told(story.last) == []
    story.started("a")
    story.take(st.ProgressReported(0, 1, story.at_ms, 0.5, "half way"))
    assert story.bodies()[-1]["data"] == {
        "task_name": "a",
        "progress": 0.5,
        "message": "half way",
    }
    assert (story.execution.rows[0].progress, story.execution.rows[0].message) == (0.5, "half way")


def test_progress_that_says_nothing_new_is_not_told_again() -> None:
    story = one()
    story.started("a")
    for _ in range(2):
        story.take(st.ProgressReported(0, 1, story.at_ms, 0.5, "half way"))
    assert story.last.is_empty
    assert story.told().count("task_progress a") == 1


def test_progress_stops_being_told_beyond_its_limit_but_nothing_else_does() -> None:
    story = Story(workflow_of({"a": ""}), limits=CoreLimits(progress_events_max=3))
    story.start()
    story.started("a")
    for step in range(5):
        story.take(st.ProgressReported(0, 1, story.at_ms, step / 10, ""))
    assert story.told().count("task_progress a") == 1
    assert story.execution.rows[0].progress == 0.4
    story.succeeded("a")
    assert story.status() == "completed"


def test_waiting_for_resources_is_kept_until_it_starts() -> None:
    story = one()
    story.take(st.AttemptWaiting(0, 1, story.at_ms, "no GPU is free"))
    assert story.execution.rows[0].waiting == "no GPU is free"
    story.started("a")
    assert story.execution.rows[0].waiting == ""
    story.take(st.AttemptWaiting(0, 1, story.at_ms, "too late"))
    assert story.execution.rows[0].waiting == ""


# Failure -----------------------------------------------------------------------------------------


def test_running_siblings_end_and_the_rest_is_skipped() -> None:
    story = Story(workflow_of({"bad": "", "good": "", "queued": "", "after": ["good"]}))
    story.start()
    story.started("bad", "good")
    story.failed("bad")
    assert story.statuses()["after"] == "skipped"
    assert story.ordered() == ["stop queued 1 taken_back"]
    assert story.status() == "running"
    story.stopped("queued")
    assert story.statuses()["queued"] == "skipped"
    story.succeeded("good")
    assert story.statuses() == {
        "bad": "failed",
        "good": "completed",
        "queued": "skipped",
        "after": "skipped",
    }
    assert story.status() == "failed"
    assert story.execution.head.error == {
        "code": "component_error",
        "message": "task 'bad' failed: bad broke",
        "details": {"code": "BROKE"},
        "task": "bad",
    }
    assert story.told()[-1] == "execution_failed"


def test_a_taken_back_task_that_started_anyway_ends_by_itself() -> None:
    story = Story(workflow_of({"bad": "", "late": ""}))
    story.start()
    story.started("bad")
    story.failed("bad")
    story.started("late")
    story.succeeded("late")
    assert story.statuses()["late"] == "completed"
    assert story.status() == "failed"


def test_a_taken_back_task_that_started_anyway_keeps_its_timeout() -> None:
    story = Story(workflow_of({"bad": "", "late": {"timeout": 5}}))
    story.start()
    story.started("bad")
    story.failed("bad")
    story.started("late")
    story.wait(5_000)
    assert story.ordered() == ["stop late 1 timeout"]
    story.stopped("late")
    assert story.statuses()["late"] == "failed"
    assert story.status() == "failed"


def test_what_one_batch_both_starts_and_takes_back_is_never_started() -> None:
    """The commands of a decision are performed together: a stop must not overtake its start."""
    story = Story(workflow_of({"a": "", "bad": "", "next": ["a"]}))
    story.start()
    story.started("a", "bad")
    story.take(
        st.AttemptSucceeded(0, 1, story.at_ms, output(1)),
        st.AttemptFailed(1, 1, story.at_ms, st.Failure("x", "X", {})),
    )
    assert story.ordered() == []
    assert story.statuses()["next"] == "skipped"
    assert story.status() == "failed"


def test_what_one_batch_both_starts_and_cancels_is_never_started() -> None:
    story = Story(workflow_of({"a": "", "next": ["a"]}))
    story.start()
    story.started("a")
    story.take(st.AttemptSucceeded(0, 1, story.at_ms, output(1)), st.CancelRequested(story.at_ms))
    assert story.ordered() == []
    assert story.statuses() == {"a": "completed", "next": "cancelled"}
    assert story.status() == "cancelled"


def test_the_first_failure_is_the_one_that_is_named() -> None:
    story = Story(workflow_of({"a": "", "b": ""}))
    story.start()
    story.started("a", "b")
    story.failed("b")
    story.failed("a")
    assert story.execution.head.error is not None
    assert story.execution.head.error["task"] == "b"


def test_an_engine_failure_is_an_execution_error() -> None:
    story = one()
    failure = st.Failure("no value", "MISSING_VALUE", {}, "engine", retriable=False)
    story.take(st.AttemptFailed(0, 1, story.at_ms, failure))
    assert story.execution.head.error is not None
    assert story.execution.head.error["code"] == "execution_error"
    assert story.told() == ["execution_started", "task_failed a", "execution_failed"]


# Retries -----------------------------------------------------------------------------------------


def test_a_failed_attempt_is_followed_by_another_after_its_interval() -> None:
    story = one(retry_policy={"max_retries": 2, "retry_interval": 3, "backoff": 2})
    story.started("a")
    story.failed("a")
    assert story.statuses() == {"a": "retrying"}
    assert story.ordered() == ["timer +3000"]
    story.wait(2_999)
    assert story.ordered() == []
    story.wait(1)
    assert story.ordered() == ["start a 2"]
    story.failed("a")
    assert story.ordered() == ["timer +6000"]
    story.wait(6_000)
    assert story.ordered() == ["start a 3"]
    story.failed("a")
    assert story.statuses() == {"a": "failed"}
    told = [body["data"] for body in story.bodies() if body["type"] == "task_failed"]
    seen = [(d["attempt"], d["retry_count"], d["max_retries"], d["will_retry"]) for d in told]
    assert seen == [(1, 0, 2, True), (2, 1, 2, True), (3, 2, 2, False)]


def test_what_is_told_of_a_former_attempt_changes_nothing() -> None:
    """It may come late, from a process that was given up: only what runs now counts."""
    story = one(retry_policy={"max_retries": 1, "retry_interval": 3})
    story.started("a")
    story.failed("a")
    story.wait(3_000)
    story.started("a")
    late: list[st.Stimulus] = [
        st.AttemptSucceeded(0, 1, story.at_ms, output("late")),
        st.AttemptFailed(0, 1, story.at_ms, st.Failure("late", "L", {})),
        st.AttemptLost(0, 1, story.at_ms, "late"),
        st.AttemptStopped(0, 1, story.at_ms),
        st.ProgressReported(0, 1, story.at_ms, 0.5, "late"),
    ]
    for report in late:
        assert story.take(report).is_empty
    assert story.execution.stale_reports == len(late)
    assert story.statuses() == {"a": "running"}
    story.succeeded("a")
    assert story.statuses() == {"a": "completed"}


def test_what_cannot_be_retried_is_not() -> None:
    story = one(retry_policy={"max_retries": 5})
    story.failed("a", retriable=False)
    assert story.statuses() == {"a": "failed"}


@pytest.mark.parametrize(
    ("of_task", "of_execution", "of_workflow", "expected"),
    [(1, 2, 3, 1), (None, 2, 3, 2), (None, None, 3, 3), (None, None, None, 0), (0, 2, 3, 0)],
)
def test_the_nearest_retry_policy_counts(
    of_task: int | None, of_execution: int | None, of_workflow: int | None, expected: int
) -> None:
    task = {} if of_task is None else {"retry_policy": {"max_retries": of_task}}
    more = {} if of_workflow is None else {"retry_policy": {"max_retries": of_workflow}}
    retry = None if of_execution is None else RetryPolicy(max_retries=of_execution)
    story = Story(workflow_of({"a": task}, **more), options=ExecutionOptions(retry=retry))
    assert story.execution.retry_policy(0).max_retries == expected


def test_that_a_retry_is_handed_out_is_written_before_it_is_done() -> None:
    """Otherwise a successor could not tell, and might use the same number for another run."""
    story = one(retry_policy={"max_retries": 1, "retry_interval": 1})
    story.failed("a")
    decision = story.wait(1_000)
    assert story.ordered() == ["start a 2"]
    assert list(decision.changed) == [0]
    assert story.execution.rows[0].retry_at_ms is None


# Timeouts ----------------------------------------------------------------------------------------


def test_a_task_that_runs_too_long_is_stopped_and_tried_again() -> None:
    story = one(timeout=2, retry_policy={"max_retries": 1, "retry_interval": 1})
    story.wait(10_000)
    assert story.ordered() == []
    story.started("a")
    assert story.ordered() == ["timer +2000"]
    story.wait(2_000)
    assert story.ordered() == ["stop a 1 timeout"]
    story.wait(1_000)
    assert story.ordered() == []
    story.stopped("a")
    assert story.statuses() == {"a": "retrying"}
    assert story.bodies()[-1]["data"]["error_details"] == {"code": "TIMEOUT", "timeout_seconds": 2}
    story.wait(1_000)
    story.started("a")
    story.succeeded("a")
    assert story.status() == "completed"


def test_a_timeout_of_a_former_attempt_does_not_stop_the_next_one() -> None:
    story = one(timeout=2, retry_policy={"max_retries": 1, "retry_interval": 0})
    story.started("a")
    story.failed("a")
    story.wait(0)
    story.at_ms += 1_999
    story.started("a")
    story.wait(1)
    assert story.ordered() == ["timer +1999"]
    story.wait(1_999)
    assert story.ordered() == ["stop a 2 timeout"]


def test_an_outcome_that_is_faster_than_the_stop_counts() -> None:
    story = one(timeout=2)
    story.started("a")
    story.wait(2_000)
    story.succeeded("a")
    assert story.status() == "completed"


def test_the_deadline_of_an_execution_stops_all_and_says_so() -> None:
    options = ExecutionOptions(timeout_ms=1_000)
    story = Story(workflow_of({"a": "", "b": "", "c": ["a"]}), options=options)
    story.start()
    assert story.ordered() == ["start a 1", "start b 1", "timer +1000"]
    story.started("a")
    story.wait(1_000)
    assert story.ordered() == ["stop a 1 cancelled", "stop b 1 cancelled"]
    assert story.statuses()["c"] == "skipped"
    story.stopped("b")
    story.stopped("a")
    assert story.statuses() == {"a": "cancelled", "b": "skipped", "c": "skipped"}
    assert story.status() == "failed"
    error = story.bodies()[-1]["data"]["error"]
    assert (error["code"], error["details"]) == ("timeout", {"timeout_seconds": 1})


def test_the_options_timeout_comes_before_the_workflows() -> None:
    workflow = workflow_of({"a": ""}, timeout=9)
    by_workflow = Story(workflow)
    by_workflow.start()
    assert by_workflow.ordered()[-1] == "timer +9000"
    by_options = Story(workflow, options=ExecutionOptions(timeout_ms=500))
    by_options.start()
    assert by_options.ordered()[-1] == "timer +500"


# Losses ------------------------------------------------------------------------------------------


def test_lost_attempts_have_a_limit_of_their_own() -> None:
    story = Story(
        workflow_of({"a": {"retry_policy": {"max_retries": 1, "retry_interval": 0}}}),
        limits=CoreLimits(lost_attempts_max=2),
    )
    story.start()
    story.started("a")
    story.lost("a")
    assert story.ordered() == ["start a 2"]
    story.started("a")
    story.failed("a")
    story.wait(0)
    assert story.ordered() == ["start a 3"]
    story.lost("a")
    assert story.ordered() == ["start a 4"]
    story.started("a")
    story.lost("a")
    assert story.statuses() == {"a": "failed"}
    assert story.execution.head.error is not None
    assert story.execution.head.error["details"] == {"code": "WORKER_LOST", "lost_attempts": 3}


def test_the_loss_of_what_never_started_is_not_told_but_counted() -> None:
    story = one()
    story.lost("a")
    assert story.told(story.last) == []
    assert story.execution.rows[0].losses == 1
    assert story.ordered() == ["start a 2"]


def test_after_a_loss_nothing_is_left_of_the_attempt_that_was_lost() -> None:
    story = one()
    story.started("a")
    story.take(st.ProgressReported(0, 1, story.at_ms, 0.9, "nearly there"))
    story.lost("a")
    row = story.execution.rows[0]
    assert (row.status, row.started_ms, row.progress, row.message) == ("pending", None, None, "")
    story.at_ms += 700
    story.started("a")
    assert row.started_ms == story.at_ms


def test_while_a_retry_waits_the_start_of_what_failed_is_still_known() -> None:
    """It says that the task has run at all; how far it came counts for nothing any more."""
    story = Story(workflow_of({"a": {"retry_policy": {"max_retries": 1, "retry_interval": 9}}}))
    story.start()
    story.started("a")
    story.take(st.ProgressReported(0, 1, story.at_ms, 0.9, "nearly there"))
    began_ms = story.at_ms
    story.at_ms += 700
    story.failed("a")
    row = story.execution.rows[0]
    shown = (row.status, row.started_ms, row.progress, row.message)
    assert shown == ("retrying", began_ms, None, "")
    story.wait(9_000)
    story.lost("a")
    assert (row.status, row.started_ms) == ("pending", None)


# Cancel ------------------------------------------------------------------------------------------


def test_a_cancel_reaches_what_runs_and_drops_the_rest() -> None:
    story = Story(workflow_of(DIAMOND))
    story.start()
    story.started("a")
    story.succeeded("a")
    story.started("b")
    story.cancel()
    assert story.status() == "cancelling"
    assert story.ordered() == ["stop b 1 cancelled", "stop c 1 cancelled"]
    assert story.cancel().is_empty
    story.stopped("c")
    story.stopped("b")
    assert story.status() == "cancelled"
    assert story.statuses() == {
        "a": "completed",
        "b": "cancelled",
        "c": "cancelled",
        "d": "cancelled",
    }
    assert story.told()[-1] == "execution_cancelled"


def test_a_cancel_before_the_start_ends_it_at_once() -> None:
    story = Story(workflow_of(DIAMOND))
    story.cancel()
    assert story.status() == "cancelled"
    assert story.start().is_empty


@pytest.mark.parametrize("ending", ["succeeded", "failed", "lost", "stopped"])
def test_while_cancelling_nothing_is_tried_again(ending: str) -> None:
    story = one(retry_policy={"max_retries": 3})
    story.started("a")
    story.cancel()
    getattr(story, ending)("a")
    assert story.status() == "cancelled"
    expected = "completed" if ending == "succeeded" else "cancelled"
    assert story.statuses() == {"a": expected}


def test_after_the_end_nothing_is_taken() -> None:
    story = one()
    story.succeeded("a")
    assert story.cancel().is_empty
    assert story.wait(10_000).is_empty
    assert story.take(st.CheckpointTaken(story.at_ms, "cp-1", "late")).is_empty


def test_a_checkpoint_is_told() -> None:
    story = one()
    story.take(st.CheckpointTaken(story.at_ms, "cp-1", "half way"))
    assert story.bodies()[-1]["data"] == {"checkpoint_id": "cp-1", "name": "half way"}
