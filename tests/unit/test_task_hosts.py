"""What task hosts tell: an outcome never travels without the start that it belongs to.

What is told while a batch runs and what the batch returns take different ways to the owner, and
either may come first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from harmonia_actors.components.contract import ActionError, Component, TaskContext
from harmonia_actors.components.registry import Registry
from harmonia_actors.core import stimuli as st
from harmonia_actors.runtime.attempt_runner import AttemptRunner
from harmonia_actors.runtime.clock import SystemClock
from harmonia_actors.runtime.files import WorkspaceFiles
from harmonia_actors.runtime.ordering import OrderingLimits
from harmonia_actors.runtime.orders import AttemptOrder, QueueKey, Report
from harmonia_actors.runtime.shared_task_host import SharedTaskHost
from harmonia_actors.runtime.task_host import TaskHost, TaskHostLimits
from persistence.blobs import FileBlobs


class Told:
    """Reports that were told while a batch still ran."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.first = asyncio.Event()

    def send(self, owner: str, reports: Sequence[Report]) -> None:
        assert owner == "owner"
        self.reports += reports
        self.first.set()


@pytest.fixture
def told() -> Told:
    return Told()


def runner_of(directory: Path, told: Told) -> AttemptRunner:
    component = Component("told", "What tests of task hosts run")

    @component.action
    def after_progress(*, context: TaskContext) -> None:
        context.progress(0.5, "half")
        raise ActionError("no more", code="NO_MORE")

    @component.action
    def at_once() -> None:
        raise ActionError("no more", code="NO_MORE")

    @component.action
    async def after_the_start_was_told() -> None:
        await told.first.wait()
        raise ActionError("no more", code="NO_MORE")

    files = WorkspaceFiles(directory / "workspaces")
    blobs = FileBlobs(directory / "blobs")
    registry = Registry([component])
    return AttemptRunner(registry, blobs, SystemClock(), OrderingLimits(), files.workspace)


def order_of(action: str, task: int = 0) -> AttemptOrder:
    return AttemptOrder("exec-1", "wf-1", 1, task, f"t{task}", 1, "told", action, b"{}", QueueKey())


def kinds(reports: Sequence[Report]) -> list[str]:
    return [type(report.stimulus).__name__ for report in reports]


def _said(report: Report) -> tuple[float, str]:
    assert isinstance(report.stimulus, st.ProgressReported)
    return report.stimulus.fraction, report.stimulus.message


#: Long enough that nothing is told because of its age.
UNHURRIED = TaskHostLimits(start_report_ms=60_000, outcome_report_ms=60_000)


def test_a_start_that_was_told_with_progress_comes_again_with_the_outcome(
    tmp_path: Path, told: Told
) -> None:
    host = TaskHost(runner_of(tmp_path, told), UNHURRIED, told.send)
    returned, _ = host.run("owner", [order_of("after_progress")])
    assert kinds(told.reports) == ["AttemptStarted", "ProgressReported"]
    assert kinds(returned) == ["AttemptStarted", "ProgressReported", "AttemptFailed"]
    assert returned[0] == told.reports[0]
    assert _said(returned[1]) == _said(told.reports[1]), "it may be overtaken: it comes again"


def test_a_start_that_was_not_told_comes_once(tmp_path: Path, told: Told) -> None:
    host = TaskHost(runner_of(tmp_path, told), UNHURRIED, told.send)
    returned, _ = host.run("owner", [order_of("at_once", task) for task in (0, 1)])
    assert told.reports == []
    assert kinds(returned) == ["AttemptStarted", "AttemptFailed"] * 2


def test_a_start_comes_with_an_outcome_that_is_asked_for_later(tmp_path: Path, told: Told) -> None:
    host = TaskHost(runner_of(tmp_path, told), UNHURRIED, told.send)
    first, second = order_of("at_once"), order_of("after_progress", 1)
    returned, _ = host.run("owner", [first, second])
    told_of_second = [each for each in returned if each.attempt_id == second.id]
    assert host.settled([second.id]) == told_of_second
    running, ended = host.census("exec-1", 2, "successor")
    assert running == []
    expected = ["AttemptStarted", "AttemptFailed", "AttemptStarted", "ProgressReported"]
    assert kinds(ended) == [*expected, "AttemptFailed"]


async def test_a_start_that_was_told_comes_again_with_the_outcome_of_an_async_action(
    tmp_path: Path, told: Told
) -> None:
    host = SharedTaskHost(runner_of(tmp_path, told), TaskHostLimits(), told.send)
    order = order_of("after_the_start_was_told")
    returned, _ = await host.run("owner", [order])
    assert kinds(told.reports)[:1] == ["AttemptStarted"]
    every = [*told.reports, *returned]
    assert kinds(every) == ["AttemptStarted", "AttemptStarted", "AttemptFailed"]
    assert kinds(await host.settled([order.id])) == ["AttemptStarted", "AttemptFailed"]
