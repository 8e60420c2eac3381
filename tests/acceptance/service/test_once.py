"""Requests with an idempotency key at the real service: one execution, and one side effect."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.service.test_store_away import check_unavailable, store_process
from tests.support.running import RunningService, until


def appending(path: Path) -> dict[str, Any]:
    """A workflow's tasks: one that appends a line to a file."""
    command = {"command": f"tee -a {path}", "stdin": "ran\n"}
    return {"a": {"component": "ergon", "action": "execute_command", "input": command}}


def executions_of(service: RunningService, workflow_id: str) -> int:
    listed = service.api.get("/executions", params={"workflow_id": workflow_id})
    return int(listed.json()["total"])


def test_sent_many_times_it_runs_once(service: RunningService, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    workflow_id = service.create(appending(ran))
    headers = {"Idempotency-Key": f"once-{workflow_id}"}
    body: dict[str, Any] = {"workflow_id": workflow_id, "input": {"x": 1}}

    def send(_: int = 0) -> httpx.Response:
        return service.api.post("/executions", json=body, headers=headers)

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(send, range(50)))
    assert {answer.status_code for answer in answers} == {202}
    (execution_id,) = {answer.json()["execution_id"] for answer in answers}
    assert service.finish(execution_id)["status"] == "completed"
    assert send().json()["execution_id"] == execution_id
    other = service.api.post("/executions", json={**body, "input": {"x": 2}}, headers=headers)
    assert other.status_code == 409, other.text
    error = other.json()["error"]
    assert error["code"] == "conflict"
    assert error["details"] == {"idempotency_key": f"once-{workflow_id}", "made": execution_id}
    assert executions_of(service, workflow_id) == 1
    assert ran.read_text() == "ran\n"


def test_it_is_one_execution_however_the_store_dies(service: RunningService) -> None:
    """Whoever got no answer, or a 503, sends the same again until it is accepted, twice."""
    noop = {"component": "harmonia", "action": "noop"}
    workflow_id = service.create({"a": noop})
    numbers = itertools.count()
    started: list[set[str]] = []
    refused: list[int] = []

    def start(number: int) -> None:
        headers = {"Idempotency-Key": f"{workflow_id}-{number}"}
        made: set[str] = set()

        def accepted() -> bool:
            answer = service.api.post(
                "/executions", json={"workflow_id": workflow_id}, headers=headers
            )
            if answer.status_code != 202:
                check_unavailable(answer)
                refused.append(number)
                return False
            made.add(answer.json()["execution_id"])
            return True

        for _ in range(2):
            until(accepted, 60, f"an answer to request {number}")
        started.append(made)

    def keep_starting(_: int) -> None:
        for _ in range(200):
            start(next(numbers))
            if refused:
                return
        raise AssertionError("the store was away and nobody noticed")

    store = store_process(service)
    with ThreadPoolExecutor(4) as threads:
        senders = [threads.submit(keep_starting, one) for one in range(4)]
        until(lambda: len(started) >= 4)
        store.kill()
        for sender in senders:
            sender.result()
    assert {len(made) for made in started} == {1}
    assert executions_of(service, workflow_id) == len(started)
    for (execution_id,) in started:
        done = service.finish(execution_id)
        assert done["status"] == "completed", done["error"]
        assert done["task_status"]["a"]["attempt"] == 1
