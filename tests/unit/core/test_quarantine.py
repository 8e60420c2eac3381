"""How an execution that ends its owners is failed, wherever it was."""

from __future__ import annotations

from harmonia_actors.core.quarantine import fail_head, quarantine_error
from harmonia_actors.core.records import decode_head, encode_head
from tests.support.executions import EXECUTION_ID, START_MS, Story, workflow_of

GRAPH = {"a": "", "b": ["a"], "c": ["a"], "d": ["b", "c"]}


def begun() -> Story:
    story = Story(workflow_of(GRAPH))
    story.start()
    story.succeeded("a")
    story.started("b")
    return story


def test_what_runs_is_cancelled_and_the_rest_skipped_at_once() -> None:
    story = begun()
    decision = story.quarantine()
    assert story.status() == "failed"
    assert story.statuses() == {"a": "completed", "b": "cancelled", "c": "skipped", "d": "skipped"}
    assert decision.commands == [], "nothing of it is waited for"
    assert story.bodies()[-1]["data"]["error"] == quarantine_error(3)
    assert "quarantined" in story.bodies()[-2]["data"]["reason"]


def test_one_that_has_not_begun_begins_and_fails() -> None:
    story = Story(workflow_of(GRAPH))
    story.quarantine()
    assert story.told() == [
        "execution_started",
        *(f"task_skipped {name}" for name in "abcd"),
        "execution_failed",
    ]


def test_one_that_was_bound_to_fail_keeps_its_own_reason() -> None:
    story = begun()
    story.failed("b")
    story.started("c")
    if story.status() != "failed":
        story.quarantine()
    assert story.status() == "failed"
    assert story.bodies()[-1]["data"]["error"]["task"] == "b"


def test_one_that_was_being_cancelled_is_cancelled() -> None:
    story = begun()
    story.cancel()
    story.quarantine()
    assert story.status() == "cancelled"
    assert story.statuses()["b"] == "cancelled"


def test_one_that_has_ended_is_left_alone() -> None:
    story = Story(workflow_of({"a": ""}))
    story.start()
    story.succeeded("a")
    assert story.quarantine().is_empty
    assert story.status() == "completed"


def test_a_head_alone_can_be_failed() -> None:
    story = begun()
    head = decode_head(encode_head(story.execution.head_record()))
    failed = fail_head(head, story.execution.seq, START_MS + 5, quarantine_error(4))
    assert failed.seq == story.execution.seq + 1
    assert failed.event.type == "execution_failed"
    stored = decode_head(encode_head(head))
    assert (stored.status, stored.completed_ms) == ("failed", START_MS + 5)
    assert (stored.running, stored.running_count) == ((), 0)


def test_a_head_may_be_failed_while_the_rest_of_a_stretch_is_being_taken_back() -> None:
    """Its log tells no end of `b`, which was handed out and not dropped: an audit allows that."""
    story = Story(workflow_of({"a": "", "b": ["a"]}), joined="b")
    story.start()
    story.failed("a")
    assert story.ordered() == ["stop b 1 taken_back"]
    story.load()
    last = fail_head(story.execution.head, story.execution.seq, START_MS, quarantine_error(3))
    auditor = story.audited.auditor
    auditor.feed(last.index, last.encoded(EXECUTION_ID))
    told = [*story.told(), last.event.type]
    assert told == ["execution_started", "task_failed a", "execution_failed"]
    assert auditor.findings.violations == []
