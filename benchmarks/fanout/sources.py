"""The two that send: Harmonia as its users have it, and the floor. Both are asked the same way."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp
import httpx
import psutil

from benchmarks.fanout.cases import BEFORE, FanOut
from benchmarks.fanout.floor import HISTORY
from benchmarks.fanout.surface import execution_name
from benchmarks.systems.harmonia import Harmonia
from benchmarks.systems.store import free_port
from harmonia_serve.cli.installation.processes import marked
from harmonia_serve.cli.installation.records import read_running

__all__ = ["Floor", "Prepared", "Service", "Source", "Surface", "TurnedDown"]

_AT_ONCE = 64
_READY_S = 30.0
_CASE_S = 300.0
_LOOK_S = 0.1
#: An emitter reports less often than this, so that none of its reports is merged with the next.
_PER_EMITTER_S = 10.0
#: Nothing about the speed of streams: reports are to come one by one, and streams by the thousand.
_SETTINGS = {"HARMONIA_PROGRESS_INTERVAL_MS": "0", "HARMONIA_ASYNC_ATTEMPTS_MAX": "4000"}
_ANY_KEY = {"X-API-Key": "hk_" + "0" * 32}
#: What a stalled reader asks for: more than all buffers on its way hold.
_HISTORY_TASKS, _HISTORY_BYTES = 400, 60_000


class TurnedDown(Exception):
    """The service did not do what it was asked; the text says what."""


@dataclass(frozen=True)
class Prepared:
    """Where to subscribe for a case: the execution, the kind and the path of each stream."""

    host: str
    port: int
    headers: Mapping[str, str]
    streams: Sequence[tuple[str, str, str]]
    #: Kinds and paths of those that will stall.
    stalled: Sequence[tuple[str, str]]


class Source(Protocol):
    """Somebody who sends events."""

    name: str

    def start(self) -> dict[str, Any]:
        """Start it; what is worth knowing of it."""

    def prepare(self, case: FanOut) -> Prepared:
        """Have all there but the events."""

    def begin(self) -> None:
        """Let the events come; returns at once, or when all have been published."""

    def published(self) -> Mapping[str, Sequence[float]]:
        """When each event was: microseconds since the epoch by execution, from seq 1 on."""

    def processes(self) -> Mapping[str, Sequence[psutil.Process]]:
        """Its processes, by their part in it."""

    def stop(self) -> None:
        """End all that was started."""


class Service:
    """Harmonia, with executions that report progress once a gate is opened."""

    name = "harmonia"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._system = Harmonia("always", _SETTINGS)
        self._gate = directory
        self._cursor = "0"
        self._history = ""

    def start(self) -> dict[str, Any]:
        facts = self._system.start()
        self._http = httpx.Client(headers=self._system.headers, timeout=60, trust_env=False)
        return facts

    def stop(self) -> None:
        self._system.stop()

    def prepare(self, case: FanOut) -> Prepared:
        self._gate = self._directory / f"gate-{uuid.uuid4().hex}"
        workflow_id = self._create(_burst(case) if not case.per_s else _emitters(case))
        names = asyncio.run(self._start_all(workflow_id, case))
        kinds = ("websocket", "sse")
        streams = [
            (names[number % len(names)], kinds[number % 2]) for number in range(case.subscribers)
        ]
        if case.stalled and not self._history:
            self._history = self._make_history()
        host, port = urlsplit(self._system.url).hostname, urlsplit(self._system.url).port
        assert host is not None
        assert port is not None
        stalled = [(kinds[number % 2], self._history) for number in range(case.stalled)]
        self._cursor = self._end_of_log()
        return Prepared(
            host,
            port,
            self._system.headers,
            [(name, kind, _path(kind, name)) for name, kind in streams],
            [(kind, _path(kind, name)) for kind, name in stalled],
        )

    def begin(self) -> None:
        self._gate.touch()

    def published(self) -> Mapping[str, Sequence[float]]:
        """By the store's clock, which each commit's cursor in the log of the installation has."""
        found: dict[str, list[float]] = {}
        for at_ms, event in self._log(self._cursor):
            found.setdefault(event["execution_id"], []).append(at_ms * 1_000.0)
        for name, times in found.items():
            times[:0] = [BEFORE] * self._before.get(name, 0)
        return found

    def processes(self) -> Mapping[str, Sequence[psutil.Process]]:
        found: dict[str, list[psutil.Process]] = {}
        running = read_running(self._system.data_dir)
        if running is not None:
            found["store"] = [psutil.Process(running.store_pid)]
        for process in marked(self._system.data_dir):
            try:
                title = process.cmdline()[0] if process.cmdline() else process.name()
            except psutil.Error:
                continue
            found.setdefault(_part(title, process), []).append(process)
        return found

    # -------------------------------------------------------------------------------------------

    def _create(self, tasks: dict[str, Any]) -> str:
        body = {"name": "events", "tasks": tasks, "output": {}}
        answer = self._http.post(f"{self._system.url}/workflows", json=body)
        if answer.status_code != 201:
            raise TurnedDown(answer.text[:500])
        return str(answer.json()["workflow_id"])

    async def _start_all(self, workflow_id: str, case: FanOut) -> list[str]:
        gate = asyncio.Semaphore(_AT_ONCE)
        spread_s = 1 / case.per_s if case.per_s else 0.0
        async with aiohttp.ClientSession(headers=self._system.headers) as http:

            async def one(number: int) -> str:
                given = {"gate": str(self._gate), "after_s": spread_s * number / case.executions}
                body = {"workflow_id": workflow_id, "input": given}
                async with gate, http.post(f"{self._system.url}/executions", json=body) as answer:
                    if answer.status != 202:
                        raise TurnedDown((await answer.text())[:500])
                    return str((await answer.json())["execution_id"])

            return await asyncio.gather(*(one(number) for number in range(case.executions)))

    def _make_history(self) -> str:
        tasks = {
            f"t{number}": _task(f"t{number}", "payload", {"amount": _HISTORY_BYTES})
            for number in range(_HISTORY_TASKS)
        }
        body = {"workflow_id": self._create(tasks), "execution_options": {"async": False}}
        answer = self._http.post(f"{self._system.url}/executions", json=body)
        if answer.status_code != 200:
            raise TurnedDown(answer.text[:500])
        return str(answer.json()["execution_id"])

    def _end_of_log(self) -> str:
        """Where the log is once the executions have begun, and how far each has come."""
        self._before: dict[str, int] = {}
        cursor = self._cursor
        quiet_s = time.monotonic()
        while time.monotonic() - quiet_s < 1.0:
            for _, event in self._log(cursor):
                cursor = event["cursor"]
                self._before[event["execution_id"]] = event["seq"]
                quiet_s = time.monotonic()
            time.sleep(_LOOK_S)
        return cursor

    def _log(self, after: str) -> list[tuple[int, dict[str, Any]]]:
        root = self._system.url.removesuffix("/api/harmonia")
        query = {"after": after, "follow": "false"}
        found = []
        url = f"{root}/events/harmonia/executions"
        with self._http.stream("GET", url, params=query) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    if event["execution_id"]:
                        found.append((int(event["cursor"].partition("-")[0]), event))
        return found


def _emitters(case: FanOut) -> dict[str, Any]:
    """As many tasks as it takes to report at this rate, in turns."""
    count = max(1, round(case.per_s / _PER_EMITTER_S))
    each_s = case.per_s / count
    tasks = {}
    for number in range(count):
        given: dict[str, Any] = {
            "gate": "${workflow.input.gate}",
            "per_s": each_s,
            "count": round(case.events / count),
            "after_s": number / case.per_s if count > 1 else "${workflow.input.after_s}",
            "size": case.size,
        }
        tasks[f"emit-{number}"] = _task(f"emit-{number}", "emit", given)
    return tasks


def _burst(case: FanOut) -> dict[str, Any]:
    """Tasks that all may begin at once: each has two events."""
    given = {"gate": "${workflow.input.gate}", "per_s": 1, "count": 0}
    tasks = {"gate": _task("gate", "emit", given)}
    for number in range(case.events // 2):
        name = f"t{number}"
        tasks[name] = _task(name, "noop", {}) | {"depends_on": ["gate"]}
    return tasks


def _task(name: str, action: str, given: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "component": "bench", "action": action, "input": given}


def _path(kind: str, name: str) -> str:
    return f"/{'ws' if kind == 'websocket' else 'events'}/harmonia/executions/{name}"


def _part(title: str, process: psutil.Process) -> str:
    """Which part of Harmonia a process is, by the title that Ray gives it or by its program."""
    for sign, part in (
        ("ServeReplica:harmonia-websocket", "websocket"),
        ("ServeReplica:harmonia-events", "sse"),
        ("ExecutionActor", "execution"),
        ("TaskActor", "tasks"),
        ("Broadcaster", "broadcaster"),
        ("haproxy", "proxy"),
    ):
        if sign in title or sign in process.name():
            return part
    return "rest"


class _Bare(ABC):
    """A single process that is told over HTTP when to begin; a new one for each case."""

    name = ""
    module = ""

    def __init__(self) -> None:
        self._case: FanOut | None = None
        self._times: list[list[float]] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> dict[str, Any]:
        self._port = free_port()
        command = [sys.executable, "-m", self.module, str(self._port)]
        self._process = subprocess.Popen(command)
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            try:
                self._ask("ready", {}, 1)
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return {}
        raise TurnedDown(f"{self.name} does not answer")

    def stop(self) -> None:
        if self._process is not None:
            # It has nothing to lose, and would wait for its clients.
            self._process.kill()
            self._process.wait()

    def prepare(self, case: FanOut) -> Prepared:
        # What a former case has left is not to be sent.
        self.stop()
        self.start()
        self._case = case
        self._ask("prepare", {"topics": case.executions}, _READY_S)
        kinds = ("websocket", "sse")
        streams = [
            (str(number % case.executions), kinds[number % 2]) for number in range(case.subscribers)
        ]
        stalled = [kinds[number % 2] for number in range(case.stalled)]
        return Prepared(
            "127.0.0.1",
            self._port,
            _ANY_KEY,
            [(name, kind, self._path(kind, name)) for name, kind in streams],
            [(kind, self._path(kind, HISTORY)) for kind in stalled],
        )

    def begin(self) -> None:
        case = self._case
        assert case is not None
        order = {
            "topics": case.executions,
            "count": case.events + 1,
            "per_s": case.per_s,
            "size": case.size,
            "spread_s": 1 / case.per_s if case.per_s else 0.0,
        }
        self._times = self._ask("begin", order, _CASE_S).json()

    def published(self) -> Mapping[str, Sequence[float]]:
        return {str(number): times for number, times in enumerate(self._times)}

    def processes(self) -> Mapping[str, Sequence[psutil.Process]]:
        assert self._process is not None
        return {"server": [psutil.Process(self._process.pid)]}

    @abstractmethod
    def _path(self, kind: str, name: str) -> str:
        """Where a stream is."""

    def _ask(self, what: str, order: dict[str, Any], timeout_s: float) -> httpx.Response:
        url = f"http://127.0.0.1:{self._port}/{what}"
        return httpx.post(url, json=order, timeout=timeout_s, trust_env=False)


class Floor(_Bare):
    """The bare server."""

    name = "floor"
    module = "benchmarks.fanout.floor"

    def _path(self, kind: str, name: str) -> str:
        return f"/{kind}/{name}"


class Surface(_Bare):
    """Harmonia's streams alone."""

    name = "surface"
    module = "benchmarks.fanout.surface"

    def _path(self, kind: str, name: str) -> str:
        return _path(kind, execution_name(name))
