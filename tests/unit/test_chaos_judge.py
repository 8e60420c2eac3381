"""What judges real chaos: it must see what is wrong, and say when nothing was proved."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.chaos.judge import TAKEN_IN_S, Journal, Judgement, rerun, strangers, wrong_with
from tests.chaos.run import shortfalls
from tests.chaos.work import LASTING_S, Accepted, Work, make_work

TASKS = {
    "a": {"input": {"fails": 0}, "depends_on": []},
    "b": {"input": {"fails": 1}, "depends_on": ["a"]},
}
ONE = Accepted("exec-1", Work(TASKS, {"b": 7}), is_cancelled=False)
STATUS: dict[str, Any] = {
    "status": "completed",
    "output": {"b": 7},
    "task_status": {"a": {"attempt": 1}, "b": {"attempt": 2}},
}
RAN = ["begin a 1", "end a 1", "begin b 1", "begin b 2", "end b 2"]
WANTED = replace(ONE, is_cancelled=True, acknowledged_s=1.0)


def journal(lines: list[str], execution_id: str = "exec-1", since_s: float = 0.0) -> Journal:
    """One line in each second."""
    split = [line.split() for line in lines]
    return Journal.of(
        f"{what} {execution_id}/{task} {attempt} {since_s + place:.3f}"
        for place, (what, task, attempt) in enumerate(split)
    )


def wrong(lines: list[str], one: Accepted = ONE, since_s: float = 0.0, **change: Any) -> list[str]:
    return wrong_with(one, {**STATUS, **change}, journal(lines, since_s=since_s))


def test_what_is_right_is_right() -> None:
    assert wrong(RAN) == []
    assert strangers([ONE], journal(RAN)) == []
    assert rerun([ONE], journal(RAN)) == 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"output": {"b": 8}}, "not {"),
        ({"status": "cancelled"}, "nobody wanted"),
        ({"status": "failed", "error": {"code": "x"}}, "is failed"),
        ({"task_status": {"a": {"attempt": 2}, "b": {"attempt": 2}}}, "began 0 times"),
        ({"task_status": {"b": {"attempt": 2}}}, "shows tasks ['b']"),
        ({"task_status": {}}, "shows tasks []"),
    ],
)
def test_a_wrong_end_is_seen(change: dict[str, Any], word: str) -> None:
    (found,) = wrong(RAN, **change)
    assert word in found


def test_an_outcome_of_an_attempt_that_ran_twice_or_never_ended_is_seen() -> None:
    assert len(wrong(["begin a 1", *RAN])) == 1
    assert len(wrong(RAN[:-1])) == 1


@pytest.mark.parametrize("status", ["completed", "cancelled"])
def test_a_second_run_of_what_was_finished_is_seen(status: str) -> None:
    (found,) = wrong([*RAN, "begin a 2", "end a 2"], WANTED, status=status)
    assert "attempt 2 of exec-1/a has begun, but attempt 1 is the recorded one" in found


def test_a_lost_attempt_is_run_again_and_one_that_was_dropped_before_it_was_told_of_is_not() -> (
    None
):
    ran = ["begin a 1", "begin a 2", "end a 2", *RAN[2:]]
    recorded = {"a": {"attempt": 2}, "b": {"attempt": 2}}
    assert wrong(ran, task_status=recorded) == []
    assert rerun([ONE], journal(ran)) == 1
    # The first number never began: that is no second run.
    assert rerun([ONE], journal(ran[1:])) == 0
    shown = {"a": {"attempt": 0}, "b": {"attempt": 0}}
    assert wrong(["begin a 1"], WANTED, status="cancelled", task_status=shown) == []


@pytest.mark.parametrize("status", ["completed", "cancelled"])
def test_a_task_that_begins_before_what_it_depends_on_has_ended_is_seen(status: str) -> None:
    early = ["begin a 1", "begin b 1", "end a 1", "begin b 2", "end b 2"]
    (found,) = wrong(early, WANTED, status=status)
    assert "exec-1/b begins before exec-1/a has ended" in found


def test_a_task_that_begins_behind_another_attempt_than_the_recorded_one_is_seen() -> None:
    ran = ["begin a 1", "end a 1", "begin b 1", "begin a 2", "end a 2", "begin b 2", "end b 2"]
    recorded = {"a": {"attempt": 2}, "b": {"attempt": 2}}
    (found,) = wrong(ran, task_status=recorded)
    assert "exec-1/b begins before exec-1/a has ended" in found


def test_an_acknowledged_cancel_that_was_lost_is_seen() -> None:
    (found,) = wrong(RAN, WANTED, since_s=TAKEN_IN_S)
    assert "a cancel was acknowledged" in found
    # It could be that nobody had taken it in yet, or it was refused, because it had ended.
    assert wrong(RAN, WANTED, since_s=TAKEN_IN_S - 4.0) == []
    assert wrong(RAN, replace(WANTED, acknowledged_s=None), since_s=TAKEN_IN_S) == []
    assert wrong(RAN, WANTED, since_s=TAKEN_IN_S, status="cancelled") == []


def test_what_lasts_cannot_end_before_a_cancel_must_have_been_taken_in() -> None:
    work = make_work(Random(1), Path("journal"), is_lasting=True)
    last = f"t{len(work.tasks) - 1}"
    assert work.tasks[last]["depends_on"] == []
    assert work.tasks[last]["input"]["seconds"] == LASTING_S > TAKEN_IN_S
    assert work.output[last] == work.tasks[last]["input"]["number"]


def test_a_request_that_made_two_executions_is_seen() -> None:
    assert strangers([ONE], journal(RAN, "exec-2")) == [
        "exec-2 has run, and is no answer to anybody"
    ]


def test_a_run_in_which_too_little_happened_proves_nothing() -> None:
    found = Judgement(executions=10, rerun=1, statuses=Counter(completed=9))
    assert shortfalls(found, Counter(x=1), ["x"]) == []
    assert len(shortfalls(found, Counter(), ["x"])) == 1
    found.statuses = Counter(completed=7, cancelled=3)
    assert len(shortfalls(found, Counter(x=1), ["x"])) == 1
    assert len(shortfalls(Judgement(), Counter(x=1), ["x"])) == 2


def test_attempts_that_run_again_though_no_fault_can_have_ended_one_are_seen() -> None:
    found = Judgement(executions=10, rerun=1, statuses=Counter(completed=9))
    kinds = ["store killed", "store stopped"]
    landed = Counter(kinds)
    (told,) = shortfalls(found, landed, kinds)
    assert "1 attempts were run again" in told
    assert shortfalls(found, landed + Counter({"task actor killed": 1}), kinds) == []
    found.rerun = 0
    assert shortfalls(found, landed, kinds) == []
