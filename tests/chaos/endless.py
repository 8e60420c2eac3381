"""Executions whose tasks never end by themselves: only a timeout or somebody's wish ends them.

What is told of an attempt while it runs, and to it, has to arrive for that: no later call makes up
for it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tests.support.running import FINAL, RunningService, until

__all__ = ["Endless", "start_endless", "wrong_with_endless"]

_TIMEOUT_S = 1
_START_S = 60.0
#: So many run in this time, unless their starts were not told.
_RUN_S = 10.0
_TAKEN = (httpx.codes.OK, httpx.codes.CONFLICT)


@dataclass(frozen=True)
class Endless:
    """An execution that has been accepted, and how it must end."""

    execution_id: str
    end: str


def start_endless(service: RunningService, nowhere: Path, count: int) -> list[Endless]:
    """So many of each: `def` and `async def`, to be ended by a timeout and by a cancellation.

    `nowhere` is a file that nobody makes. One after the other, so that each start is told alone.
    """
    found = []
    for action in ("wait_for_file_async", "wait_for_file"):
        for more, end in (({"timeout": _TIMEOUT_S}, "failed"), ({}, "cancelled")):
            task = {"component": "testing", "action": action, "input": {"path": str(nowhere)}}
            workflow_id = service.create({"t": task | more})
            started = [
                until(partial(_start, service, workflow_id), _START_S, "an endless one")
                for _ in range(count)
            ]
            if end == "cancelled":
                _cancel(service, started)
            found += [Endless(execution_id, end) for execution_id in started]
    return found


def wrong_with_endless(
    service: RunningService, endless: Sequence[Endless], *, patience_s: float
) -> list[str]:
    """Wait until all have ended, each in its way."""
    deadline = time.monotonic() + patience_s
    wrong = []
    for one in endless:
        while (status := service.status(one.execution_id))["status"] not in FINAL:
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        error = status["error"] or {}
        if status["status"] != one.end:
            wrong.append(
                f"{one.execution_id} is {status['status']} and not {one.end}: {error}; "
                f"its task is {status['task_status']['t']}"
            )
        elif one.end == "failed" and "timeout" not in str(error).lower():
            wrong.append(f"{one.execution_id} has failed for another reason: {error}")
        audit = service.api.get(f"/executions/{one.execution_id}/audit").json()
        wrong += [f"{one.execution_id}: {violation}" for violation in audit["violations"]]
    return wrong


def _start(service: RunningService, workflow_id: str) -> Any:
    body = {"workflow_id": workflow_id, "input": {}}
    answer = service.api.post("/executions", json=body)
    return answer.status_code == httpx.codes.ACCEPTED and answer.json()["execution_id"]


def _cancel(service: RunningService, execution_ids: Sequence[str]) -> None:
    """Cancel them once they run; where that was not told, all the same."""
    with contextlib.suppress(AssertionError):
        until(lambda: all(_runs(service, each) for each in execution_ids), _RUN_S, "all running")
    for execution_id in execution_ids:
        path = f"/executions/{execution_id}/cancel"
        until(
            lambda path=path: service.api.post(path).status_code in _TAKEN, _START_S, "cancellation"
        )


def _runs(service: RunningService, execution_id: str) -> bool:
    return bool(service.status(execution_id)["task_status"]["t"]["status"] == "running")
