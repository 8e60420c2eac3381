"""What an execution decides when another owner takes it over, and how its output is made."""

from __future__ import annotations

from typing import Any

import pytest

from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.execution import CoreLimits
from harmonia_actors.core.options import ExecutionOptions
from harmonia_actors.core.outputs import merge_sinks
from harmonia_actors.core.state import timeout_error
from tests.support.executions import EXECUTION_ID, Story, failed, output, workflow_of

# Another owner -----------------------------------------------------------------------------------


def test_an_adopted_attempt_goes_on_under_its_number() -> None:
    story = Story(workflow_of({"a": "", "b": ["a"]}))
    story.start()
    story.started("a")
    story.restart("a")
    assert story.ordered() == []
    story.succeeded("a")
    assert story.ordered() == ["start b 1"]


def test_an_attempt_that_nobody_has_is_lost_and_the_next_number_runs() -> None:
    story = Story(workflow_of({"a": ""}))
    story.start()
    story.started("a")
    story.restart()
    assert story.ordered() == ["start a 2"]
    assert story.told(story.last) == ["task_failed a"]
    assert story.execution.rows[0].losses == 1


def test_what_was_handed_out_but_not_seen_to_start_gets_a_new_number() -> None:
    """It may have run all the same: no number is given out twice."""
    story = Story(workflow_of({"a": ""}))
    story.start()
    story.restart()
    assert story.ordered() == ["start a 2"]
    assert list(story.last.changed) == [0]
    assert (story.execution.rows[0].losses, story.told(story.last)) == (0, [])


def test_a_retry_that_was_handed_out_gets_a_new_number_too() -> None:
    story = Story(workflow_of({"a": {"retry_policy": {"max_retries": 1, "retry_interval": 1}}}))
    story.start()
    story.failed("a")
    story.wait(1_000)
    assert story.ordered() == ["start a 2"]
    story.restart()
    assert story.ordered() == ["start a 3"]
    assert story.statuses() == {"a": "retrying"}


def test_a_retry_that_still_waits_keeps_its_time_and_number() -> None:
    story = Story(workflow_of({"a": {"retry_policy": {"max_retries": 1, "retry_interval": 9}}}))
    story.start()
    story.failed("a")
    story.at_ms += 4_000
    story.restart()
    assert story.ordered() == ["timer +5000"]
    story.wait(5_000)
    assert story.ordered() == ["start a 2"]


def test_what_nobody_ever_drove_starts_with_its_first_number() -> None:
    """A restored execution is stored as running before anything of it was handed out."""
    story = Story(workflow_of({"a": "", "b": ["a"]}))
    story.start()
    story.restart(untouched=True)
    assert story.ordered() == ["start a 1"]
    assert story.last.head_changed, "the next owner has to see that this one was there"


def test_an_adopted_attempt_whose_start_was_not_seen_has_begun() -> None:
    story = Story(workflow_of({"a": {"timeout": 5}}))
    story.start()
    story.restart("a")
    assert story.told(story.last) == ["task_started a"]
    assert story.ordered() == ["timer +5000"]
    story.wait(5_000)
    assert story.ordered() == ["stop a 1 timeout"]


def test_a_timeout_goes_on_from_the_first_start() -> None:
    story = Story(workflow_of({"a": {"timeout": 5}}))
    story.start()
    story.started("a")
    story.at_ms += 3_000
    story.restart("a")
    assert story.ordered() == ["timer +2000"]


def test_a_stop_for_a_timeout_is_given_again() -> None:
    story = Story(workflow_of({"a": {"timeout": 5}}))
    story.start()
    story.started("a")
    story.wait(5_000)
    story.restart("a")
    assert story.ordered() == ["timer +0"]
    story.wait(0)
    assert story.ordered() == ["stop a 1 timeout"]


def test_a_stop_for_a_timeout_that_took_effect_under_the_former_owner_is_one() -> None:
    story = Story(workflow_of({"a": {"timeout": 5}}))
    story.start()
    story.started("a")
    story.wait(5_000)
    story.restart("a")
    story.stopped("a")
    assert story.statuses()["a"] == "failed"
    failure = story.execution.rows[0].failure
    assert failure is not None
    assert failure.code == "TIMEOUT"


def test_so_is_one_that_was_told_by_a_clock_that_is_behind() -> None:
    story = Story(workflow_of({"a": {"timeout": 5}}))
    story.start()
    story.started("a")
    story.wait(4_900)
    story.restart("a")
    story.stopped("a")
    assert story.statuses()["a"] == "failed"


def test_a_stop_that_nothing_explains_is_a_loss() -> None:
    story = Story(workflow_of({"a": ""}))
    story.start()
    story.started("a")
    story.restart("a")
    story.stopped("a")
    assert story.statuses()["a"] == "pending"
    assert story.ordered() == ["start a 2"]


def test_what_was_stopped_for_a_cancel_is_cancelled_whatever_its_timeout() -> None:
    story = Story(workflow_of({"a": {"timeout": 5}}))
    story.start()
    story.started("a")
    story.cancel()
    story.restart("a")
    story.stopped("a")
    assert (story.statuses()["a"], story.status()) == ("cancelled", "cancelled")


def test_a_stop_at_the_deadline_that_took_effect_under_the_former_owner_is_no_loss() -> None:
    story = Story(workflow_of({"a": ""}), options=ExecutionOptions(timeout_ms=9_000))
    story.start()
    story.started("a")
    story.wait(9_000)
    story.restart("a")
    story.stopped("a")
    assert (story.statuses()["a"], story.status()) == ("cancelled", "failed")


def test_a_cancel_goes_on() -> None:
    story = Story(workflow_of({"a": "", "b": "", "c": ["a"]}))
    story.start()
    story.started("a", "b")
    story.cancel()
    story.restart("a")
    assert story.ordered() == ["stop a 1 cancelled"]
    assert story.statuses()["b"] == "cancelled"
    story.stopped("a")
    assert story.status() == "cancelled"


def test_the_deadline_is_kept() -> None:
    story = Story(workflow_of({"a": ""}), options=ExecutionOptions(timeout_ms=9_000))
    story.start()
    story.started("a")
    story.at_ms += 4_000
    story.restart("a")
    assert story.ordered() == ["timer +5000"]


#: As far as a clock can be put back here without times before 1970.
BACK_MS = 400_000


def test_a_clock_that_was_put_back_makes_no_retry_wait_longer_than_from_now() -> None:
    policy = {"max_retries": 2, "retry_interval": 9, "backoff": 2}
    story = Story(workflow_of({"a": {"retry_policy": policy}}))
    story.start()
    story.failed("a")
    story.at_ms -= BACK_MS
    story.restart()
    assert story.ordered() == ["timer +9000"]
    assert list(story.last.changed) == [0], "what is shown is what is waited for"
    story.wait(9_000)
    story.failed("a")
    story.at_ms -= BACK_MS
    story.restart()
    assert story.ordered() == ["timer +18000"]


def test_a_clock_that_was_put_back_makes_no_deadline_or_timeout_come_late() -> None:
    story = Story(workflow_of({"a": {"timeout": 5}}), options=ExecutionOptions(timeout_ms=9_000))
    story.start()
    story.started("a")
    story.at_ms -= BACK_MS
    story.restart("a")
    assert story.ordered() == ["timer +5000"]
    story.wait(5_000)
    assert story.ordered() == ["stop a 1 timeout", "timer +4000"]
    story.wait(4_000)
    assert story.execution.head.error == timeout_error(9_000)


@pytest.mark.parametrize("off_ms", [-BACK_MS, BACK_MS])
def test_the_timeout_of_a_restored_execution_counts_from_when_it_is_driven(off_ms: int) -> None:
    """Whoever stored it as one that runs has another clock."""
    story = Story(workflow_of({"a": ""}), options=ExecutionOptions(timeout_ms=9_000))
    story.start()
    story.at_ms += off_ms
    story.restart(untouched=True)
    assert "timer +9000" in story.ordered()


def test_after_a_failure_only_what_runs_goes_on() -> None:
    story = Story(workflow_of({"bad": "", "good": "", "queued": ""}))
    story.start()
    story.started("bad", "good")
    story.failed("bad")
    story.restart("good")
    assert story.ordered() == []
    assert story.statuses()["queued"] == "skipped"
    story.succeeded("good")
    assert story.status() == "failed"


def test_one_loss_too_many_does_not_end_attempts_that_were_adopted() -> None:
    story = Story(
        workflow_of({"lost": "", "new": "", "kept": ""}), limits=CoreLimits(lost_attempts_max=0)
    )
    story.start()
    story.started("lost", "kept")
    story.restart("kept")
    assert story.statuses() == {"lost": "failed", "new": "skipped", "kept": "running"}
    assert story.ordered() == []
    story.succeeded("kept")
    assert story.status() == "failed"


def test_one_loss_too_many_withdraws_what_was_about_to_start() -> None:
    story = Story(workflow_of({"new": "", "lost": ""}), limits=CoreLimits(lost_attempts_max=0))
    story.start()
    story.started("lost")
    story.restart()
    assert story.ordered() == []
    assert story.statuses() == {"new": "skipped", "lost": "failed"}
    assert story.status() == "failed"


def test_a_pending_execution_has_nothing_to_resume() -> None:
    story = Story(workflow_of({"a": ""}))
    story.restart()
    assert story.ordered() == []
    story.start()
    assert story.ordered() == ["start a 1"]


def test_an_ended_execution_has_nothing_to_resume() -> None:
    story = Story(workflow_of({"a": ""}))
    story.start()
    story.succeeded("a")
    story.restart()
    assert story.last.is_empty


# The node of its files ----------------------------------------------------------------------------


def test_the_node_of_the_files_is_stored_and_never_another_one() -> None:
    story = Story(workflow_of({"a": ""}))
    story.start()
    story.take(st.NodeChosen(story.at_ms, "a"))
    assert (story.last.head_changed, story.last.commands, story.last.events) == (True, [], [])
    story.take(st.NodeChosen(story.at_ms, "b"))
    assert story.last.is_empty
    story.restart("a")
    assert story.execution.head.labels == {"node": "a"}


def test_no_node_is_chosen_for_what_has_ended() -> None:
    story = Story(workflow_of({"a": ""}))
    story.start()
    story.succeeded("a")
    story.take(st.NodeChosen(story.at_ms, "a"))
    assert story.last.is_empty
    assert story.execution.head.labels == {}


# The output --------------------------------------------------------------------------------------


def finished(story: Story) -> Any:
    assert story.status() == "completed"
    return story.bodies()[-1]["data"]["output"]


def test_sinks_without_common_keys_are_merged() -> None:
    story = Story(workflow_of({"a": "", "b": "", "c": ""}))
    story.start()
    story.succeeded("c", {"z": 3})
    story.succeeded("a", {"x": 1})
    story.succeeded("b", {"y": 2})
    assert finished(story) == {"x": 1, "y": 2, "z": 3}


@pytest.mark.parametrize(
    ("first", "second"), [({"x": 1}, {"x": 2}), ({"x": 1}, [2]), ("text", None), (1, {"y": 2})]
)
def test_sinks_that_do_not_merge_stand_under_their_names(first: Any, second: Any) -> None:
    assert merge_sinks({"a": first, "b": second}) == {"a": first, "b": second}
    story = Story(workflow_of({"a": "", "b": ""}))
    story.start()
    story.take(st.AttemptSucceeded(1, 1, story.at_ms, output(second)))
    story.take(st.AttemptSucceeded(0, 1, story.at_ms, output(first)))
    assert finished(story) == {"a": first, "b": second}


def test_a_single_sink_is_the_output_if_it_is_an_object() -> None:
    assert merge_sinks({"a": {"x": 1}}) == {"x": 1}
    assert merge_sinks({"a": [1]}) == {"a": [1]}


def test_only_sinks_count() -> None:
    story = Story(workflow_of({"a": "", "b": ["a"]}))
    story.start()
    story.succeeded("a", {"a": 1})
    story.succeeded("b", {"b": 2})
    assert finished(story) == {"b": 2}


@pytest.mark.parametrize("case", ["mapping", "blob", "large", "restarted"])
def test_what_cannot_be_composed_here_is_asked_for(case: str) -> None:
    more = {"output": {"total": "${tasks.a.output.x}"}} if case == "mapping" else {}
    story = Story(
        workflow_of({"a": "", "b": ""}, **more), limits=CoreLimits(inline_output_bytes_max=100)
    )
    story.start()
    result = output({"x": "y" * (200 if case == "large" else 2)})
    if case == "blob":
        result = st.Output(900_000, None, f"file:///blobs/{EXECUTION_ID}/0-1.json", "y…")
    story.take(st.AttemptSucceeded(0, 1, story.at_ms, result))
    if case == "restarted":
        story.started("b")
        story.restart("b")
    story.succeeded("b", {"z": 1})
    assert story.ordered() == ["compose"]
    assert story.status() == "running"
    story.take(st.OutputComposed(story.at_ms, output({"made": True})))
    assert finished(story) == {"made": True}
    assert story.last.outputs == {"execution": jsontext.encode({"made": True})}


def test_an_output_that_cannot_be_made_fails_the_execution() -> None:
    story = Story(workflow_of({"a": ""}, output={"x": "${tasks.a.output.nope}"}))
    story.start()
    story.succeeded("a")
    story.take(st.OutputRefused(story.at_ms, failed("nothing at 'nope'")))
    assert story.status() == "failed"
    assert story.execution.head.error is not None
    assert story.execution.head.error["code"] == "execution_error"


def test_composing_is_asked_for_again_after_a_restart() -> None:
    story = Story(workflow_of({"a": ""}, output={"x": "${tasks.a.output.of}"}))
    story.start()
    story.succeeded("a")
    story.restart()
    assert story.ordered() == ["compose"]


def test_a_cancel_while_composing_wins() -> None:
    story = Story(workflow_of({"a": ""}, output={"x": "${tasks.a.output.of}"}))
    story.start()
    story.succeeded("a")
    story.cancel()
    assert story.status() == "cancelled"
    assert story.take(st.OutputComposed(story.at_ms, output(1))).is_empty


def test_a_last_loss_before_the_start_shows_no_start() -> None:
    """An attempt failed, and those after it are lost before they begin: state and log agree."""
    tasks = {"a": {"retry_policy": {"max_retries": 1, "retry_interval": 1}}}
    story = Story(workflow_of(tasks), limits=CoreLimits(lost_attempts_max=1))
    story.start()
    story.started("a")
    story.failed("a")
    story.wait(1_000)
    story.lost("a")
    story.lost("a")
    assert story.status() == "failed"
    assert story.execution.rows[0].started_ms is None
