"""Tasks as a status shows them: what is said of attempts that are over, and of those to come."""

from __future__ import annotations

from harmonia_actors.core.records import TaskRow
from harmonia_actors.core.stimuli import Failure
from harmonia_actors.runtime.service.views import task_view
from tests.support.executions import Story, workflow_of


def test_a_task_whose_attempt_was_lost_is_pending_as_if_it_had_never_started() -> None:
    story = Story(workflow_of({"a": ""}))
    story.start()
    assert task_view(story.execution.rows[0])["attempt"] == 0
    story.started("a")
    story.lost("a")
    shown = task_view(story.execution.rows[0])
    assert shown == {
        "status": "pending",
        "started_at": None,
        "completed_at": None,
        "started_ms": None,
        "completed_ms": None,
        "attempt": 2,
        "progress": None,
        "error": None,
    }


def test_a_retrying_task_says_when_it_last_began_why_it_failed_and_when_it_goes_on() -> None:
    story = Story(workflow_of({"a": {"retry_policy": {"max_retries": 1, "retry_interval": 9}}}))
    story.start()
    story.started("a")
    story.failed("a")
    shown = task_view(story.execution.rows[0])
    assert (shown["status"], shown["attempt"]) == ("retrying", 2)
    assert (shown["started_ms"], shown["retry_at"]) == (1_000_000, "1970-01-01T00:16:49Z")
    assert (shown["progress"], shown["error"]["message"]) == (None, "a broke")


def test_what_never_ran_has_no_attempt() -> None:
    assert task_view(None)["attempt"] == 0
    assert task_view(TaskRow(failure=Failure("no", "NO", {})))["attempt"] == 0
