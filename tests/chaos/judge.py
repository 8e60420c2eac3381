"""Whether executions came out exactly right, and whether the run has proved anything."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.work import Accepted
from tests.support.running import FINAL, RunningService

__all__ = ["TAKEN_IN_S", "Journal", "Judgement", "judge", "rerun", "strangers", "wrong_with"]

#: By when an acknowledged cancel has been taken in, in seconds, whatever goes wrong: the longest
#: outage of the store, then an owner's lease and a look into the inbox, and as much again to spare.
#: What takes longer, because all of Ray starts anew, ends all that runs as well.
TAKEN_IN_S = 90.0


@dataclass
class Judgement:
    """What was found: `wrong` is what must not be."""

    executions: int = 0
    audited_events: int = 0
    tasks: int = 0
    #: Attempts that the journal shows, and those of them that were begun because one was lost.
    attempts: int = 0
    rerun: int = 0
    #: Cancels that were answered with 200.
    cancels: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@dataclass
class Journal:
    """What attempts have written down, in the order in which they did."""

    #: How often each attempt of a task began and ended.
    begun: Counter[tuple[str, int]] = field(default_factory=Counter)
    ended: Counter[tuple[str, int]] = field(default_factory=Counter)
    #: The line at which any attempt of a task first began, or ended, and where each one ended.
    first_begun: dict[str, int] = field(default_factory=dict)
    first_ended: dict[str, int] = field(default_factory=dict)
    ended_at: dict[tuple[str, int], int] = field(default_factory=dict)
    #: The highest attempt of each task that has begun.
    highest: dict[str, int] = field(default_factory=dict)
    #: When anything was written last, by execution.
    last_s: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: Iterable[str]) -> Journal:
        """What these lines say."""
        found = cls()
        for place, line in enumerate(lines):
            what, task, attempt, at_s = line.split()
            found._take(place, task, int(attempt), begins=what == "begin")
            found.last_s[task.partition("/")[0]] = float(at_s)
        return found

    def _take(self, place: int, task: str, attempt: int, *, begins: bool) -> None:
        if begins:
            self.begun[(task, attempt)] += 1
            self.first_begun.setdefault(task, place)
            self.highest[task] = max(attempt, self.highest.get(task, 0))
        else:
            self.ended[(task, attempt)] += 1
            self.first_ended.setdefault(task, place)
            self.ended_at.setdefault((task, attempt), place)


def judge(
    service: RunningService, accepted: Sequence[Accepted], journal: Path, *, patience_s: float
) -> Judgement:
    """Wait until all have ended, and look at each."""
    found = Judgement(executions=len(accepted))
    deadline = time.monotonic() + patience_s
    final = {one: _final(service, one.execution_id, deadline) for one in accepted}
    ran = Journal.of(journal.read_text().splitlines())
    found.cancels = sum(one.acknowledged_s is not None for one in accepted)
    for one, status in final.items():
        if status is None:
            found.wrong.append(f"{one.execution_id} does not end")
            continue
        found.statuses[status["status"]] += 1
        found.wrong += wrong_with(one, status, ran)
        audit = service.api.get(f"/executions/{one.execution_id}/audit").json()
        found.audited_events += audit["events"]
        found.wrong += [f"{one.execution_id}: {v}" for v in audit["violations"]]
    found.wrong += strangers(accepted, ran)
    found.tasks = len(ran.highest)
    found.attempts = sum(ran.begun.values())
    found.rerun = rerun(accepted, ran)
    found.wrong += [
        f"attempt {attempt} of {task} began {count} times"
        for (task, attempt), count in ran.begun.items()
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


def wrong_with(one: Accepted, status: dict[str, Any], ran: Journal) -> list[str]:
    """What is wrong with one that has ended."""
    name, states = one.execution_id, status["task_status"]
    if states.keys() != one.work.tasks.keys():
        return [f"{name} shows tasks {sorted(states)}, not {sorted(one.work.tasks)}"]
    wrong = [*_run_after_the_recorded(name, states, ran), *_begun_early(one, status, ran)]
    if status["status"] == "cancelled":
        if not one.is_cancelled:
            wrong.append(f"{name} is cancelled, which nobody wanted")
    elif status["status"] != "completed":
        wrong.append(f"{name} is {status['status']}: {status['error']}")
    else:
        wrong += _wrong_with_completed(one, status, ran)
    return wrong


def _wrong_with_completed(one: Accepted, status: dict[str, Any], ran: Journal) -> Iterator[str]:
    name = one.execution_id
    if status["output"] != one.work.output:
        yield f"{name} gives {status['output']}, not {one.work.output}"
    for task, state in status["task_status"].items():
        recorded = (f"{name}/{task}", state["attempt"])
        if ran.begun[recorded] != 1 or ran.ended[recorded] != 1:
            yield (
                f"attempt {state['attempt']} of {name}/{task} counts as the one that completed, "
                f"but began {ran.begun[recorded]} times and ended {ran.ended[recorded]} times"
            )
    # Nobody who has taken a cancel in completes the execution. Who decided that before wrote it
    # behind all that ran: of what is acknowledged as late as that, nothing can be said.
    late_s = ran.last_s.get(name, 0.0) - (one.acknowledged_s or float("inf"))
    if late_s > TAKEN_IN_S:
        yield (
            f"{name} is completed, but a cancel was acknowledged, and {late_s:.0f} s later "
            "something of it still ran"
        )


def _run_after_the_recorded(name: str, states: dict[str, Any], ran: Journal) -> Iterator[str]:
    """Only an attempt that did not count is followed by another one."""
    for task, state in states.items():
        # A first attempt that was dropped before it was told of is shown as none.
        recorded, highest = max(1, state["attempt"]), ran.highest.get(f"{name}/{task}", 0)
        if highest > recorded:
            yield (
                f"attempt {highest} of {name}/{task} has begun, "
                f"but attempt {recorded} is the recorded one"
            )


def _begun_early(one: Accepted, status: dict[str, Any], ran: Journal) -> Iterator[str]:
    """Nothing begins before what it depends on has ended, in the attempt that counts.

    Which one counts is only sure if all have completed; else any end will do.
    """
    name, is_completed = one.execution_id, status["status"] == "completed"
    for task, definition in one.work.tasks.items():
        begun = ran.first_begun.get(f"{name}/{task}")
        if begun is None:
            continue
        for parent in definition["depends_on"]:
            whole = f"{name}/{parent}"
            if is_completed:
                # Should there be no such end, that is told by itself.
                ended = ran.ended_at.get((whole, status["task_status"][parent]["attempt"]), begun)
            else:
                ended = ran.first_ended.get(whole, begun + 1)
            if ended > begun:
                yield f"{name}/{task} begins before {whole} has ended"


def strangers(accepted: Sequence[Accepted], ran: Journal) -> list[str]:
    """Executions that have run and that nobody was told of: a request made more than one."""
    known = {one.execution_id for one in accepted}
    return [
        f"{name} has run, and is no answer to anybody" for name in sorted(ran.last_s.keys() - known)
    ]


def rerun(accepted: Sequence[Accepted], ran: Journal) -> int:
    """Begins beyond those that the workflow itself asks for.

    A number that was given out and never began is no run: whoever gave it out may have died.
    """
    begins: Counter[str] = Counter()
    for (task, _), count in ran.begun.items():
        begins[task] += count
    asked = {
        f"{one.execution_id}/{name}": 1 + task["input"]["fails"]
        for one in accepted
        for name, task in one.work.tasks.items()
    }
    return sum(max(0, count - asked.get(task, 1)) for task, count in begins.items())
