"""One system's turn: it is started, given its jobs one after the other, and ended."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from benchmarks.catalogue import Entry
from benchmarks.environments import python_of
from benchmarks.jobs import Job, to_json
from benchmarks.machine import Usage, Watch
from persistence.embedded import find_binary

__all__ = ["Broken", "Turn", "turn_of"]

ROOT = Path(__file__).resolve().parents[1]
_START_S = 300.0
_END_S = 120.0


class Broken(Exception):
    """The system does not answer any more."""


class Turn:
    """A system that runs, in a process of its own."""

    def __init__(self, entry: Entry, process: subprocess.Popen[str]) -> None:
        self._entry = entry
        self._process = process
        self._answers: queue.Queue[str] = queue.Queue()
        self.watch = Watch(psutil.Process(process.pid))
        self.idle = Usage()
        threading.Thread(target=self._read, daemon=True).start()
        ready = self._next(_START_S)
        self.ready_s = float(ready["ready_s"])
        self.facts: dict[str, Any] = ready["facts"]

    def run(self, job: Job, timeout_s: float) -> tuple[dict[str, Any], Usage]:
        """What the system answered, and what it took."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(to_json(job)) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise Broken(f"{self._entry.title} has ended") from error
        answer, usage = self.watch.run(lambda: self._next(timeout_s))
        return answer, usage

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _next(self, timeout_s: float) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise Broken(f"no answer within {timeout_s:g} s") from None
        if not line:
            raise Broken(f"{self._entry.title} has ended")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def turn_of(entry: Entry, log: IO[str]) -> Iterator[Turn]:
    """The system, running; nothing of it is left afterwards."""
    command = [str(python_of(entry)), "-m", f"benchmarks.systems.{entry.module}"]
    environment = {name: value for name, value in os.environ.items() if name not in _ASTRAY}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "BENCH_STORE_BINARY": str(find_binary()),
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(
        [*command, *entry.arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        # Ctrl-C is for the runner, which closes the input of the system.
        start_new_session=True,
    )
    watch = Watch(psutil.Process(process.pid))
    try:
        turn = Turn(entry, process)
        watch = turn.watch
        yield turn
    finally:
        _end(process, watch)


#: Would lead a system to another one's data, cluster or bytecode.
_ASTRAY = (
    "HARMONIA_REDIS_URL",
    "HARMONIA_DATA_DIR",
    "HARMONIA_URL",
    "HARMONIA_API_KEY",
    "RAY_ADDRESS",
    "PYTHONDONTWRITEBYTECODE",
    "VIRTUAL_ENV",
)


def _end(process: subprocess.Popen[str], watch: Watch) -> None:
    watch.look()
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    left = watch.end()
    if left:
        print(f"    {left} processes were left, and have been killed", file=sys.stderr)
