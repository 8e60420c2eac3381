"""Whether executions came out exactly right, and whether the run has proved anything."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.work import Accepted
from tests.support.running import FINAL, RunningService

__all__ = ["Judgement", "judge", "strangers", "wrong_with"]


@dataclass
class Judgement:
    """What was found: `wrong` is what must not be."""

    executions: int = 0
    audited_events: int = 0
    tasks: int = 0
    #: Attempts that the journal shows, and those of them that were begun because one was lost.
    attempts: int = 0
    rerun: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def judge(
    service: RunningService, accepted: Sequence[Accepted], journal: Path, *, patience_s: float
) -> Judgement:
    """Wait until all have ended, and look at each."""
    found = Judgement(executions=len(accepted))
    deadline = time.monotonic() + patience_s
    final = {one: _final(service, one.execution_id, deadline) for one in accepted}
    begun, ended = _read(journal)
    for one, status in final.items():
        if status is None:
            found.wrong.append(f"{one.execution_id} does not end")
            continue
        found.statuses[status["status"]] += 1
        found.wrong += wrong_with(one, status, begun, ended)
        audit = service.api.get(f"/executions/{one.execution_id}/audit").json()
        found.audited_events += audit["events"]
        found.wrong += [f"{one.execution_id}: {v}" for v in audit["violations"]]
    found.wrong += strangers(accepted, begun)
    found.tasks = len({task for task, _ in begun})
    found.attempts = sum(begun.values())
    found.rerun = _rerun(accepted, begun)
    found.wrong += [
        f"attempt {attempt} of {task} began {count} times"
        for (task, attempt), count in begun.items()
        if count > 1
    ]
    return found


def _final(service: RunningService, execution_id: str, deadline: float) -> dict[str, Any] | None:
    while time.monotonic() < deadline:
        try:
            answer = service.api.get(f"/executions/{execution_id}")
        except httpx.TransportError:
            continue
        if answer.status_code == 200 and answer.json()["status"] in FINAL:
            status: dict[str, Any] = answer.json()
            return status
        time.sleep(0.1)
    return None


Attempts = Counter[tuple[str, int]]


def _read(journal: Path) -> tuple[Attempts, Attempts]:
    begun: Attempts = Counter()
    ended: Attempts = Counter()
    for line in journal.read_text().splitlines():
        what, task, attempt, _ = line.split()
        (begun if what == "begin" else ended)[(task, int(attempt))] += 1
    return begun, ended


def wrong_with(
    one: Accepted, status: dict[str, Any], begun: Attempts, ended: Attempts
) -> list[str]:
    """What is wrong with one that has ended."""
    name = one.execution_id
    if status["status"] == "cancelled":
        return [] if one.is_cancelled else [f"{name} is cancelled, which nobody wanted"]
    if status["status"] != "completed":
        return [f"{name} is {status['status']}: {status['error']}"]
    wrong = []
    if status["output"] != one.work.output:
        wrong.append(f"{name} gives {status['output']}, not {one.work.output}")
    for task, state in status["task_status"].items():
        recorded = (f"{name}/{task}", state["attempt"])
        if begun[recorded] != 1 or ended[recorded] != 1:
            wrong.append(
                f"attempt {state['attempt']} of {name}/{task} counts as the one that completed, "
                f"but began {begun[recorded]} times and ended {ended[recorded]} times"
            )
    return wrong


def strangers(accepted: Sequence[Accepted], begun: Attempts) -> list[str]:
    """Executions that have run and that nobody was told of: a request made more than one."""
    known = {one.execution_id for one in accepted}
    ran = {task.partition("/")[0] for task, _ in begun}
    return [f"{name} has run, and is no answer to anybody" for name in sorted(ran - known)]


def _rerun(accepted: Sequence[Accepted], begun: Attempts) -> int:
    """Attempts beyond those that the workflow itself asks for."""
    asked = {
        f"{one.execution_id}/{name}": 1 + task["input"]["fails"]
        for one in accepted
        for name, task in one.work.tasks.items()
    }
    return sum(count for (task, attempt), count in begun.items() if attempt > asked.get(task, 1))
