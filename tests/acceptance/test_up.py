"""`harmonia up` as a person runs it: two boots of the real thing, one of them after a kill -9."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil
import pytest

from harmonia_serve.cli.installation.lock import holder_of
from harmonia_serve.cli.installation.processes import end_all, marked, runs
from harmonia_serve.cli.installation.records import read_running
from harmonia_serve.client import HarmoniaClient
from harmonia_serve.client.execution import Execution
from persistence.embedded import reap
from tests.support.data_server import DataServer, data_server

HARMONIA = [sys.executable, "-m", "harmonia_serve.cli"]
BOOT_S = 180.0
ECHO = {
    "name": "greeting",
    "tasks": {
        "greet": {"component": "harmonia", "action": "echo", "input": {"value": "hello"}},
    },
    "output": {"said": "${tasks.greet.output.value}"},
}


def harmonia(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HARMONIA, *arguments], capture_output=True, text=True, timeout=BOOT_S, check=False
    )


def until(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """Wait until a condition holds; its value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)
    return value


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "data"
    yield directory
    holder = holder_of(directory)
    if holder is not None:
        os.kill(holder.pid, signal.SIGKILL)
    end_all(marked(directory))
    reap(directory)


@pytest.fixture
def data() -> Iterator[DataServer]:
    with data_server() as server:
        yield server


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def everything(data_dir: Path) -> list[psutil.Process]:
    """All processes of an installation that is up."""
    running = read_running(data_dir)
    assert running is not None
    return [
        *marked(data_dir),
        psutil.Process(running.pid),
        psutil.Process(running.store_pid),
    ]


def open_to_others(processes: list[psutil.Process]) -> list[str]:
    """Addresses beyond loopback at which processes listen."""
    found = []
    for process in processes:
        try:
            connections = process.net_connections(kind="tcp")
        except psutil.NoSuchProcess:
            continue  # It has ended since it was found, and listens to nobody.
        for connection in connections:
            if connection.status != psutil.CONN_LISTEN or not connection.laddr:
                continue
            if not ip_address(connection.laddr.ip.removeprefix("::ffff:")).is_loopback:
                found.append(f"{process.name()} at {connection.laddr}")
    return found


def in_flight(client: HarmoniaClient, data: DataServer) -> Execution:
    """An execution that has done a part of its work, and is held in the midst of it."""
    value = "${tasks.held.output.exit_code}"
    tasks = {
        "before": {"component": "harmonia", "action": "echo", "input": {"value": "once"}},
        "held": {**data.held("gate"), "depends_on": ["before"]},
        "after": {
            "component": "harmonia",
            "action": "echo",
            "input": {"value": value},
            "depends_on": ["held"],
        },
    }
    output = {"said": "${tasks.before.output.value}", "code": "${tasks.after.output.value}"}
    execution = client.run({"name": "held", "tasks": tasks, "output": output})
    until(lambda: held_attempt(execution) == 1)
    return execution


def held_attempt(execution: Execution) -> int:
    """Which attempt of its held task runs; 0 if none does."""
    task = execution.refresh()["task_status"]["held"]
    return int(task["attempt"]) if task["status"] == "running" else 0


def land(execution: Execution, data: DataServer) -> None:
    """It goes on without being asked to, and ends as if nothing had been."""
    # What was cut off runs again: whoever ran it first has died.
    until(lambda: held_attempt(execution) > 1, 120)
    data.open("gate")
    assert execution.result(timeout=120) == {"said": "once", "code": 0}
    done = execution.document["task_status"]
    assert done["before"]["attempt"] == 1, "what had ended is not run again"
    audit = execution.audit()
    assert (audit["complete"], audit["violations"]) == (True, [])


@pytest.mark.timeout(600)
def test_up_survives_kill_9_and_leaves_nothing_at_its_end(
    data_dir: Path, port: int, data: DataServer
) -> None:
    where = ["--data-dir", str(data_dir)]
    first = harmonia("up", "--detach", "--json", "--port", str(port), *where)
    assert first.returncode == 0, first.stderr
    ready = json.loads(first.stdout)
    assert ready["url"] == f"http://127.0.0.1:{port}"
    connection = json.loads((data_dir / "connection.json").read_text())
    assert connection["api_key"] in first.stderr
    assert connection["api_key"] not in (data_dir / "harmonia.log").read_text()

    with HarmoniaClient(data_dir=data_dir) as client:
        execution = client.run(ECHO)
        assert execution.result(timeout=60) == {"said": "hello"}
        assert client.health()["durability"]["promise"] == "always"
    started = everything(data_dir)
    assert open_to_others(started) == []
    second = harmonia("up", *where)
    assert second.returncode == 1
    assert f"process {ready['pid']}" in second.stderr
    status = json.loads(harmonia("status", "--json", *where).stdout)
    assert status["service"]["durability"]["promise"] == "always"
    assert len(status["processes"]) == len(started)

    with HarmoniaClient(data_dir=data_dir) as client:
        flight = in_flight(client, data).id
    os.kill(ready["pid"], signal.SIGKILL)
    again = subprocess.Popen(
        [*HARMONIA, "up", "--json", "--host", "::1", "--port", str(port), *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert again.stdout is not None
    assert json.loads(again.stdout.readline())["url"] == f"http://[::1]:{port}"
    assert not any(map(runs, started))
    with HarmoniaClient(data_dir=data_dir) as client:
        assert client.get_execution(execution.id)["output"] == {"said": "hello"}
        # Both kinds of actors are up again: what is started now runs.
        assert client.run(ECHO).result(timeout=60) == {"said": "hello"}
        land(client.execution(flight), data)

    started = everything(data_dir)
    assert open_to_others(started) == []
    again.send_signal(signal.SIGINT)
    _, said = again.communicate(timeout=BOOT_S)
    assert again.returncode == 0, said
    assert connection["api_key"] not in said
    until(lambda: not any(map(runs, started)), 5)
    assert marked(data_dir) == []
    assert read_running(data_dir) is None
