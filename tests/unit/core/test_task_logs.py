"""What an execution tells of the lines of its tasks: each once, in order, or how many are missing.

After every step of a `Story` the invariants hold and the audit finds nothing.
"""

from __future__ import annotations

import pytest

from harmonia_actors.core import events as ev
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.execution import CoreLimits, Decision
from harmonia_actors.core.log_lines import EVENT_COST, LINE_COST, LogLine
from tests.support.executions import START_MS, Story, workflow_of


def reported(
    first: int, *texts: str, attempt: int = 1, last: bool = False, task: int = 0
) -> st.LinesReported:
    lines = tuple(LogLine("stdout", text, START_MS) for text in texts)
    return st.LinesReported(task, attempt, START_MS, first, lines, last)


def told(story: Story) -> list[tuple[int, list[str], int]]:
    """Attempt, lines, and how many are missing before them, by event."""
    events = [numbered.event for numbered in story.events]
    return [
        (each.attempt, [line.text for line in each.lines], each.dropped)
        for each in events
        if isinstance(each, ev.TaskLog)
    ]


@pytest.fixture
def story() -> Story:
    made = Story(workflow_of({"a": {"retry_policy": {"max_retries": 1}}}))
    made.start()
    made.started("a")
    return made


def test_lines_are_an_event_of_the_attempt_that_runs(story: Story) -> None:
    story.take(reported(0, "one", "two"))
    assert told(story) == [(1, ["one", "two"], 0)]
    assert story.execution.rows[0].lines == 2


def test_what_was_told_before_is_not_told_again(story: Story) -> None:
    story.take(reported(0, "0", "1", "2"))
    assert story.take(reported(0, "0", "1", "2")) == Decision()
    assert story.take(reported(1, "1")) == Decision()
    story.take(reported(1, "1", "2", "3"), reported(4, "4"))
    assert told(story) == [(1, ["0", "1", "2"], 0), (1, ["3"], 0), (1, ["4"], 0)]


def test_what_is_missing_is_counted_and_does_not_come_later(story: Story) -> None:
    story.take(reported(0, "0"))
    story.take(reported(3, "3"))
    assert story.take(reported(1, "1", "2")) == Decision()
    story.take(reported(9, last=True))
    assert told(story) == [(1, ["0"], 0), (1, ["3"], 2), (1, [], 5)]


def test_the_next_attempt_counts_from_nothing(story: Story) -> None:
    story.take(reported(0, "0", "1"))
    story.failed("a")
    assert story.take(reported(2, "late")).events == []
    story.wait(10_000)
    story.started("a")
    story.take(reported(0, "again", attempt=2), reported(2, "late", attempt=1))
    assert told(story) == [(1, ["0", "1"], 0), (2, ["again"], 0)]


def test_a_lost_attempt_keeps_what_it_has_told(story: Story) -> None:
    story.take(reported(0, "0"))
    story.lost("a")
    story.started("a")
    story.take(reported(0, "other", attempt=2))
    story.succeeded("a")
    assert told(story) == [(1, ["0"], 0), (2, ["other"], 0)]
    assert story.execution.rows[0].lines == 0


def test_a_new_owner_goes_on_where_the_former_one_was(story: Story) -> None:
    story.take(reported(0, "0", "1"))
    story.restart("a")
    story.take(reported(1, "1", "2"))
    story.restart("a")
    # What was told last is told again, but more was told to nobody who kept it.
    story.take(reported(4, "4", "5"))
    assert told(story) == [(1, ["0", "1"], 0), (1, ["2"], 0), (1, ["4", "5"], 1)]


def test_lines_of_what_does_not_run_are_none() -> None:
    story = Story(workflow_of({"a": ""}))
    story.start()
    assert story.take(reported(0, "early")).events == []
    story.started("a")
    story.succeeded("a")
    assert story.events[-1].event.type == "execution_completed"
    assert told(story) == []


def test_where_there_is_no_room_the_end_says_how_many_there_were() -> None:
    one = EVENT_COST + LINE_COST + 1
    story = Story(workflow_of({"a": "", "b": ""}), limits=CoreLimits(log_bytes_max=2 * one))
    story.start()
    story.started("a", "b")
    story.take(reported(0, "0"), reported(0, "0", task=1))
    assert story.take(reported(1, "1"), reported(2, "2")).events == []
    story.take(reported(2, "2", "3"), reported(4, "4", last=True))
    story.succeeded("a")
    assert told(story) == [(1, ["0"], 0), (1, ["0"], 0), (1, [], 4)]
    assert story.execution.head.log_bytes == 2 * one + EVENT_COST


def test_beyond_so_many_events_lines_are_only_counted() -> None:
    story = Story(workflow_of({"a": ""}), limits=CoreLimits(progress_events_max=3))
    story.start()
    story.started("a")
    story.take(reported(0, "0"), reported(1, "1"), reported(2, "2", last=True))
    assert told(story) == [(1, ["0"], 0), (1, [], 2)]


def test_a_restored_execution_has_told_of_nothing(story: Story) -> None:
    story.take(reported(0, "0"))
    story.load()
    assert (story.execution.rows[0].lines, story.execution.head.log_bytes) == (1, 265)
