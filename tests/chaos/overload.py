"""Ten times more than there is room for: `python -m tests.chaos.overload`, in some minutes.

Sets how many executions may be live, and offers: as many as that; ten times as many, all at once;
and once more ten times as many, sent again as Retry-After says until all are accepted. It fails if
an answer is anything but 202, or 429 with Retry-After; if anything is wrong with an accepted
execution; if hardly anything was refused; or if ten times as much takes the processes more than
`--most` MB beyond what they have for once as much, at their worst or at rest afterwards. The store
is left out of that: it holds what has ended until that expires.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from harmonia_serve.cli.installation.processes import memory_bytes
from harmonia_serve.cli.installation.records import read_running
from tests.chaos.judge import judge
from tests.chaos.work import Accepted, Work
from tests.support.ray_environment import prepare_ray_environment
from tests.support.running import RunningService, running_service, until

__all__ = ["Offered", "Sizes", "main", "problems_of"]

_MB = 1_000_000
_TASKS, _TASK_S = 10, 0.1
_SAMPLE_S = 1.0
_END_S = 900.0
#: So long a process may take to give back what it does not need any more.
_REST_S = 10.0
#: Of ten times too much at once, at least so much is refused; what ends meanwhile makes room.
_REFUSED_SHARE = 0.3


@dataclass
class Offered:
    """What was offered in one go, and what the service said."""

    name: str
    count: int
    accepted: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    refused: set[int] = field(default_factory=set)
    seconds: float = 0.0
    #: Memory of all processes but the store's, at its worst and afterwards; and the store's.
    peak: int = 0
    rest: int = 0
    store: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.overload", description=__doc__)
    parser.add_argument("--capacity", type=int, default=300, help="executions that may be live")
    parser.add_argument("--times", type=int, default=10, help="how many times that is offered")
    parser.add_argument("--most", type=float, default=200.0, help="MB more for ten times as much")
    given = parser.parse_args(arguments)
    prepare_ray_environment()
    with tempfile.TemporaryDirectory(prefix="harmonia-overload-") as directory:
        return _run(Path(directory), given)


def _run(directory: Path, given: argparse.Namespace) -> int:
    journal = directory / "journal"
    journal.touch()
    settings = {
        "HARMONIA_EXECUTIONS_LIVE_MAX": str(given.capacity),
        # It is room that is to be refused, and not haste.
        "HARMONIA_RATE_LIMIT_PER_S": "1000000",
        "HARMONIA_LOG_LEVEL": "WARNING",
    }
    much = given.capacity * given.times
    with running_service(directory / "data", settings=settings) as service:
        tasks = _chain(journal)
        workflow_id = service.create(tasks)
        sizes = Sizes(service)
        with sizes.taken():
            at_first = sizes.now()
            runs = [
                _offer(sizes, Offered("as many as there is room for", given.capacity), workflow_id),
                _offer(sizes, Offered("too many at once", much), workflow_id),
                _offer(sizes, Offered("too many, until accepted", much), workflow_id, patient=True),
            ]
        print(f"before: {at_first[0] / _MB:.0f} MB, and the store {at_first[1] / _MB:.0f} MB")
        print(*map(_line, runs), sep="\n", flush=True)
        work = Work(tasks, {f"t{_TASKS - 1}": _TASKS})
        accepted = [Accepted(one, work, is_cancelled=False) for run in runs for one in run.accepted]
        found = judge(service, accepted, journal, patience_s=_END_S)
    print(
        f"{found.executions} executions ({dict(found.statuses)}), {found.tasks} tasks, "
        f"{found.attempts} attempts; {found.audited_events} events audited"
    )
    problems = found.wrong + problems_of(runs, given.capacity, int(given.most * _MB))
    print(*(problems or ["nothing that was accepted is lost, and memory is bounded"]), sep="\n")
    return 1 if problems else 0


def problems_of(runs: Sequence[Offered], capacity: int, most: int) -> list[str]:
    """What is wrong with the answers and with memory. `most` is in bytes."""
    once, at_once, patient = runs
    found = [
        f"{run.name}: {count} answers were {answer}"
        for run in runs
        for answer, count in run.answers.items()
        if answer not in ("202", "429")
    ]
    found += [
        f"{run.name}: {len(run.accepted)} were accepted of {run.count}"
        for run in (once, patient)
        if len(run.accepted) != run.count
    ]
    # Whoever looks does so beside: what ends him is seen by what he has not found.
    found += [f"{run.name}: nobody has looked at the memory" for run in runs if not run.peak]
    if len(at_once.accepted) < capacity:
        found.append(f"{at_once.name}: fewer were accepted than there is room for")
    for run in (at_once, patient):
        if len(run.refused) < _REFUSED_SHARE * run.count:
            found.append(f"{run.name}: only {len(run.refused)} were refused of {run.count}")
        if run.peak > once.peak + most:
            found.append(f"{run.name}: {(run.peak - once.peak) / _MB:.0f} MB more at its worst")
        if run.rest > once.rest + most:
            found.append(f"{run.name}: {(run.rest - once.rest) / _MB:.0f} MB more afterwards")
    return found


def _chain(journal: Path) -> dict[str, Any]:
    """Short async tasks, one after the other, each of which adds one."""
    return {
        f"t{index}": {
            "component": "testing",
            "action": "record_async",
            "depends_on": [f"t{index - 1}"] if index else [],
            "input": {
                "path": str(journal),
                "number": 1,
                "given": [f"${{tasks.t{index - 1}.output}}"] if index else [],
                "seconds": _TASK_S,
                "fails": 0,
            },
        }
        for index in range(_TASKS)
    }


# Offering ----------------------------------------------------------------------------------------


def _offer(sizes: Sizes, offered: Offered, workflow_id: str, *, patient: bool = False) -> Offered:
    """Offer all at once, and wait until what was accepted has ended."""
    print(f"  {offered.name}: {offered.count} executions", flush=True)
    service = sizes.service
    begun_s = time.monotonic()
    sizes.begin()
    asyncio.run(_offer_all(service, offered, workflow_id, patient=patient))
    until(lambda: _live(service) == 0, _END_S, "the end of all")
    offered.seconds = time.monotonic() - begun_s
    offered.peak = sizes.peak
    offered.rest, offered.store = sizes.at_rest()
    return offered


async def _offer_all(
    service: RunningService, offered: Offered, workflow_id: str, *, patient: bool
) -> None:
    async with aiohttp.ClientSession(
        headers={"X-API-Key": service.key},
        timeout=aiohttp.ClientTimeout(total=None),
        connector=aiohttp.TCPConnector(limit=0),
    ) as http:

        async def one(number: int) -> None:
            again_s = await _send(http, service, offered, workflow_id, number)
            while again_s and patient:
                await asyncio.sleep(again_s)
                again_s = await _send(http, service, offered, workflow_id, number)

        await asyncio.gather(*map(one, range(offered.count)))


async def _send(
    http: aiohttp.ClientSession,
    service: RunningService,
    offered: Offered,
    workflow_id: str,
    number: int,
) -> float:
    """Offer one. Returns after how many seconds it is to be offered again, 0 if not at all."""
    body = {"workflow_id": workflow_id, "input": {}}
    key = {"Idempotency-Key": f"{offered.name} {number}".replace(" ", "-").replace(",", "")}
    url = f"{service.url}/api/harmonia/executions"
    try:
        async with http.post(url, json=body, headers=key) as answer:
            document = await answer.json()
            if answer.status == 202:
                offered.answers["202"] += 1
                offered.accepted.append(document["execution_id"])
                return 0.0
            again_s = answer.headers.get("Retry-After")
            offered.answers[f"{answer.status}{'' if again_s else ' without Retry-After'}"] += 1
            offered.refused.add(number)
            return float(again_s or 0)
    except (aiohttp.ClientError, ValueError) as error:
        offered.answers[f"{type(error).__name__}: {error}"] += 1
        return 1.0


def _live(service: RunningService) -> int:
    totals = [
        service.api.get("/executions", params={"status": status, "limit": 1}).json()["total"]
        for status in ("pending", "running")
    ]
    return sum(totals)


# Memory ------------------------------------------------------------------------------------------


class Sizes:
    """Looks all the time at how much memory the processes have."""

    def __init__(self, service: RunningService) -> None:
        self.service = service
        self.peak = 0
        self._over = threading.Event()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Look until this ends."""
        looking = threading.Thread(target=self._look_for_ever)
        looking.start()
        try:
            yield
        finally:
            self._over.set()
            looking.join()

    def begin(self) -> None:
        """The worst counts from here on."""
        self.peak = 0

    def now(self) -> tuple[int, int]:
        """Bytes of all processes but the store's, and of that."""
        running = read_running(self.service.data_dir)
        store_pid = running.store_pid if running else 0
        others = store = 0
        for process in self.service.processes():
            with contextlib.suppress(psutil.Error, OSError):
                size = memory_bytes(process)
                if process.pid == store_pid:
                    store += size
                else:
                    others += size
        return others, store

    def at_rest(self) -> tuple[int, int]:
        """The least of some seconds, in which nothing happens."""
        least = self.now()
        end_s = time.monotonic() + _REST_S
        while time.monotonic() < end_s:
            time.sleep(_SAMPLE_S)
            least = min(least, self.now())
        return least

    def _look_for_ever(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            self.peak = max(self.peak, self.now()[0])


def _line(run: Offered) -> str:
    return (
        f"{run.name}: {run.count} offered, {len(run.accepted)} accepted, answers "
        f"{dict(sorted(run.answers.items()))}, {run.seconds:.0f} s\n"
        f"  {run.peak / _MB:.0f} MB at its worst, {run.rest / _MB:.0f} MB afterwards; "
        f"the store {run.store / _MB:.0f} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
