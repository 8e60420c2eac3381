"""The small built-in actions."""

from __future__ import annotations

import asyncio

import pytest

from harmonia_actors.components.builtin import component
from harmonia_actors.components.contract import ActionError


def test_noop_returns_nothing() -> None:
    assert component.actions["noop"].function() == {}


def test_echo_gives_back_what_it_was_given() -> None:
    value = {"deep": [1, None, "${workflow.input.x}"]}
    assert component.actions["echo"].function(value) == {"value": value}


async def test_sleep_waits_without_blocking_others() -> None:
    action = component.actions["sleep"]
    assert action.is_async
    results = await asyncio.gather(*(action.function(0.01) for _ in range(100)))
    assert results == [{"slept_seconds": 0.01}] * 100


@pytest.mark.parametrize("seconds", [-1, "NaN", "Infinity", 1e12, "soon"])
def test_sleep_refuses_what_is_no_reasonable_time(seconds: object) -> None:
    with pytest.raises(ActionError, match="seconds"):
        component.actions["sleep"].parse({"seconds": seconds})


def test_fail_fails_as_told() -> None:
    with pytest.raises(ActionError) as failed:
        component.actions["fail"].function("went wrong", "OUT_OF_PAPER", retriable=False)
    assert (failed.value.message, failed.value.code) == ("went wrong", "OUT_OF_PAPER")
    assert not failed.value.retriable


def test_fibonacci_computes() -> None:
    assert component.actions["fibonacci"].function(20) == {"value": 6765}
    with pytest.raises(ActionError, match="n:"):
        component.actions["fibonacci"].parse({"n": 46})
