"""A component whose actions do what tests need: fail for a while, wait for each other, never end.

Loaded by the service under test with `--components tests.support.actions`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harmonia_actors.components.contract import ActionError, Component, TaskContext

component = Component("testing", "Actions for Harmonia's own tests")

_POLL_S = 0.02


def _mark(context: TaskContext, name: str, text: str) -> None:
    context.workspace.write_file(name, text.encode())


@component.action(uses_files=True)
def fail_times(times: int, *, context: TaskContext) -> dict[str, int]:
    """Fail the first `times` attempts, then succeed."""
    if context.attempt <= times:
        raise ActionError(f"attempt {context.attempt} fails", code="NOT_YET", details={"n": times})
    return {"attempt": context.attempt}


@component.action(uses_files=True)
def meet(me: str, other: str, seconds: float = 30.0, *, context: TaskContext) -> dict[str, str]:
    """Write a file and wait for the other's: two of these only end if they run at once."""
    _mark(context, me, "here")
    deadline = time.monotonic() + seconds
    there = context.workspace.directory / other
    while not there.exists():
        if time.monotonic() > deadline:
            raise ActionError(f"'{other}' did not come", code="ALONE")
        time.sleep(_POLL_S)
    return {"met": other}


@component.action(uses_files=True)
def wait_for_file(path: str, *, context: TaskContext) -> dict[str, str]:
    """Wait until a file is there, or until told to stop."""
    place = context.workspace.resolve(path, write=False)
    while not place.exists():
        if context.cancelled:
            raise ActionError("told to stop", code="STOPPED")
        time.sleep(_POLL_S)
    return {"found": str(place)}


@component.action
async def wait_for_file_async(path: str) -> dict[str, str]:
    """Wait until a file is there, without a process of its own."""
    # Another process makes it: there is no event to wait for.
    while not await asyncio.to_thread(Path(path).exists):  # noqa: ASYNC110
        await asyncio.sleep(_POLL_S)
    return {"found": path}


@component.action
def spin(*, context: TaskContext) -> None:
    """An endless loop in pure Python that listens to nobody."""
    context.progress(0.1, "spinning")
    while True:
        pass


@component.action
def spawn(seconds: int, *, context: TaskContext) -> dict[str, int]:
    """Start a child process and wait for it, listening to nobody."""
    child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])
    context.progress(0.5, f"child {child.pid}")
    child.wait()
    return {"child": child.pid}


@component.action
def progress_steps(steps: int, pause_seconds: float, *, context: TaskContext) -> dict[str, int]:
    """Report progress step by step."""
    for step in range(1, steps + 1):
        context.progress(step / steps, f"step {step} of {steps}")
        time.sleep(pause_seconds)
    return {"steps": steps}


@component.action
def who(*, context: TaskContext) -> dict[str, Any]:
    """What an action can see of its attempt."""
    return {
        "pid": os.getpid(),
        "attempt": context.attempt,
        "key": context.idempotency_key,
        "task": context.task_name,
    }


@component.action
def big(size: int) -> dict[str, str]:
    """A large output."""
    return {"text": "x" * size}


@component.action
def length(text: str) -> dict[str, int]:
    """The length of a text."""
    return {"length": len(text)}


@component.action
def add(a: int, b: int) -> dict[str, int]:
    """A sum."""
    return {"sum": a + b}


@component.action
def crash() -> None:
    """End the process without a word."""
    os._exit(7)


@component.action
def not_json() -> Any:
    """Return what is not JSON."""
    return {"value": float("nan")}


def _tell_process(context: TaskContext, looks: int) -> None:
    """This process's id, and a number that grows as long as somebody takes the reports."""
    context.progress(0.5, f"{os.getpid()} {looks}")


@component.action
def hold(path: str, *, context: TaskContext) -> dict[str, int]:
    """Report where it runs, again and again, until a file is there."""
    looks = 0
    while not Path(path).exists():
        if context.cancelled:
            raise ActionError("told to stop", code="STOPPED")
        _tell_process(context, looks := looks + 1)
        time.sleep(_POLL_S)
    return {"attempt": context.attempt}


@component.action
async def hold_async(path: str, *, context: TaskContext) -> dict[str, int]:
    """The same in the process that all async actions share."""
    looks = 0
    while not await asyncio.to_thread(Path(path).exists):
        _tell_process(context, looks := looks + 1)
        await asyncio.sleep(_POLL_S)
    return {"attempt": context.attempt}


@component.action
def say(text: str) -> dict[str, int]:
    """Write to this process's output, as actions of users may."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201
    return {"said": len(text)}


def _record(path: str, what: str, context: TaskContext) -> None:
    """A side effect that is whole or not there, whoever is killed when."""
    line = f"{what} {context.idempotency_key} {context.attempt} {time.time():.3f}\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _recorded_sum(number: int, given: list[int], fails: int, context: TaskContext) -> int:
    if context.attempt <= fails:
        raise ActionError(f"attempt {context.attempt} fails", code="NOT_YET")
    return number + sum(given)


@component.action
def record(
    path: str,
    number: int,
    given: list[int],
    seconds: float = 0.0,
    fails: int = 0,
    *,
    context: TaskContext,
) -> int:
    """Write down that it begins and that it ends; between them add up, and take its time."""
    _record(path, "begin", context)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not context.cancelled:
        time.sleep(min(_POLL_S, seconds))
    found = _recorded_sum(number, given, fails, context)
    _record(path, "end", context)
    return found


@component.action(uses_files=True)
def record_file(
    path: str,
    number: int,
    given: list[int],
    files: dict[str, int],
    seconds: float = 0.0,
    fails: int = 0,
    *,
    context: TaskContext,
) -> int:
    """The same with files: leave what it gives in one, and find there what others have left."""
    directory = context.workspace.directory
    for name, value in files.items():
        left = directory / f"{name}.txt"
        if not left.exists() or left.read_text() != str(value):
            raise ActionError(f"the file of '{name}' is not what it left", code="LOST_FILE")
    found = record(path, number, given, seconds, fails, context=context)
    _mark(context, f"{context.task_name}.txt", str(found))
    return found


@component.action
async def record_async(
    path: str,
    number: int,
    given: list[int],
    seconds: float = 0.0,
    fails: int = 0,
    *,
    context: TaskContext,
) -> int:
    """The same in the process that all async actions share."""
    _record(path, "begin", context)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()
    found = _recorded_sum(number, given, fails, context)
    _record(path, "end", context)
    return found
