"""What is made of a batch of events is made once, as long as it is the same batch."""

from __future__ import annotations

from collections.abc import Sequence

from harmonia_actors.core.event_batches import EventBatch, made_once


def test_what_is_made_of_a_shared_batch_is_made_once_for_each_form() -> None:
    calls: list[str] = []

    def joined(events: Sequence[str]) -> str:
        calls.append("joined")
        return "".join(events)

    batch = EventBatch(["a", "b"])
    assert batch == ("a", "b")
    assert [made_once(batch, "joined", joined) for _ in range(3)] == ["ab"] * 3
    assert made_once(batch, "count", len) == 2
    assert calls == ["joined"]


def test_nothing_is_remembered_of_events_that_nobody_shares() -> None:
    events = ["a"]
    assert made_once(events, "joined", "".join) == "a"
    events.append("b")
    assert made_once(events, "joined", "".join) == "ab"
    assert made_once(EventBatch(["c"]), "joined", "".join) == "c"
