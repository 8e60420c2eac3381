"""What waits to be decided on: all of it in order, and of progress only the latest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from harmonia_actors.core import stimuli as st
from harmonia_actors.runtime.mailbox import Mailbox
from tests.support.executions import output

MUCH = 1_000_000


def progress(task: int, attempt: int, at_ms: int) -> st.ProgressReported:
    return st.ProgressReported(task, attempt, at_ms, 0.5, f"at {at_ms}")


def test_reports_of_progress_do_not_pile_up() -> None:
    mailbox = Mailbox()
    for at_ms in range(10_000):
        mailbox.put([progress(at_ms % 3, 1, at_ms)])
    assert len(mailbox) == 3
    taken = mailbox.take(MUCH, MUCH).stimuli
    assert taken == [progress(0, 1, 9_999), progress(1, 1, 9_997), progress(2, 1, 9_998)]
    mailbox.put([progress(0, 1, 10_000)])
    assert mailbox.take(MUCH, MUCH).stimuli == [progress(0, 1, 10_000)]


def test_each_attempt_has_a_report_of_its_own() -> None:
    mailbox = Mailbox()
    reports = [progress(task, attempt, 1) for task in range(3) for attempt in (1, 2)]
    mailbox.put(reports)
    assert mailbox.take(MUCH, MUCH).stimuli == reports


def test_a_batch_ends_after_so_many_stimuli_or_so_many_bytes() -> None:
    mailbox = Mailbox()
    ended = [st.AttemptSucceeded(task, 1, 1, output("x" * 100)) for task in range(6)]
    mailbox.put(ended)
    assert mailbox.take(2, MUCH).stimuli == ended[:2]
    assert mailbox.take(MUCH, 150).stimuli == ended[2:4]
    assert mailbox.take(MUCH, 1).stimuli == ended[4:5]
    assert mailbox.take(MUCH, MUCH).stimuli == ended[5:]
    assert len(mailbox) == 0


@given(
    some.lists(some.tuples(some.integers(0, 2), some.booleans(), some.booleans()), max_size=30),
    some.integers(1, 5),
)
def test_nothing_but_progress_is_left_out_and_an_entry_follows_what_it_brought(
    told: list[tuple[int, bool, bool]], count_max: int
) -> None:
    mailbox = Mailbox()
    for at_ms, (task, is_progress, by_inbox) in enumerate(told):
        stimulus = progress(task, 1, at_ms) if is_progress else st.AttemptStarted(task, 1, at_ms)
        mailbox.put([stimulus], [str(at_ms)] if by_inbox else [])
    seen: list[int] = []
    while mailbox:
        letters = mailbox.take(count_max, MUCH)
        assert len(letters.stimuli) <= count_max
        seen += [one.at_ms for one in letters.stimuli if not isinstance(one, st.ProgressReported)]
        for entry in letters.inbox_ids:
            # Its stimulus has been taken, or a later report of the same attempt in its place.
            assert told[int(entry)][1] or int(entry) in seen
    assert seen == [at_ms for at_ms, one in enumerate(told) if not one[1]]
