"""A process that checks schemas and values, and that may die of it: both sides of the pipe.

A schema of a few lines can ask for hours or for gigabytes: references that double below `anyOf`,
`unevaluatedProperties` in each other, repetitions in patterns. The library that checks cannot be
interrupted and holds the interpreter's lock, so a thread would not help. The process has a limit of
processor time for each check and one of memory, both set by itself and kept by the kernel, and it
ends when nobody holds the other end of its pipe.

Messages are frames: a length in four bytes, then JSON. It is given schemas and values and nothing
else: no environment, no files.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any, Final

from harmonia_actors.core import jsontext
from harmonia_actors.runtime.service.schema import (
    check_schema,
    find_input_problems,
    find_problems,
)

__all__ = [
    "INPUT_PROBLEMS_MAX",
    "TAKES_LONG",
    "CheckLimits",
    "Findings",
    "ProcessGone",
    "SchemaProcess",
    "serve",
]

#: Problems that are told of the inputs of one request, all together.
INPUT_PROBLEMS_MAX: Final = 50
#: Stands for what could not be told of an input in time.
TAKES_LONG: Final = ""

#: A process that nobody asks for so long, in seconds, ends.
_IDLE_S: Final = 60.0
#: So does one that has grown beyond this, in bytes, so that what it remembers counts for nobody.
_GROWN_BYTES: Final = 300_000_000
#: How much longer than its processor time a check may take, on a machine that is busy with others.
_PATIENCE: Final = 10.0
_START_S: Final = 60.0
_LENGTH_BYTES: Final = 4
_OUT_OF_MEMORY: Final = 3
#: Ends of a process that has passed its limits: of time, of memory in Python, of memory in native
#: code, of the stack.
_PASSED_LIMITS: Final = frozenset(
    {-signal.SIGPROF, _OUT_OF_MEMORY, -signal.SIGABRT, -signal.SIGSEGV}
)

Pairs = list[tuple[str, str]]


class ProcessGone(Exception):
    """The process could not be started, or has ended for a reason that is not the check's."""


@dataclass(frozen=True, slots=True)
class CheckLimits:
    """Seconds of processor time for one check, and bytes of memory for the process."""

    cpu_s_max: float
    memory_bytes_max: int


@dataclass(frozen=True, slots=True)
class Findings:
    """Pairs of a place and what is wrong there.

    `whole` is False if the check passed its limits: then they are the last that could be found, or
    None if it is not even known whether anything is wrong.
    """

    found: Pairs | None
    whole: bool


class SchemaProcess:
    """One process, which does one check at a time. The methods block."""

    def __init__(self, limits: CheckLimits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None

    def check(self, request: bytes) -> Findings:
        """What is wrong with the schema or the values of a request. Raises ProcessGone."""
        findings = self._ask(request)
        if findings is None:
            # It may just have ended, because nobody had asked it for long.
            findings = self._ask(request)
        if findings is None:
            raise ProcessGone("the process that checks schemas was ended twice in a row")
        return findings

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _ask(self, request: bytes) -> Findings | None:
        """None if the process has ended for a reason that is not the check's."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = _start(self._limits)
        process = self._process
        with _Deadline(process, self._limits.cpu_s_max * _PATIENCE) as deadline:
            try:
                findings = _exchange(process, request)
            except BaseException:
                self.close()
                raise
        if findings.whole:
            return findings
        self.close()
        if deadline.passed:
            raise ProcessGone("it had too little of the processor to come to an end")
        return findings if process.returncode in _PASSED_LIMITS else None


class _Deadline:
    """Kills a process that is still at work after so many seconds."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._process = process
        self._timer = threading.Timer(seconds, self._end)
        self.passed = False

    def _end(self) -> None:
        self.passed = True
        self._process.kill()

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def _exchange(process: subprocess.Popen[bytes], request: bytes) -> Findings:
    """Ask, and take what comes until the answer is whole or the process has ended."""
    assert process.stdin is not None  # noqa: S101 - both are pipes
    assert process.stdout is not None  # noqa: S101
    found: Pairs | None = None
    with suppress(BrokenPipeError):
        _write(process.stdin, request)
    while (frame := _read(process.stdout)) is not None:
        if frame == _LAST:
            return Findings(found, whole=True)
        found = [(where, message) for where, message in jsontext.decode(frame)]
    process.wait()
    return Findings(found, whole=False)


def _start(limits: CheckLimits) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-P", "-s", "-m", __name__),
            *(str(limits.cpu_s_max), str(limits.memory_bytes_max)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(),
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    with _Deadline(process, _START_S):
        begun = _read(process.stdout)
    if begun is None:
        _end(process)
        raise ProcessGone(f"it did not start and ended with {process.returncode}")
    return process


def _environment() -> dict[str, str]:
    """Nothing of ours but where the interpreter finds its modules and libraries."""
    wanted = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    kept = {name: os.environ[name] for name in wanted if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let go of a process and wait for its end."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()


# The side that checks ----------------------------------------------------------------------------

_LAST: Final = b"null"


def serve(limits: CheckLimits) -> None:
    """Check what comes by standard input until it ends, nothing comes, or the process has grown."""
    _bound_memory(limits.memory_bytes_max)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _write(sink, b"[]")
    while select.select([source], [], [], _IDLE_S)[0]:
        signal.setitimer(signal.ITIMER_PROF, limits.cpu_s_max)
        request = _read(source)
        if request is None:
            return
        for found in _answers(jsontext.decode(request)):
            _write(sink, jsontext.encode(found))
        _write(sink, _LAST)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > _GROWN_BYTES:
            return


def _answers(request: dict[str, Any]) -> Iterable[Pairs]:
    if "inputs" in request:
        yield from _of_inputs(request["schemas"], request["inputs"])
        return
    schema = request["schema"]
    if "values" not in request:
        yield list(check_schema(schema))
        return
    for problems in find_problems(request["values"], schema, request["field"]):
        yield [(problem.field, problem.message) for problem in problems]


def _of_inputs(schemas: list[Any], inputs: list[Any]) -> Iterable[Pairs]:
    """Problems of many inputs, each at its number and a colon; the last frame is the one to show.

    While one is looked at it counts as a problem itself: nothing more may come.
    """
    found: Pairs = []
    for number, (schema, values, dynamic) in enumerate(inputs):
        yield [*found, (f"{number}:", TAKES_LONG)]
        telling = find_input_problems(values, schemas[schema], dynamic, f"{number}:")
        left = INPUT_PROBLEMS_MAX - len(found)
        found += [(problem.field, problem.message) for problem in islice(telling, left)]
        if len(found) >= INPUT_PROBLEMS_MAX:
            break
    yield found


def _bound_memory(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    # What it dies of is no mystery, and its memory is the clients'.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _write(sink: IO[bytes], frame: bytes) -> None:
    sink.write(len(frame).to_bytes(_LENGTH_BYTES, "big") + frame)
    sink.flush()


def _read(source: IO[bytes]) -> bytes | None:
    """The next frame, or None at the end, also in the midst of one."""
    length = source.read(_LENGTH_BYTES)
    if len(length) < _LENGTH_BYTES:
        return None
    size = int.from_bytes(length, "big")
    frame = source.read(size)
    return frame if len(frame) == size else None


if __name__ == "__main__":
    try:
        serve(CheckLimits(float(sys.argv[1]), int(sys.argv[2])))
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)
