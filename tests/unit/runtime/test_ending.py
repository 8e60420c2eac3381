"""What an owner remembers of executions that have ended is bounded, and no more than it knows."""

from __future__ import annotations

from harmonia_actors.runtime.ending import Ending, LatelyEnded, Written
from persistence.store import Commit


def commit(seq: int, *, body: bytes = b"", release: bool = False) -> Commit:
    return Commit(
        *("exec-1", "me", 1, seq + 1, seq),
        fields={"head": b"head"},
        rows={str(seq): b"row"},
        outputs={f"{seq}:1": body},
        events=[b"event"],
        release=release,
    )


def test_an_end_is_all_that_was_written() -> None:
    written = Written(is_all=True)
    written.add(commit(1, body=b"one"))
    assert written.ending is None
    written.add(commit(2, body=b"two", release=True))
    rows, outputs = {"1": b"row", "2": b"row"}, {"1:1": b"one", "2:1": b"two"}
    assert written.ending == Ending(2, 3, 1, b"head", rows, outputs)


def test_what_grew_too_large_on_the_way_is_not_remembered() -> None:
    written = Written(is_all=True)
    written.add(commit(1, body=b"x" * 9_000))
    written.add(commit(2, release=True))
    assert written.ending is None


def test_what_another_one_began_is_not_remembered() -> None:
    written = Written(is_all=False)
    written.add(commit(2, release=True))
    assert written.ending is None


def test_the_oldest_ends_are_forgotten() -> None:
    ended, ending = LatelyEnded(), Ending(1, 2, 1, b"head", {}, {})
    for number in range(1_001):
        ended.add(f"exec-{number}", ending)
    assert "exec-0" not in ended
    assert ended.ending_of("exec-0") is None
    assert ended.ending_of("exec-1") == ending
    assert ended.ending_of("exec-1000") == ending
