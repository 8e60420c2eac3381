"""Retry arithmetic, statuses, timers, options, timestamps and JSON text."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import ValidationFailed
from harmonia_actors.core.options import ExecutionOptions, parse_options
from harmonia_actors.core.retry import NO_RETRY, RetryPolicy, delay_ms
from harmonia_actors.core.statuses import (
    EXECUTION_TRANSITIONS,
    TASK_TRANSITIONS,
    ExecutionStatus,
    IllegalTransition,
    TaskStatus,
    check_execution,
    check_task,
)
from harmonia_actors.core.timers import TimerKind, Timers
from harmonia_actors.core.timestamps import timestamp, timestamp_or_none

# Retry -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        (RetryPolicy(9, 5_000), [5_000, 5_000, 5_000]),
        (RetryPolicy(9, 1_000, 2.0), [1_000, 2_000, 4_000, 8_000]),
        (RetryPolicy(9, 1_000, 10.0, 5_000), [1_000, 5_000, 5_000]),
        (RetryPolicy(9, 0, 2.0), [0, 0]),
        (RetryPolicy(9, 9_000, 1.0, 4_000), [4_000]),
        (NO_RETRY, [1_000]),
    ],
)
def test_waits_grow_up_to_their_ceiling(policy: RetryPolicy, waits: list[int]) -> None:
    found = [delay_ms(policy, failures=n, luck="") for n in range(1, len(waits) + 1)]
    assert found == waits


def test_a_large_count_does_not_overflow() -> None:
    policy = RetryPolicy(10**9, 86_400_000, 100.0, 3_600_000)
    assert delay_ms(policy, failures=10**9, luck="") == 3_600_000


@given(
    some.builds(
        RetryPolicy,
        max_retries=some.integers(0, 100),
        retry_interval_ms=some.integers(0, 86_400_000),
        backoff=some.floats(1, 100),
        max_interval_ms=some.integers(0, 86_400_000),
        jitter=some.floats(0, 1),
    ),
    some.integers(1, 200),
    some.text(max_size=30),
)
def test_jitter_stays_in_its_share_and_is_the_same_again(
    policy: RetryPolicy, failures: int, luck: str
) -> None:
    plain = RetryPolicy(
        policy.max_retries, policy.retry_interval_ms, policy.backoff, policy.max_interval_ms
    )
    middle = delay_ms(plain, failures=failures, luck=luck)
    found = delay_ms(policy, failures=failures, luck=luck)
    assert abs(found - middle) <= math.ceil(policy.jitter * middle) + 1
    assert found == delay_ms(policy, failures=failures, luck=luck)
    assert found >= 0


def test_jitter_differs_between_tasks() -> None:
    policy = RetryPolicy(1, 10_000, jitter=1.0)
    waits = {delay_ms(policy, failures=1, luck=f"exec/{task}/1") for task in range(100)}
    assert len(waits) > 90
    assert min(waits) < 3_000
    assert max(waits) > 17_000


# Statuses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", TaskStatus)
@pytest.mark.parametrize("finish", TaskStatus)
def test_tasks_move_as_the_table_says(start: TaskStatus, finish: TaskStatus) -> None:
    if finish in TASK_TRANSITIONS[start]:
        check_task("a", start, finish)
    else:
        with pytest.raises(IllegalTransition, match=f"'a': no transition from {start} to {finish}"):
            check_task("a", start, finish)


@pytest.mark.parametrize("start", ExecutionStatus)
@pytest.mark.parametrize("finish", ExecutionStatus)
def test_executions_move_as_the_table_says(start: ExecutionStatus, finish: ExecutionStatus) -> None:
    if finish in EXECUTION_TRANSITIONS[start]:
        check_execution(start, finish)
    else:
        with pytest.raises(IllegalTransition):
            check_execution(start, finish)


def test_final_statuses_are_those_that_lead_nowhere() -> None:
    assert {s for s in TaskStatus if s.is_final} == {
        s for s, after in TASK_TRANSITIONS.items() if not after
    }
    assert {s for s in ExecutionStatus if s.is_final} == {
        s for s, after in EXECUTION_TRANSITIONS.items() if not after
    }


def test_an_end_can_be_reached_from_everywhere() -> None:
    for status in TaskStatus:
        if not status.is_final:
            assert any(after.is_final for after in TASK_TRANSITIONS[status])


# Timers ------------------------------------------------------------------------------------------


def test_only_an_earlier_time_is_armed_again() -> None:
    timers = Timers()
    assert timers.to_arm() is None
    timers.push(500, TimerKind.RETRY, 1, 1)
    assert timers.to_arm() == 500
    timers.push(900, TimerKind.RETRY, 2, 1)
    assert timers.to_arm() is None
    timers.push(100, TimerKind.DEADLINE)
    assert timers.to_arm() == 100
    assert timers.pop_due(99) == []
    assert timers.to_arm() is None
    assert timers.pop_due(100) == [(100, TimerKind.DEADLINE, -1, 0)]
    assert timers.to_arm() == 500


@given(some.lists(some.tuples(some.integers(0, 50), some.integers(0, 3)), max_size=30))
def test_whatever_is_pushed_comes_up_once_in_order(pushed: list[tuple[int, int]]) -> None:
    timers = Timers()
    for due_ms, task in pushed:
        timers.push(due_ms, TimerKind.RETRY, task, 1)
    found = []
    while (armed_ms := timers.to_arm()) is not None:
        came = timers.pop_due(armed_ms)
        assert came
        found += [(due, task) for due, _, task, _ in came]
    assert found == sorted(pushed)


# Options -----------------------------------------------------------------------------------------


def options(raw: dict[str, Any]) -> ExecutionOptions:
    return parse_options(raw, retries_max=10, timeout_s_max=100, checkpoints_kept_max=10)


def test_options_as_in_the_reference() -> None:
    raw = {
        "async": True,
        "timeout": 60,
        "retry_policy": {"max_retries": 3, "retry_interval": 5},
    }
    assert options(raw) == ExecutionOptions(False, 60_000, RetryPolicy(3, 5_000))
    assert options({}) == ExecutionOptions()
    assert options({"async": False}).wait


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"async": "no"}, "execution_options.async"),
        ({"timeout": 101}, "execution_options.timeout"),
        ({"timeout": 0}, "execution_options.timeout"),
        ({"retry_policy": {"max_retries": 11}}, "execution_options.retry_policy.max_retries"),
        ({"retry_policy": []}, "execution_options.retry_policy"),
        ({"priority": 1}, "execution_options.priority"),
    ],
)
def test_options_that_are_not_valid(raw: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        options(raw)
    assert [error["field"] for error in caught.value.details["errors"]] == [field]


# Text --------------------------------------------------------------------------------------------


def test_timestamps_have_the_references_form() -> None:
    assert timestamp(1_736_942_400_000) == "2025-01-15T12:00:00Z"
    assert timestamp(1_736_942_400_999) == "2025-01-15T12:00:00Z"
    assert timestamp_or_none(None) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_json_text_has_no_nan(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        jsontext.encode(value)


def test_json_text_is_compact_and_keeps_large_numbers() -> None:
    value = {"ä": [10**40, 1.5, None, True, "€"]}
    assert jsontext.encode(value) == '{"ä":[1%s,1.5,null,true,"€"]}'.encode() % (b"0" * 40)
    assert jsontext.decode(jsontext.encode(value)) == value


def test_a_lone_surrogate_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        jsontext.encode("\ud800")
