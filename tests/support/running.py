"""The real service as a process of its own, and what tests do with it over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from harmonia_serve.cli.installation.processes import marked
from harmonia_serve.cli.installation.records import read_running

__all__ = [
    "FINAL",
    "ROOT",
    "RunningService",
    "free_port",
    "running_service",
    "start_up",
    "until",
    "wait_ready",
]

ROOT = Path(__file__).parents[2]
FINAL = ("completed", "failed", "cancelled")
_BOOT_S = 240.0
_END_S = 60.0
#: Streams look at their key with each sign of life: often, so that tests need not wait for it. All
#: that can be logged is logged, so that secrets are looked for in all of it.
_ENVIRONMENT = {
    "HARMONIA_STREAM_HEARTBEAT_S": "2",
    "HARMONIA_STREAM_KEY_CHECK_S": "2",
    "HARMONIA_LOG_LEVEL": "DEBUG",
}
_NO_SETTINGS: Mapping[str, str] = {}


def until(
    condition: Callable[[], Any], timeout_s: float = 30.0, what: str = "the condition"
) -> Any:
    """Wait until a condition holds, with a deadline; its value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about in {timeout_s:g} s"
        time.sleep(0.05)
    return value


@dataclass
class RunningService:
    """Where the service is, and short ways to do what most tests do."""

    url: str
    key: str
    data_dir: Path
    process: subprocess.Popen[str]
    api: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.api = self.client(self.key)

    def client(self, key: str | None) -> httpx.Client:
        """A client of the REST API with this key."""
        headers = {"X-API-Key": key} if key else {}
        return httpx.Client(
            base_url=f"{self.url}/api/harmonia", headers=headers, timeout=90, trust_env=False
        )

    def is_ready(self) -> bool:
        """Whether it says that it can serve."""
        try:
            return httpx.get(f"{self.url}/ready", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def create(self, tasks: dict[str, Any], **more: Any) -> str:
        """Create a workflow and return its id."""
        answer = self.api.post("/workflows", json={"name": "test", "tasks": tasks, **more})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["workflow_id"])

    def start(self, workflow_id: str, values: dict[str, Any] | None = None, **options: Any) -> str:
        """Start an execution and return its id."""
        body = {"workflow_id": workflow_id, "input": values or {}, "execution_options": options}
        answer = self.api.post("/executions", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["execution_id"])

    def status(self, execution_id: str) -> dict[str, Any]:
        """The status document."""
        answer = self.api.get(f"/executions/{execution_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def finish(self, execution_id: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait for the end; the last status."""
        found: dict[str, Any] = until(
            lambda: (s := self.status(execution_id))["status"] in FINAL and s,
            timeout_s,
            f"the end of {execution_id}",
        )
        return found

    def run(
        self, tasks: dict[str, Any], values: dict[str, Any] | None = None, **more: Any
    ) -> dict[str, Any]:
        """Create, start, wait: the last status."""
        options = more.pop("options", {})
        return self.finish(self.start(self.create(tasks, **more), values, **options))

    def wait_running(self, execution_id: str, *tasks: str) -> dict[str, Any]:
        """Wait until these tasks run; the status."""

        def running() -> Any:
            found = self.status(execution_id)
            states = found["task_status"]
            return all(states[name]["status"] == "running" for name in tasks) and found

        return until(running, 60, f"{', '.join(tasks)} running")  # type: ignore[no-any-return]

    def events(self, execution_id: str, after: int = 0) -> list[dict[str, Any]]:
        """All events, by SSE, until the execution ends: {id, event, data}."""
        url = f"{self.url}/events/harmonia/executions/{execution_id}?after={after}"
        with httpx.stream(
            "GET", url, headers={"X-API-Key": self.key}, timeout=90, trust_env=False
        ) as answer:
            assert answer.status_code == 200
            return list(parse_sse(answer.iter_lines()))

    def processes(self) -> list[psutil.Process]:
        """All processes that belong to the service."""
        running = read_running(self.data_dir)
        found = [*marked(self.data_dir), psutil.Process(self.process.pid)]
        if running is not None:
            found.append(psutil.Process(running.store_pid))
        return found


def parse_sse(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Server-sent events with data, as {id, event, data}."""
    event: dict[str, Any] = {}
    for line in lines:
        if not line:
            if "data" in event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = json.loads(value) if name == "data" else value


def free_port() -> int:
    """A port that nobody listens on, out of the range that systems hand out by themselves.

    The service needs it only seconds from now, and Ray's processes take ports of that range.
    """
    for port in random.sample(range(18_000, 19_000), 100):
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("none of a hundred ports from 18000 on is free")


def start_up(
    data_dir: Path, port: int, *arguments: str, settings: Mapping[str, str] = _NO_SETTINGS
) -> subprocess.Popen[str]:
    """`harmonia up` in a process of its own. What it says goes to `up.log` beside `data_dir`."""
    command = [
        *(sys.executable, "-m", "harmonia_serve.cli", "up"),
        *("--data-dir", str(data_dir), "--port", str(port)),
        *("--components", "tests.support.actions"),
        *arguments,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **_ENVIRONMENT, **settings}
    with (data_dir.parent / "up.log").open("a") as output:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, text=True
        )


@contextlib.contextmanager
def running_service(
    data_dir: Path, *arguments: str, settings: Mapping[str, str] = _NO_SETTINGS
) -> Iterator[RunningService]:
    """The service, ready, until the context ends by an interrupt.

    `settings` are environment variables. Whoever kills the process puts another one in its place.
    """
    port = free_port()
    process = start_up(data_dir, port, *arguments, settings=settings)
    url = f"http://127.0.0.1:{port}"
    service: RunningService | None = None
    try:
        wait_ready(process, url, data_dir)
        key = json.loads((data_dir / "connection.json").read_text())["api_key"]
        service = RunningService(url, key, data_dir, process)
        yield service
    finally:
        process = service.process if service else process
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def wait_ready(process: subprocess.Popen[str], url: str, data_dir: Path) -> None:
    """Wait until an `up` serves and watches; AssertionError with its log if it ends instead.

    The service answers a moment before `up` has written down what it watches from then on.
    """
    deadline = time.monotonic() + _BOOT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            log = (data_dir.parent / "up.log").read_text()
            raise AssertionError(f"harmonia up ended with {process.returncode}:\n{log}")
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(f"{url}/ready", timeout=5, trust_env=False)
            running = read_running(data_dir)
            if answer.status_code == 200 and running is not None and running.pid == process.pid:
                return
        time.sleep(0.2)
    raise AssertionError("harmonia up was not ready in time")
