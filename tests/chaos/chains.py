"""Executions that are under way for as long as it takes: long chains of short tasks.

They write down when each task begins, so that the journal shows when an execution stood still.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.support.running import RunningService, until

__all__ = ["begins", "cancel", "running_chains"]

_TASKS = 5_000
_TASK_S = 0.05
#: An execution that has begun so many tasks is well under way.
_UNDER_WAY = 40


@contextlib.contextmanager
def running_chains(
    service: RunningService, journal: Path, count: int, tasks: int = _TASKS
) -> Iterator[list[str]]:
    """So many executions of so many tasks under way, by their ids; cancelled in the end."""
    journal.touch()
    workflow_id = _chain(service, journal, tasks)
    running = [service.start(workflow_id) for _ in range(count)]
    until(lambda: _under_way(journal) == count, 60, "all chains under way")
    try:
        yield running
    finally:
        cancel(service, running)


def begins(journal: Path) -> dict[str, list[float]]:
    """When tasks of each execution began."""
    found: dict[str, list[float]] = {}
    for line in journal.read_text().splitlines():
        what, task, _, at_s = line.split()
        if what == "begin":
            found.setdefault(task.partition("/")[0], []).append(float(at_s))
    return found


def cancel(service: RunningService, execution_ids: Sequence[str]) -> None:
    """Cancel, however often a connection breaks that was kept for too long."""
    for execution_id in execution_ids:
        cancelled = False
        while not cancelled:
            with contextlib.suppress(httpx.TransportError):
                answer = service.api.post(f"/executions/{execution_id}/cancel")
                cancelled = answer.status_code in (httpx.codes.OK, httpx.codes.CONFLICT)


def _chain(service: RunningService, journal: Path, count: int) -> str:
    tasks: dict[str, Any] = {}
    for index in range(count):
        tasks[f"t{index}"] = {
            "component": "testing",
            "action": "record_async",
            "depends_on": [f"t{index - 1}"] if index else [],
            "input": {"path": str(journal), "number": 1, "given": [], "seconds": _TASK_S},
        }
    return service.create(tasks)


def _under_way(journal: Path) -> int:
    return sum(len(times) >= _UNDER_WAY for times in begins(journal).values())
