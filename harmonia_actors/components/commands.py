"""Runs a program and captures what it says, with a time limit and an end that is an end.

The program is started through `command_guard.py`, which ends it and all its descendants when this
process wants so or dies. This module must not know actions or components.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol

__all__ = ["Captured", "CommandEnd", "Owner", "StartFailed", "encode_order", "run_command"]

#: Time between SIGTERM and SIGKILL.
STOP_GRACE_MS = 1_000
#: How long output may still arrive after the command and its descendants have ended.
DRAIN_S = 2.0
_READ_BYTES = 65_536
_GUARD = Path(__file__).with_name("command_guard.py")


class Owner(Protocol):
    """Whoever has a command run. What it is given stops it, if called."""

    def on_cancel(self, callback: Callable[[], None]) -> None: ...

    def relay(self, stream: Literal["stdout", "stderr"], chunk: bytes) -> None: ...


class StartFailed(Exception):
    """The program could not be started; `errno` says why."""

    def __init__(self, errno: int) -> None:
        super().__init__(os.strerror(errno))
        self.errno = errno


@dataclass(frozen=True, slots=True)
class Captured:
    """The end of an output stream, and how many bytes there were in all."""

    text: str
    size: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """How a command ended. `exit_code` is negative for a signal, None if it cannot be known."""

    exit_code: int | None
    stdout: Captured
    stderr: Captured
    duration_s: float
    timed_out: bool


def run_command(
    program: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    stdin: bytes = b"",
    timeout_s: float | None = None,
    capture_bytes: int,
    owner: Owner,
) -> CommandEnd:
    """Run `program` with `argv` to its end, at most `timeout_s`.

    `owner` can stop it from any thread, and is given what it writes, as it comes. Of each output
    the last `capture_bytes` are kept. Raises StartFailed.
    """
    started = time.monotonic()
    lifeline = _Lifeline()
    report_end, guard_report_end = os.pipe()
    try:
        guard = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", str(_GUARD)),
                *(str(lifeline.guard_end), str(guard_report_end), str(STOP_GRACE_MS)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(lifeline.guard_end, guard_report_end),
            env=_guard_environment(),
            start_new_session=True,
        )
    except BaseException:
        os.close(report_end)
        lifeline.close()
        raise
    finally:
        os.close(guard_report_end)
        os.close(lifeline.guard_end)
    report = os.fdopen(report_end, "rb", buffering=0)
    with guard, report, lifeline:
        owner.on_cancel(lifeline.close)
        lifeline.send(encode_order(program, argv, env, cwd))
        exchange = _Exchange(guard, report, stdin, capture_bytes, owner)
        timed_out = exchange.run(lifeline, None if timeout_s is None else started + timeout_s)
    return CommandEnd(
        exit_code=exchange.exit_code(),
        stdout=exchange.stdout.captured(),
        stderr=exchange.stderr.captured(),
        duration_s=time.monotonic() - started,
        timed_out=timed_out,
    )


def encode_order(program: str, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> bytes:
    """What the guard is told: fields ended by NUL, which none of them can hold.

    The program, the directory, the count of arguments, the arguments, the variables. Not JSON,
    because reading that would delay the start of every command.
    """
    variables = (f"{name}={value}" for name, value in env.items())
    fields = (program, str(cwd), str(len(argv)), *argv, *variables)
    if any("\0" in field for field in fields):
        raise ValueError("a command's words and variables cannot hold NUL")
    return b"\0".join(os.fsencode(field) for field in fields)


def _guard_environment() -> dict[str, str]:
    """Nothing of ours but where the interpreter finds its libraries."""
    wanted = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {name: os.environ[name] for name in wanted if name in os.environ}


class _Lifeline:
    """The pipe that keeps a command alive; closing it, or dying, ends the command."""

    def __init__(self) -> None:
        self.guard_end, self._end = os.pipe()
        self._lock = threading.Lock()
        self._closed = False

    def send(self, order: bytes) -> None:
        left = memoryview(len(order).to_bytes(8, "big") + order)
        # A broken pipe means that the guard is gone: the missing report will tell.
        with self._lock, contextlib.suppress(BrokenPipeError):
            while left and not self._closed:
                left = left[os.write(self._end, left) :]

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._end)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self.close()


class _Tail:
    """The last bytes of a stream, in chunks, so that keeping them costs no copying."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chunks: deque[bytes] = deque()
        self._kept = 0
        self._size = 0

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._kept += len(chunk)
        self._size += len(chunk)
        while self._chunks and self._kept - len(self._chunks[0]) >= self._limit:
            self._kept -= len(self._chunks.popleft())

    def captured(self) -> Captured:
        kept = b"".join(self._chunks)
        kept = kept[max(0, len(kept) - self._limit) :]
        truncated = len(kept) < self._size
        if truncated:
            kept = kept.lstrip(bytes(range(0x80, 0xC0)))
        return Captured(kept.decode("utf-8", "replace"), self._size, truncated)


class _Exchange:
    """Feeds a command's input and takes its outputs and the guard's report, in one loop."""

    def __init__(
        self,
        guard: subprocess.Popen[bytes],
        report: IO[bytes],
        stdin: bytes,
        capture_bytes: int,
        owner: Owner,
    ) -> None:
        self._owner = owner
        self.stdout = _Tail(capture_bytes)
        self.stderr = _Tail(capture_bytes)
        self._reported = b""
        self._report = report
        self._stdin = memoryview(stdin)
        self._selector = selectors.DefaultSelector()
        if guard.stdin is None or guard.stdout is None or guard.stderr is None:
            raise RuntimeError("the guard was started without pipes")
        for stream, sink in (
            (guard.stdout, self._add_stdout),
            (guard.stderr, self._add_stderr),
            (report, self._add_report),
        ):
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ, sink)
        if stdin:
            os.set_blocking(guard.stdin.fileno(), False)
            self._selector.register(guard.stdin, selectors.EVENT_WRITE)
        else:
            guard.stdin.close()

    def run(self, lifeline: _Lifeline, deadline: float | None) -> bool:
        """Until all streams have ended. True if the deadline passed and the command was ended."""
        timed_out = False
        with self._selector:
            while reading := [k for k in self._selector.get_map().values() if k.data]:
                now = time.monotonic()
                if deadline is not None and now >= deadline:
                    if self._report not in [key.fileobj for key in reading]:
                        break
                    timed_out, deadline = True, None
                    lifeline.close()
                for key, _ in self._selector.select(None if deadline is None else deadline - now):
                    if key.data is None:
                        self._feed(key.fileobj)  # type: ignore[arg-type]
                    elif self._take(key.fileobj, key.data):  # type: ignore[arg-type]
                        continue
                    elif key.fileobj is self._report:
                        self._end_unguarded()
                        deadline = time.monotonic() + DRAIN_S
        return timed_out

    def exit_code(self) -> int | None:
        """What the guard reported. Raises StartFailed."""
        told = self._told()
        if "E" in told:
            raise StartFailed(told["E"])
        return told.get("X")

    def _told(self) -> dict[str, int]:
        """The guard's report, as far as it has come: a number for each letter."""
        lines = self._reported.decode("ascii", "replace").splitlines()
        return {kind: int(value) for kind, _, value in (line.partition(" ") for line in lines)}

    def _end_unguarded(self) -> None:
        """Kill the command's process group if the guard was killed before it could do so.

        At once, because the group's number is its own only as long as one of it is alive.
        """
        told = self._told()
        if "P" in told and "X" not in told:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(told["P"], signal.SIGKILL)

    def _add_stdout(self, chunk: bytes) -> None:
        self.stdout.add(chunk)
        self._owner.relay("stdout", chunk)

    def _add_stderr(self, chunk: bytes) -> None:
        self.stderr.add(chunk)
        self._owner.relay("stderr", chunk)

    def _add_report(self, chunk: bytes) -> None:
        self._reported += chunk

    def _take(self, stream: IO[bytes], sink: Callable[[bytes], None]) -> bool:
        chunk = os.read(stream.fileno(), _READ_BYTES)
        if chunk:
            sink(chunk)
            return True
        self._selector.unregister(stream)
        return False

    def _feed(self, stream: IO[bytes]) -> None:
        try:
            self._stdin = self._stdin[os.write(stream.fileno(), self._stdin[:_READ_BYTES]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._stdin = self._stdin[:0]
        if not self._stdin:
            self._selector.unregister(stream)
            with contextlib.suppress(BrokenPipeError):
                stream.close()
