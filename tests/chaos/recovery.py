"""How long each fault holds up what runs: `python -m tests.chaos.recovery`.

Keeps long chains of short tasks going, lets one fault land after the other, and takes from the
tasks' own journal how long it took until the first and the last of the executions that it held up
went on. Beside it, a request is sent twenty times a second, to see for how long clients were turned
away. The README's table is made of what this prints.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import median
from typing import NamedTuple

import httpx

from tests.chaos.chains import begins, cancel, running_chains
from tests.chaos.faults import HEAVY, LIGHT, Faults
from tests.chaos.nodes import NODES, NodeFaults, service_on_nodes
from tests.chaos.run import SETTINGS
from tests.support.ray_environment import prepare_ray_environment
from tests.support.running import RunningService, running_service, until

__all__ = ["main"]

#: What is noticed late shows within this time, and who starts no task for so long stands still.
_NOTICED_S = 5.0
_GOES_ON_S = 0.5
#: Whoever pauses for so many times as long as half of all was held up; that half was not.
_STANDS_OUT = 3.0
_ASKED_EVERY_S = 0.05
_LONGEST_S = 240.0
_WAITING = 1_000
#: So long after the service is ready, at most, all of them run again.
_ALL_AGAIN_S = 30.0


class _Measured(NamedTuple):
    """After one fault, in seconds."""

    first_goes_on: float
    last_goes_on: float
    turned_away: float


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.recovery", description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="how often each fault lands")
    parser.add_argument("--heavy", type=int, default=3, help="the same for those that end all Ray")
    parser.add_argument("--chains", type=int, default=16, help="executions that are under way")
    parser.add_argument("--tasks", type=int, default=5_000, help="of each, to outlast all")
    parser.add_argument("--only", nargs="*", help="kinds of faults; none: only the cold restart")
    given = parser.parse_args(arguments)
    prepare_ray_environment()
    with tempfile.TemporaryDirectory(prefix="harmonia-recovery-") as directory:
        _measure(Path(directory), given)
    return 0


def _measure(directory: Path, given: argparse.Namespace) -> None:
    every = [*NODES, *LIGHT, *HEAVY]
    kinds = every if given.only is None else given.only
    if kinds:
        print(
            "fault | first goes on, s: median, worst | last, s: same | clients turned away, s: same"
        )
    of_nodes = [kind for kind in kinds if kind in NODES]
    for kind in of_nodes:
        _measure_nodes(kind, directory, given)
    kinds = [kind for kind in kinds if kind not in NODES]
    if of_nodes and not kinds:
        return
    with running_service(directory / "data", settings=SETTINGS) as service:
        faults = Faults(service, Random(1), SETTINGS)
        for kind in kinds:
            _measure_kind(faults, kind, directory, given)
        _measure_cold_restart(faults, directory / "waiting")


def _measure_kind(faults: Faults, kind: str, directory: Path, given: argparse.Namespace) -> None:
    times = given.heavy if kind in HEAVY else given.times
    # Others each time: one that was aboard at many deaths is held under suspicion for longer.
    journals = [directory / f"{kind} {number}" for number in range(times)]
    _tell(kind, [_measure_once(faults, kind, journal, given) for journal in journals])


def _measure_nodes(kind: str, directory: Path, given: argparse.Namespace) -> None:
    """Each time with a cluster of its own: where its parts are is another draw."""
    measured = []
    for number in range(given.heavy):
        with service_on_nodes(directory / f"{kind} {number}") as faults:
            journal = directory / f"{kind} {number}" / "journal"
            measured.append(_measure_once(faults, kind, journal, given))
    _tell(kind, measured)


def _tell(kind: str, measured: Sequence[_Measured]) -> None:
    for each in measured:
        print("  " + ", ".join(f"{seconds:.2f}" for seconds in each), flush=True)
    columns = [f"{median(times):.2f}, {max(times):.2f}" for times in zip(*measured, strict=True)]
    print(" | ".join([kind, *columns]), flush=True)


def _measure_once(
    faults: Faults | NodeFaults, kind: str, journal: Path, given: argparse.Namespace
) -> _Measured:
    """How long executions were held up, and clients turned away."""
    chains = running_chains(faults.service, journal, given.chains, given.tasks)
    with chains, _Asker(faults.service) as asker:
        until(lambda: faults.land(kind), 60, f"something that '{kind}' can hit")
        until(
            lambda: _all_go_on(journal, faults.landed_s),
            _LONGEST_S,
            f"every execution going on after '{kind}'",
        )
        until(faults.service.is_ready, _LONGEST_S, "a service that is ready")
        pauses_s = _pauses_s(journal, faults.landed_s)
    return _Measured(_shortest_standstill_s(pauses_s), max(pauses_s), asker.refused_s)


def _all_go_on(journal: Path, landed_s: float) -> bool:
    """Whether all executions go on, and have had the time to notice that something has happened."""
    now_s = time.time()
    lasts = [max(times) for times in begins(journal).values()]
    return now_s - landed_s > _NOTICED_S and all(now_s - last_s < _GOES_ON_S for last_s in lasts)


def _pauses_s(journal: Path, landed_s: float) -> list[float]:
    """The longest time between two starts of tasks since the fault, of each execution."""
    return [
        max(
            after - max(before, landed_s)
            for before, after in pairwise(sorted(times))
            if after > landed_s
        )
        for times in begins(journal).values()
    ]


def _shortest_standstill_s(pauses_s: Sequence[float]) -> float:
    """How soon the first went on of those that stood still; all did, if none did for much longer.

    A fault that hits few leaves the pauses of all others as short as ever.
    """
    long_s = _STANDS_OUT * median(pauses_s)
    return min([pause_s for pause_s in pauses_s if pause_s > long_s] or pauses_s)


class _Asker:
    """A client that asks all the time, and how long nobody answered it at most."""

    def __init__(self, service: RunningService) -> None:
        self._service = service
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.refused_s = 0.0

    def __enter__(self) -> _Asker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        answered_s = time.monotonic()
        with self._service.client(self._service.key) as api:
            while not self._over.wait(_ASKED_EVERY_S):
                asked_s = time.monotonic()
                try:
                    good = api.get("/workflows", params={"limit": 1}).status_code == 200
                except httpx.TransportError:
                    good = False
                if not good:
                    continue
                # An answer that took long was waited for; between two good ones, only the pause.
                self.refused_s = max(self.refused_s, time.monotonic() - answered_s)
                answered_s = max(asked_s, time.monotonic())


def _measure_cold_restart(faults: Faults, journal: Path) -> None:
    """A thousand executions are in flight when everything dies; `harmonia up`."""
    service = faults.service
    journal.touch()
    task = {
        "component": "testing",
        "action": "record_async",
        "input": {"path": str(journal), "number": 1, "given": [], "seconds": 3_600},
    }
    workflow_id = service.create({"wait": task})
    started = [service.start(workflow_id) for _ in range(_WAITING)]
    until(lambda: len(begins(journal)) == _WAITING, 120, "all in flight")
    died_s = time.time()
    faults.land("everything killed")
    ready_s = time.time()

    def again() -> list[float]:
        return [times[1] for times in begins(journal).values() if len(times) > 1]

    until(lambda: len(again()) == _WAITING, _ALL_AGAIN_S, "all running again")
    print(
        f"cold restart with {_WAITING} in flight: ready {ready_s - died_s:.1f} s after the death, "
        f"the first runs again {min(again()) - ready_s:.1f} s after that, half "
        f"{median(again()) - ready_s:.1f} s, all {max(again()) - ready_s:.1f} s",
        flush=True,
    )
    cancel(service, started)


if __name__ == "__main__":
    sys.exit(main())
