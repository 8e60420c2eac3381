"""Ctrl-C while a command follows an execution."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.unit.service_thread import Service

DEADLINE_S = 30.0


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`harmonia run` in a process of its own, as from a terminal."""
    process = subprocess.Popen(
        [sys.executable, "-m", "harmonia_serve.cli", "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


def followed(service: Service, before: set[str]) -> str:
    """The execution that the command has started, once it listens to its events."""
    until(lambda: bool(set(service.gateway.executions) - before))
    execution_id = (set(service.gateway.executions) - before).pop()
    until(lambda: service.gateway.subscribers > 0)
    return execution_id


def test_an_interrupt_leaves_the_execution_and_says_how_to_come_back(
    service: Service, workflow_file: str
) -> None:
    before = set(service.gateway.executions)
    with running(workflow_file) as process:
        execution_id = followed(service, before)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert out == ""
    assert f"harmonia executions follow {execution_id}" in err
    assert f"harmonia executions cancel {execution_id}" in err
    assert "Traceback" not in err
    assert service.gateway.executions[execution_id]["status"] == "pending"


def test_an_interrupt_cancels_if_that_was_asked_for(service: Service, workflow_file: str) -> None:
    before = set(service.gateway.executions)
    with running(workflow_file, "--cancel-on-interrupt", "--json") as process:
        execution_id = followed(service, before)
        process.send_signal(signal.SIGINT)
        until(lambda: service.gateway.executions[execution_id]["status"] == "cancelling")
        service.finish(execution_id, "cancelled")
        out, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert '"status": "cancelled"' in out
