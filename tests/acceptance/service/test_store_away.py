"""The store is killed under running executions: nothing accepted is lost, nothing told twice."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from harmonia_serve.cli.installation.processes import runs
from harmonia_serve.cli.installation.records import read_running
from tests.support.running import RunningService, until


def work(gate: Path) -> dict[str, Any]:
    """A wide execution: tasks that wait at a gate, some that do not, and one that adds them up."""
    wide: dict[str, Any] = {
        f"wait{number}": {
            "component": "testing",
            "action": "hold_async",
            "input": {"path": str(gate)},
        }
        for number in range(4)
    }
    wide |= {
        f"add{number}": {
            "component": "testing",
            "action": "add",
            "input": {"a": number, "b": f"${{tasks.wait{number % 4}.output.attempt}}"},
            "depends_on": [f"wait{number % 4}"],
        }
        for number in range(12)
    }
    sums = [f"${{tasks.add{number}.output.sum}}" for number in range(12)]
    wide["all"] = {
        "component": "harmonia",
        "action": "echo",
        "input": {"value": sums},
        "depends_on": [f"add{number}" for number in range(12)],
    }
    return wide


def store_process(service: RunningService) -> psutil.Process:
    """The embedded store that the service says it has, once it runs."""

    def found() -> psutil.Process | None:
        running = read_running(service.data_dir)
        assert running is not None
        try:
            process = psutil.Process(running.store_pid)
        except psutil.NoSuchProcess:
            return None
        return process if runs(process) else None

    process: psutil.Process = until(found, 60, "a running store")
    return process


@contextmanager
def held_still(process: psutil.Process) -> Iterator[None]:
    """A process that does nothing for a while."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def check_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert error["code"] == "service_unavailable"
    assert set(error) == {"code", "message", "details"}
    assert "redis" not in answer.text.lower()


def check_exact(service: RunningService, execution_id: str) -> None:
    """Completed with the right output, each step told once, without a gap."""
    found = service.finish(execution_id)
    assert found["status"] == "completed", found["error"]
    assert found["output"] == {"value": [number + 1 for number in range(12)]}
    assert {task["attempt"] for task in found["task_status"].values()} == {1}
    events = service.events(execution_id)
    assert [int(event["id"]) for event in events] == list(range(1, len(events) + 1))
    told = Counter(
        (event["event"], event["data"].get("task_name"))
        for event in events
        if event["event"] != "task_progress"
    )
    expected: set[tuple[str, str | None]] = {
        (kind, name) for kind in ("task_started", "task_completed") for name in work(Path())
    }
    expected |= {("execution_started", None), ("execution_completed", None)}
    assert told == dict.fromkeys(expected, 1)


def test_executions_outlive_the_store(service: RunningService, tmp_path: Path) -> None:
    gates = [tmp_path / f"gate{number}" for number in range(3)]
    started = []
    for gate in gates:
        execution_id = service.start(service.create(work(gate)))
        service.wait_running(execution_id, "wait0", "wait1", "wait2", "wait3")
        started.append(execution_id)
    total = service.api.get("/executions").json()["total"]
    store = store_process(service)
    # Whoever watches over the store is held still, so that nobody can be faster than the requests.
    with held_still(psutil.Process(service.process.pid)):
        store.send_signal(signal.SIGKILL)
        until(lambda: not runs(store), 10)
        check_unavailable(service.api.get(f"/executions/{started[0]}"))
        check_unavailable(
            service.api.post("/workflows", json={"name": "w", "tasks": work(gates[0])})
        )
        check_unavailable(service.api.post("/executions", json={"workflow_id": "wf-" + "0" * 36}))
        for path in ("/ready", "/api/harmonia/ready"):
            answer = httpx.get(service.url + path, timeout=60, trust_env=False)
            check_unavailable(answer)
        assert httpx.get(f"{service.url}/health", timeout=60, trust_env=False).status_code == 200
        # What ends now cannot be recorded yet.
        gates[0].touch()
        gates[1].touch()
    another = store_process(service)
    assert another.pid != store.pid
    until(
        lambda: httpx.get(f"{service.url}/ready", timeout=60, trust_env=False).status_code == 200,
        60,
        "the service ready again",
    )
    gates[2].touch()
    for execution_id in started:
        check_exact(service, execution_id)
    assert service.api.get("/executions").json()["total"] == total


def test_what_was_accepted_is_kept_however_the_store_dies(
    service: RunningService, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    workflow_id = service.create(work(gate))
    body = {"workflow_id": workflow_id, "input": {}}
    store = store_process(service)
    accepted: list[str] = []
    refused = 0
    # Requests come all the time, before, while and after it is away; nobody is held still.
    while len(accepted) < 20 or not refused:
        if len(accepted) == 8 and runs(store):
            store.kill()
        answer = service.api.post("/executions", json=body)
        if answer.status_code == 202:
            accepted.append(answer.json()["execution_id"])
        else:
            check_unavailable(answer)
            refused += 1
        assert len(accepted) < 200, "the store was away and nobody noticed"
    for execution_id in accepted:
        check_exact(service, execution_id)
