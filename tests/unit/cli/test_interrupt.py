"""Ctrl-C while a command follows an execution."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.architecture.source import ROOT
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
        # The tests' directory is none of these sources: they are named.
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)},
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


def known(service: Service) -> set[str]:
    """The executions that there are, once nobody listens to any of them."""
    until(lambda: service.gateway.subscribers == 0)
    return set(service.gateway.executions)


def followed(service: Service, before: set[str]) -> str:
    """The execution that the command has started, once it listens to its events."""
    until(lambda: bool(set(service.gateway.executions) - before))
    execution_id = (set(service.gateway.executions) - before).pop()
    until(lambda: service.gateway.subscribers > 0)
    return execution_id


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_interrupt_leaves_the_execution_and_says_how_to_come_back(
    service: Service, workflow_file: str, options: list[str]
) -> None:
    before = known(service)
    with running(workflow_file, *options) as process:
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
    before = known(service)
    with running(workflow_file, "--cancel-on-interrupt", "--json") as process:
        execution_id = followed(service, before)
        process.send_signal(signal.SIGINT)
        until(lambda: service.gateway.executions[execution_id]["status"] == "cancelling")
        service.finish(execution_id, "cancelled")
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert json.loads(out)["status"] == "cancelled"
    assert "Cancelling" in err


def test_what_was_told_before_an_interrupt_is_not_told_again(
    service: Service, workflow_file: str
) -> None:
    before = known(service)
    with running(workflow_file, "--cancel-on-interrupt") as process:
        execution_id = followed(service, before)
        assert process.stderr is not None
        service.emit(execution_id, "execution_started")
        told = ""
        while "execution_started" not in told:
            told += process.stderr.readline()
        process.send_signal(signal.SIGINT)
        until(lambda: service.gateway.executions[execution_id]["status"] == "cancelling")
        service.finish(execution_id, "cancelled")
        _, err = process.communicate(timeout=DEADLINE_S)
    told += err
    assert [told.count(f"execution_{what}") for what in ("started", "cancelled")] == [1, 1]


def test_an_interrupt_before_there_is_an_execution_says_where_to_look(
    service: Service, workflow_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = threading.Event(), asyncio.Event()

    async def never(*_: object, **__: object) -> None:
        asked.set()
        await answer.wait()

    monkeypatch.setattr(service.gateway, "execute", never)
    with running(workflow_file, "--json") as process:
        assert asked.wait(DEADLINE_S)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    service.loop.call_soon_threadsafe(answer.set)
    assert (process.returncode, out) == (130, "")
    assert "harmonia executions list" in err
