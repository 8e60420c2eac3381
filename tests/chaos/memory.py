"""How much memory each process has while the store is away: `python -m tests.chaos.memory`.

Keeps a service busy in each way that could pile something up: chains of short tasks, tasks that
report progress all the time, clients that start executions, soon give up and at once send again,
subscribers by SSE and WebSocket. Then the store stands still for a minute. Each process's memory
(PSS) is taken before, in the course of it, and after. It fails if a process has grown by more than
`--most` MB, if nobody noticed, or if an execution has failed or does not go on.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import httpx
import psutil
from websockets.exceptions import WebSocketException

from harmonia_serve.cli.installation.processes import memory_bytes
from tests.chaos.chains import begins, cancel, running_chains
from tests.chaos.faults import Faults
from tests.chaos.run import SETTINGS
from tests.support.ray_environment import prepare_ray_environment
from tests.support.running import RunningService, running_service, until
from tests.support.subscribing import by_sse, by_websocket

__all__ = ["main"]

_MB = 1_000_000
_SAMPLE_S = 5.0
#: As many tasks of each started execution, with inputs and outputs of so many characters.
_TASKS, _CHARS = 5, 10_000
#: Clients wait a little after an answer that they like, and hardly after another or none.
_AFTER_GOOD_S, _AGAIN_S = 0.5, 0.02
#: So soon they give up a request; what it has left in the service may wait for longer.
_PATIENCE_S = 2.0
#: Chains, and tasks that report progress, to which somebody subscribes, in both ways.
_WATCHED = 6


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.memory", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the store is away")
    parser.add_argument("--warm", type=float, default=60.0, help="seconds of work before that")
    parser.add_argument("--chains", type=int, default=16, help="chains of short tasks")
    parser.add_argument("--told", type=int, default=16, help="tasks that report progress")
    parser.add_argument("--clients", type=int, default=32, help="clients that start executions")
    parser.add_argument("--most", type=float, default=50.0, help="MB that a process may grow by")
    given = parser.parse_args(arguments)
    prepare_ray_environment()
    with tempfile.TemporaryDirectory(prefix="harmonia-memory-") as directory:
        return _run(Path(directory), given)


def _run(directory: Path, given: argparse.Namespace) -> int:
    journal, gate = directory / "journal", directory / "gate"
    with (
        running_service(directory / "data", settings=SETTINGS) as service,
        running_chains(service, journal, given.chains) as chains,
        _told(service, gate, given.told) as told,
    ):
        load = _Load(service, [*chains[:_WATCHED], *told[:_WATCHED]])
        with load.going_on(given.clients):
            taken = _take(service, given, load)
        problems = _problems(service, journal, load)
    return _judge(taken, problems, given)


# Load ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _told(service: RunningService, gate: Path, count: int) -> Iterator[list[str]]:
    """Executions whose one task says all the time where it is."""
    task = {"component": "testing", "action": "hold_async", "input": {"path": str(gate)}}
    workflow_id = service.create({"told": task})
    started = [service.start(workflow_id) for _ in range(count)]
    try:
        yield started
    finally:
        cancel(service, started)


@dataclass
class _Load:
    """Clients that start executions and subscribers, and what they were answered."""

    service: RunningService
    watched: Sequence[str]
    answers: Counter[str] = field(default_factory=Counter)
    #: Those of the time without a store.
    answers_away: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def going_on(self, clients: int) -> Iterator[None]:
        text = "x" * _CHARS
        task = {"component": "harmonia", "action": "echo", "input": {"value": "${workflow.input}"}}
        tasks = {f"t{index}": task for index in range(_TASKS)}
        body = {"workflow_id": self.service.create(tasks), "input": {"text": text}}
        work = [partial(self._start, body)] * clients
        work += [partial(self._listen, "SSE", by_sse, i) for i in ("", *self.watched)]
        paths = ("/executions", *(f"/executions/{i}" for i in self.watched))
        work += [partial(self._listen, "WebSocket", by_websocket, path) for path in paths]
        with ThreadPoolExecutor(len(work)) as pool:
            running = [pool.submit(one) for one in work]
            try:
                yield
            finally:
                self._over.set()
        for one in running:
            one.result()

    def counted(self) -> tuple[Counter[str], Counter[str]]:
        """Answers and events until now; others go on counting."""
        with self._lock:
            return self.answers.copy(), self.events.copy()

    def _start(self, body: dict[str, Any]) -> None:
        with self.service.client(self.service.key) as api:
            answer = ""
            while not self._over.wait(_AFTER_GOOD_S if answer == "202" else _AGAIN_S):
                try:
                    sent = api.post("/executions", json=body, timeout=_PATIENCE_S)
                    answer = str(sent.status_code)
                except httpx.TransportError as error:
                    answer = type(error).__name__
                with self._lock:
                    self.answers[answer] += 1

    def _listen(self, kind: str, connect: Callable[..., Any], where: str) -> None:
        """Read a stream, and connect again whenever it ends, until all is over."""
        while not self._over.wait(_AGAIN_S):
            with (
                contextlib.suppress(
                    httpx.TransportError, WebSocketException, OSError, AssertionError
                ),
                connect(self.service, where) as events,
            ):
                for _ in events:
                    with self._lock:
                        self.events[kind] += 1
                    if self._over.is_set():
                        return


# Memory ----------------------------------------------------------------------------------------

Sample = dict[psutil.Process, int]


@dataclass
class _Taken:
    """Memory in bytes of each process at each look."""

    before: list[Sample] = field(default_factory=list)
    away: list[Sample] = field(default_factory=list)
    after: list[Sample] = field(default_factory=list)
    names: dict[psutil.Process, str] = field(default_factory=dict)

    def look(self, service: RunningService) -> Sample:
        found: Sample = {}
        for process in service.processes():
            with contextlib.suppress(psutil.Error, OSError):
                self.names.setdefault(process, _name(process))
                found[process] = memory_bytes(process)
        return found

    def looks(self, service: RunningService, seconds: float, into: list[Sample]) -> None:
        """Look every few seconds, for so long."""
        end_s = time.monotonic() + seconds
        while (begun_s := time.monotonic()) < end_s:
            into.append(self.look(service))
            time.sleep(max(0.0, min(_SAMPLE_S - (time.monotonic() - begun_s), end_s - begun_s)))


def _name(process: psutil.Process) -> str:
    words = process.cmdline()
    if words and words[0].startswith("ray::"):
        return words[0].removeprefix("ray::").partition(":")[0].partition(".")[0]
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1]
    return next(
        (word.rpartition("/")[2] for word in words if "/site-packages/ray" in word), ""
    ) or (process.name())


def _take(service: RunningService, given: argparse.Namespace, load: _Load) -> _Taken:
    taken = _Taken()
    # What is warm has its full size; the last looks count.
    _say(f"{given.warm:g} s of work")
    taken.looks(service, given.warm, [])
    taken.looks(service, 3 * _SAMPLE_S, taken.before)
    answers, events = load.counted()
    _say(f"until then: answers {dict(answers)}, events {dict(events)}")
    assert Faults(service, Random(1), SETTINGS).stop_store(given.seconds)
    # Nothing more comes to what the store itself has.
    taken.before.append(taken.look(service))
    # A look may take a moment; none that counts for the outage comes after it.
    taken.looks(service, given.seconds - _SAMPLE_S, taken.away)
    answers_by_now, events_by_now = load.counted()
    load.answers_away = answers_by_now - answers
    told, heard = dict(load.answers_away), dict(events_by_now - events)
    _say(f"while the store was away: answers {told}, events {heard}")
    until(service.is_ready, 60, "a service that is ready")
    taken.looks(service, given.warm, taken.after)
    return taken


def _problems(service: RunningService, journal: Path, load: _Load) -> list[str]:
    """What is wrong, with the store back for a while."""
    found = []
    away = load.answers_away
    if away["202"] >= sum(away.values()) / 2:
        found.append(f"the store was away, and nobody noticed: {dict(away)}")
    failed = service.api.get("/executions", params={"status": "failed", "limit": 1}).json()["total"]
    if failed:
        found.append(f"{failed} executions have failed")
    now_s = time.time()
    still = [i for i, times in begins(journal).items() if now_s - max(times) > _SAMPLE_S]
    return found + [f"{execution_id} does not go on" for execution_id in still]


def _judge(taken: _Taken, problems: list[str], given: argparse.Namespace) -> int:
    rows: dict[str, list[_Row]] = defaultdict(list)
    for process in taken.before[-1]:
        row = _row(taken, process)
        rows[taken.names[process]].append(row)
        if row.grown > given.most * _MB:
            name = f"{taken.names[process]} {process.pid}"
            problems.append(f"{name} has grown by {row.grown / _MB:.0f} MB")
    print("processes | number | PSS in MB: before, at most while away, at its end, after | grown")
    for name, found in sorted(rows.items()):
        print(_line(name, found))
    print(_line("all", [row for found in rows.values() for row in found]))
    print(*(problems or ["no process has grown much"]), sep="\n")
    return 1 if problems else 0


@dataclass(frozen=True)
class _Row:
    """A process's memory in bytes; 0 where it was not there."""

    before: int
    most: int
    end: int
    after: int

    @property
    def grown(self) -> int:
        """By how much it had more at its worst."""
        return self.most - self.before


def _row(taken: _Taken, process: psutil.Process) -> _Row:
    before, away, after = (
        [look.get(process, 0) for look in looks]
        for looks in (taken.before, taken.away, taken.after)
    )
    return _Row(max(before), max(away), away[-1], after[-1])


def _line(name: str, rows: Sequence[_Row]) -> str:
    sums = (sum(getattr(row, at) for row in rows) for at in ("before", "most", "end", "after"))
    told = ", ".join(f"{size / _MB:.0f}" for size in sums)
    return f"{name} | {len(rows)} | {told} | {max(row.grown for row in rows) / _MB:+.0f}"


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
