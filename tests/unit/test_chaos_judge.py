"""What judges real chaos: it must see what is wrong, and say when nothing was proved."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.chaos.judge import Judgement, strangers, wrong_with
from tests.chaos.run import shortfalls
from tests.chaos.work import Accepted, Work

TASKS = {"a": {"input": {"fails": 0}}, "b": {"input": {"fails": 1}}}
ONE = Accepted("exec-1", Work(TASKS, {"b": 7}), is_cancelled=False)
STATUS: dict[str, Any] = {
    "status": "completed",
    "output": {"b": 7},
    "task_status": {"a": {"attempt": 1}, "b": {"attempt": 2}},
}
BEGUN = Counter({("exec-1/a", 1): 1, ("exec-1/b", 1): 1, ("exec-1/b", 2): 1})
ENDED = Counter({("exec-1/a", 1): 1, ("exec-1/b", 2): 1})


def test_what_is_right_is_right() -> None:
    assert wrong_with(ONE, STATUS, BEGUN, ENDED) == []
    assert strangers([ONE], BEGUN) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"output": {"b": 8}}, "not {"),
        ({"status": "cancelled"}, "nobody wanted"),
        ({"status": "failed", "error": {"code": "x"}}, "is failed"),
        ({"task_status": {"a": {"attempt": 2}}}, "began 0 times"),
    ],
)
def test_a_wrong_end_is_seen(change: dict[str, Any], word: str) -> None:
    (found,) = wrong_with(ONE, {**STATUS, **change}, BEGUN, ENDED)
    assert word in found


def test_an_outcome_of_an_attempt_that_ran_twice_or_never_ended_is_seen() -> None:
    assert len(wrong_with(ONE, STATUS, BEGUN + Counter({("exec-1/a", 1): 1}), ENDED)) == 1
    assert len(wrong_with(ONE, STATUS, BEGUN, Counter({("exec-1/a", 1): 1}))) == 1


def test_a_request_that_made_two_executions_is_seen() -> None:
    begun = BEGUN + Counter({("exec-2/a", 1): 1, ("exec-2/b", 1): 1})
    assert strangers([ONE], begun) == ["exec-2 has run, and is no answer to anybody"]


def test_a_run_in_which_too_little_happened_proves_nothing() -> None:
    found = Judgement(executions=10, rerun=1, statuses=Counter(completed=9))
    assert shortfalls(found, Counter(x=1), ["x"]) == []
    assert len(shortfalls(found, Counter(), ["x"])) == 1
    found.statuses = Counter(completed=7, cancelled=3)
    assert len(shortfalls(found, Counter(x=1), ["x"])) == 1
    assert len(shortfalls(Judgement(), Counter(x=1), ["x"])) == 2
