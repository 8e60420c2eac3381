"""Whatever an action raises or returns, there is an outcome, and it can be stored."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.components.contract import ActionError
from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from tests.unit.runtime.test_task_host import Bench, order, shown


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


class OddError(ActionError):
    def __init__(self) -> None:
        text: Any = ["not", "text"]
        super().__init__(text, code="\ud800", details={"a": {1}})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OddError(), "\\ud800"),
        (asyncio.CancelledError(), "EXCEPTION"),
        (KeyboardInterrupt(), "EXCEPTION"),
        (SystemExit(3), "EXCEPTION"),
        (RecursionError(), "EXCEPTION"),
    ],
)
def test_whatever_an_action_raises_is_its_outcome_and_the_batch_goes_on(
    bench: Bench, error: BaseException, code: str
) -> None:
    @bench.component.action
    def odd() -> None:
        raise error

    first = replace(order(0, "odd"), component="bench", input=b"{}")
    reports, _ = bench.start(bench.host(), first, order(1)).result(10)
    assert [shown(report) for report in reports] == [
        "Started 0",
        "Failed 0",
        "Started 1",
        "Succeeded 1",
    ]
    failed = reports[1].stimulus
    assert isinstance(failed, st.AttemptFailed)
    assert failed.failure.code == code
    jsontext.encode([failed.failure.message, failed.failure.details])


def test_an_output_that_is_nested_too_deep_is_refused_where_it_is_made(bench: Bench) -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]

    @bench.component.action
    def nested() -> Any:
        return deep

    first = replace(order(0, "nested"), component="bench", input=b"{}")
    reports, _ = bench.start(bench.host(), first).result(10)
    failed = reports[1].stimulus
    assert isinstance(failed, st.AttemptFailed)
    assert (failed.failure.code, failed.failure.retriable) == ("INVALID_OUTPUT", False)
    assert "nested more than 200 deep" in failed.failure.message
