"""Workflows with side effects, what each of them must come to, and who keeps starting them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx

from tests.support.running import RunningService

__all__ = ["LASTING_S", "LOADS", "USUAL", "Accepted", "Load", "Starter", "Work", "make_work"]

_CANCELLED_SHARE = 0.05
#: Those of them that cannot have completed before the cancel must have been taken in; the others
#: try what happens when both come at once.
_LASTING_SHARE = 0.5
LASTING_S = 120.0
#: How long a request is sent again and again, in seconds: longer than any fault keeps us waiting.
_PATIENCE_S = 180.0


@dataclass(frozen=True)
class Load:
    """How much is started: by so many threads, while fewer executions than `live_max` run."""

    threads: int = 6
    live_max: int = 60
    tasks_max: int = 14
    longest_s: float = 0.8


USUAL = Load()
#: `many` is for thousands of executions in minutes: each has little to do.
LOADS = {"usual": USUAL, "many": Load(threads=10, live_max=120, tasks_max=4, longest_s=0.1)}


@dataclass(frozen=True)
class Work:
    """A workflow, and what its execution must give."""

    tasks: dict[str, Any]
    output: dict[str, int]


@dataclass(frozen=True, eq=False)
class Accepted:
    """An execution that was answered with 202."""

    execution_id: str
    work: Work
    is_cancelled: bool
    #: When its cancel had been answered with 200, by the time of day; None if it was refused.
    acknowledged_s: float | None = None


def make_work(
    random: Random, journal: Path, load: Load = USUAL, *, is_lasting: bool = False
) -> Work:
    """A random graph of tasks that add up what they are given and write down what they do.

    What is lasting has one more task, which nothing waits for and which takes very long.
    """
    parents = _graph(random, load.tasks_max)
    values: list[int] = []
    tasks: dict[str, Any] = {}
    with_files: set[int] = set()
    for index, above in enumerate(parents):
        number = random.randrange(1000)
        values.append(number + sum(values[parent] for parent in above))
        fails = random.choice((0, 0, 0, 0, 0, 1))
        action = random.choice(("record", "record_file", "record_async", "record_async"))
        left = {f"t{parent}": f"${{tasks.t{parent}.output}}" for parent in with_files & {*above}}
        if action == "record_file":
            with_files.add(index)
        tasks[f"t{index}"] = {
            "component": "testing",
            "action": action,
            "depends_on": [f"t{parent}" for parent in above],
            "retry_policy": {"max_retries": fails, "retry_interval": 0.1},
            "input": {
                "path": str(journal),
                "number": number,
                "given": [f"${{tasks.t{parent}.output}}" for parent in above],
                "seconds": round(random.random() ** 2 * load.longest_s, 3),
                "fails": fails,
                **({"files": left} if action == "record_file" else {}),
            },
        }
    if is_lasting:
        number = random.randrange(1000)
        tasks[f"t{len(parents)}"] = _lasting_task(journal, number)
        parents.append([])
        values.append(number)
    inner = {parent for above in parents for parent in above}
    sinks = {f"t{index}": value for index, value in enumerate(values) if index not in inner}
    return Work(tasks, sinks)


def _lasting_task(journal: Path, number: int) -> dict[str, Any]:
    given = {"path": str(journal), "number": number, "given": [], "seconds": LASTING_S, "fails": 0}
    return {"component": "testing", "action": "record_async", "depends_on": [], "input": given}


def _graph(random: Random, tasks_max: int) -> list[list[int]]:
    """For each task those that it depends on: a chain, a fan that is joined, or anything."""
    count = random.randint(3, tasks_max)
    match random.choice(("chain", "fan", "any")):
        case "chain":
            return [[index - 1] if index else [] for index in range(count)]
        case "fan":
            return [[], *([0] for _ in range(count - 2)), list(range(1, count - 1))]
        case _:
            return [
                sorted(random.sample(range(index), random.randint(0, min(index, 3))))
                for index in range(count)
            ]


class Starter:
    """Starts executions all the time, whatever the service answers, until told to stop."""

    def __init__(
        self, service: RunningService, random: Random, journal: Path, *, load: Load, most: int
    ) -> None:
        self._service = service
        self._journal = journal
        self._load = load
        self._most = most
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._numbers = iter(range(most))
        self._pool = ThreadPoolExecutor(load.threads)
        self._seeds = [random.randrange(2**32) for _ in range(load.threads)]
        self.begun_s = 0.0
        self.accepted: list[Accepted] = []
        #: Answers and silences that made a request be sent again.
        self.sent_again = 0

    def __enter__(self) -> Starter:
        self.begun_s = time.monotonic()
        self._running = [self._pool.submit(self._start_all, seed) for seed in self._seeds]
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def goes_on(self) -> bool:
        """There is more to start, and nobody has failed."""
        for one in self._running:
            if one.done():
                one.result()
        return not all(one.done() for one in self._running)

    def stop(self) -> None:
        """Start no more; raises what went wrong."""
        self._over.set()
        self._pool.shutdown()
        for one in self._running:
            one.result()

    def _start_all(self, seed: int) -> None:
        random = Random(seed)
        with self._service.client(self._service.key) as api:
            for number in self._next_numbers():
                self._wait_for_room(api)
                is_cancelled = random.random() < _CANCELLED_SHARE
                is_lasting = is_cancelled and random.random() < _LASTING_SHARE
                work = make_work(random, self._journal, self._load, is_lasting=is_lasting)
                key = f"chaos-{seed}-{number}"
                workflow = {"name": key, "tasks": work.tasks}
                made = self._send(api, "/workflows", workflow, key, 201).json()
                body = {"workflow_id": made["workflow_id"], "input": {}}
                begun = self._send(api, "/executions", body, f"{key}-run", 202).json()
                acknowledged_s = None
                if is_cancelled:
                    self._over.wait(random.random())
                    path = f"/executions/{begun['execution_id']}/cancel"
                    answer = self._send(api, path, {}, f"{key}-cancel", 200, 409)
                    if answer.status_code == httpx.codes.OK:
                        acknowledged_s = time.time()
                one = Accepted(begun["execution_id"], work, is_cancelled, acknowledged_s)
                with self._lock:
                    self.accepted.append(one)

    def _next_numbers(self) -> Iterator[int]:
        while not self._over.is_set():
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                return
            yield number

    def _wait_for_room(self, api: httpx.Client) -> None:
        """What is started faster than it can run proves no more, and takes for ever to end."""
        while not self._over.is_set():
            with contextlib.suppress(httpx.TransportError):
                # While nobody drives them, all that are started wait, and none runs.
                answers = [
                    api.get("/executions", params={"status": status, "limit": 1})
                    for status in ("running", "pending")
                ]
                is_known = all(each.status_code == httpx.codes.OK for each in answers)
                if is_known and sum(a.json()["total"] for a in answers) < self._load.live_max:
                    return
            self._over.wait(0.3)

    def _send(
        self, api: httpx.Client, path: str, body: dict[str, Any], key: str, *expected: int
    ) -> httpx.Response:
        """Send a request until it is answered as it must be in the end; never something else."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            told = "nothing"
            try:
                answer = api.post(path, json=body, headers={"Idempotency-Key": key}, timeout=30)
            except httpx.TransportError as error:
                told = repr(error)
            else:
                if answer.status_code in expected:
                    return answer
                told = f"{answer.status_code} {answer.text[:300]}"
                if answer.status_code not in (429, 500, 502, 503, 504):
                    raise AssertionError(f"POST {path}: {told}")
            assert time.monotonic() < deadline, f"POST {path}: {told}"
            self.sent_again += 1
            time.sleep(0.3)
