"""What is handed out along with a task, and what becomes of it however the stretch goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from harmonia_actors.core import stimuli as st
from harmonia_actors.core.execution import CoreLimits
from harmonia_actors.core.options import CheckpointPolicy, ExecutionOptions
from harmonia_actors.core.statuses import IllegalTransition
from tests.support.executions import Story, failed, output, workflow_of

CHAIN = {"a": "", "b": ["a"], "c": ["b"], "d": ["c"]}


def story_of(tasks: dict[str, Any], *, joined: Sequence[str] = "bcd", **limits: Any) -> Story:
    story = Story(workflow_of(tasks), joined=joined, limits=CoreLimits(**limits))
    story.start()
    return story


def done(task: int, attempt: int = 1) -> list[st.AttemptStimulus]:
    value = output({"of": task})
    return [
        st.AttemptStarted(task, attempt, 1_000_001),
        st.AttemptSucceeded(task, attempt, 1_000_002, value),
    ]


def returned(task: int, attempt: int = 1) -> st.AttemptReturned:
    return st.AttemptReturned(task, attempt, 1_000_003)


def lost(task: int, attempt: int = 1) -> st.AttemptLost:
    return st.AttemptLost(task, attempt, 1_000_003, "its node died")


# What is handed out ------------------------------------------------------------------------------


def test_a_chain_is_handed_out_at_once_and_needs_no_further_order() -> None:
    story = story_of(CHAIN)
    assert story.ordered() == ["start a 1, b 1, c 1, d 1"]
    for task in range(4):
        story.take(*done(task))
        assert not [each for each in story.ordered() if each.startswith("start")]
    assert story.status() == "completed"


def test_only_joined_tasks_follow() -> None:
    story = story_of(CHAIN, joined="bd")
    assert story.ordered() == ["start a 1, b 1"]
    story.take(*done(0))
    story.take(*done(1))
    assert story.ordered() == ["start c 1, d 1"]


def test_a_stretch_has_a_greatest_length() -> None:
    story = story_of(CHAIN, stretch_tasks_max=2)
    assert story.ordered() == ["start a 1, b 1, c 1"]
    story.take(*done(0), *done(1), *done(2))
    assert story.ordered() == ["start d 1"]


def test_a_stretch_ends_at_a_fork_and_where_others_are_waited_for() -> None:
    story = story_of({"a": "", "b": ["a"], "c": ["b"], "d": ["b"], "e": ["c", "d"]}, joined="bcde")
    assert story.ordered() == ["start a 1, b 1"]
    story.take(*done(0), *done(1))
    assert story.ordered() == ["start c 1", "start d 1"]


def test_nothing_follows_where_a_checkpoint_is_due_after_completions() -> None:
    options = ExecutionOptions(checkpoint=CheckpointPolicy(every_completions=1))
    story = Story(workflow_of(CHAIN), joined="bcd", options=options)
    story.start()
    assert story.ordered() == ["start a 1"]
    options = ExecutionOptions(checkpoint=CheckpointPolicy(every_ms=1_000))
    story = Story(workflow_of(CHAIN), joined="bcd", options=options)
    story.start()
    assert story.ordered() == ["start a 1, b 1, c 1, d 1"]


def test_the_last_of_several_to_be_handed_out_is_followed() -> None:
    story = story_of({"a": "", "b": {"timeout": 9}, "c": ["a", "b"]}, joined="c")
    assert story.ordered() == ["start a 1", "start b 1"]
    story.take(*done(0))
    story.failed("b")
    assert story.statuses()["c"] == "skipped"


def test_what_waits_for_one_more_follows_a_retry_of_that_one() -> None:
    story = story_of(
        {"a": "", "b": {"retry_policy": {"max_retries": 1}}, "c": ["a", "b"]}, joined="c"
    )
    story.take(*done(0))
    story.failed("b")
    story.wait(60_000)
    assert story.ordered() == ["start b 2, c 1"]


def chain_of(length: int) -> dict[str, Any]:
    return {f"t{number}": [f"t{number - 1}"] if number else "" for number in range(length)}


def run_stretches(story: Story, tasks: range, *, goes_on: int) -> list[int]:
    """Run a chain, of each stretch the first and so many more; how many each one had."""
    lengths = []
    task = tasks.start
    while task < tasks.stop:
        (ordered,) = [each for each in story.ordered() if each.startswith("start")]
        end = task + ordered.count(",") + 1
        lengths.append(end - task)
        ran = range(task, min(task + goes_on + 1, end))
        story.take(
            *(report for each in ran for report in done(each)),
            *(returned(each) for each in reversed(range(ran.stop, end))),
        )
        task = ran.stop
    return lengths


def test_no_more_is_handed_out_in_vain_than_is_run() -> None:
    """Each has its input made and is sent there and back: that must not grow with the rest."""
    tasks = chain_of(200)
    story = story_of(tasks, joined=list(tasks))
    lengths = run_stretches(story, range(150), goes_on=0)
    assert lengths[0] == 129
    assert sum(lengths) < 150 + 150 + 2 * 128
    assert lengths[-1] == 2, "or nobody would learn that it goes on now"


def test_stretches_grow_with_what_goes_on_by_itself() -> None:
    tasks = chain_of(1_000)
    story = story_of(tasks, joined=list(tasks))
    run_stretches(story, range(20), goes_on=0)
    lengths = run_stretches(story, range(20, 950), goes_on=1_000)
    assert lengths[0] == 2
    assert max(lengths) == 129
    assert len(lengths) < 50


# How it ends -------------------------------------------------------------------------------------


def test_what_comes_back_unstarted_is_handed_out_again_under_its_number() -> None:
    story = story_of(CHAIN)
    story.take(*done(0), *(returned(task) for task in (3, 2, 1)))
    assert story.ordered() == ["start b 1, c 1, d 1"]
    assert story.execution.rows[1].losses == 0


def test_what_comes_back_before_its_turn_waits_for_it() -> None:
    story = story_of(CHAIN)
    story.take(returned(3), returned(2))
    assert story.ordered() == []
    story.take(*done(0))
    assert story.ordered() == []
    story.take(*done(1))
    assert story.ordered() == ["start c 1, d 1"]


def test_a_failure_that_is_tried_again_takes_the_rest_along() -> None:
    story = story_of({**CHAIN, "b": {"depends_on": ["a"], "retry_policy": {"max_retries": 1}}})
    failure = st.AttemptFailed(1, 1, 1_000_002, failed())
    story.take(*done(0), failure, returned(3), returned(2))
    assert story.statuses() == {"a": "completed", "b": "retrying", "c": "pending", "d": "pending"}
    story.wait(60_000)
    assert story.ordered() == ["start b 2, c 1, d 1"]


def test_a_retry_that_comes_before_the_rest_is_back_goes_alone() -> None:
    story = story_of({**CHAIN, "b": {"depends_on": ["a"], "retry_policy": {"max_retries": 1}}})
    story.take(*done(0), st.AttemptFailed(1, 1, 1_000_002, failed()))
    story.wait(60_000)
    assert story.ordered() == ["start b 2"]
    story.take(returned(3), returned(2))
    story.take(*done(1, 2))
    assert story.ordered() == ["start c 1, d 1"]


def test_a_failure_for_good_skips_the_rest_as_it_comes_back() -> None:
    story = story_of(CHAIN)
    story.take(*done(0), st.AttemptFailed(1, 1, 1_000_002, failed()))
    assert story.ordered() == ["stop c 1 taken_back", "stop d 1 taken_back"]
    story.take(returned(3), returned(2))
    assert story.statuses()["c"] == story.statuses()["d"] == "skipped"
    assert story.status() == "failed"


def test_a_cancel_believes_what_has_run_meanwhile() -> None:
    """Tasks ran before the cancel came to the worker; their outcomes count."""
    story = story_of(CHAIN)
    story.take(*done(0))
    story.cancel()
    assert story.ordered() == [f"stop {name} 1 cancelled" for name in "bcd"]
    story.take(*done(1), st.AttemptStarted(2, 1, 1_000_003))
    story.take(st.AttemptStopped(2, 1, 1_000_004), returned(3))
    assert story.statuses() == {
        "a": "completed",
        "b": "completed",
        "c": "cancelled",
        "d": "cancelled",
    }
    assert story.status() == "cancelled"


def test_a_stop_before_its_turn_is_no_loss() -> None:
    story = story_of(CHAIN)
    story.take(st.AttemptStopped(2, 1, 1_000_003))
    assert (story.execution.rows[2].losses, story.execution.rows[2].attempt) == (0, 2)


def test_a_death_loses_the_one_whose_turn_it_was_and_gives_the_others_new_numbers() -> None:
    """Whether the process is dead indeed, nobody can know: it may go on with the old numbers."""
    story = story_of(CHAIN)
    story.take(*done(0))
    story.take(lost(3), lost(2), lost(1))
    assert story.ordered() == ["start b 2, c 2, d 2"]
    assert [row.losses for row in story.execution.rows] == [0, 1, 0, 0]
    story.take(*done(2))
    assert story.statuses()["c"] == "pending"


def test_nothing_begins_before_its_turn() -> None:
    story = story_of(CHAIN)
    with pytest.raises(IllegalTransition, match=r"'b'.*waiting for others"):
        story.execution.handle(*done(1))


# Another owner -----------------------------------------------------------------------------------


def test_outcomes_in_the_inbox_come_before_all_else() -> None:
    story = story_of(CHAIN)
    story.resume({(2, 1)}, [*done(0), *done(1)])
    assert story.told(story.last) == [
        *("task_started a", "task_completed a", "task_started b", "task_completed b"),
        "task_started c",
    ]
    assert story.ordered() == []
    story.take(*done(2))
    assert story.ordered() == ["start d 1"]


def test_whose_turn_it_was_may_have_run_and_gets_a_new_number() -> None:
    story = story_of(CHAIN)
    story.resume(set(), [*done(0), *done(1)])
    assert story.ordered() == ["start c 2, d 1"]


def test_outcomes_that_are_taken_in_already_change_nothing() -> None:
    story = story_of(CHAIN)
    story.take(*done(0))
    story.resume({(1, 1)}, done(0))
    assert story.told(story.last) == ["task_started b"]
    assert story.execution.stale_reports == 2


def test_an_outcome_of_another_attempt_changes_nothing() -> None:
    story = story_of({"a": {"retry_policy": {"max_retries": 1}}, "b": ["a"]}, joined="b")
    story.failed("a")
    story.resume(set(), done(0))
    assert story.statuses() == {"a": "retrying", "b": "pending"}


def test_the_last_outcome_in_the_inbox_can_end_the_execution() -> None:
    story = story_of({"a": "", "b": ["a"]}, joined="b")
    story.resume(set(), [*done(0), *done(1)])
    assert story.status() == "completed"


def test_a_successor_goes_on_cancelling() -> None:
    story = story_of(CHAIN)
    story.cancel()
    story.resume({(2, 1)}, [*done(0), *done(1)])
    assert story.ordered() == ["stop c 1 cancelled"]
    assert story.statuses() == {
        "a": "completed",
        "b": "completed",
        "c": "running",
        "d": "cancelled",
    }
