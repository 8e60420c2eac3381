"""What a task host tells while it is on a stretch: long attempts at once, the store's time not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harmonia_actors.runtime.task_host import TaskHost
from tests.unit.runtime.test_stretches import member, stretch
from tests.unit.runtime.test_task_host import SLOW, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_an_attempt_is_not_long_for_the_time_that_the_store_takes(bench: Bench) -> None:
    limits = replace(SLOW, start_report_ms=5, stretch_ms=60_000)
    runner, now_s = bench.runner(), [0.0]
    host = TaskHost(runner, limits, bench.send, lambda: now_s[0])
    host.take_in("me", [stretch(member(0, value=1), member(1, value=2))])
    first = host.begin_next()
    assert first is not None
    outcome = runner.run_sync(first.order, first)
    entry = host.entry_before_next(first, outcome)
    now_s[0] += 1.0
    host.tell_due()
    assert bench.told() == []
    host.finish(first, outcome, entry)
    assert host.begin_next() is not None
    now_s[0] += 0.006
    host.tell_due()
    assert bench.told() == [("me", told) for told in ("Started 0", "Succeeded 0", "Started 1")]
