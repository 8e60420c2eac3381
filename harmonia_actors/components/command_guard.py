"""Runs one command and lets nothing of it live on: a small process between worker and command.

Run as a script, by `commands.py`: `python -I -S command_guard.py LIFELINE REPORT GRACE_MS`.

- From the file descriptor LIFELINE it reads what to run. When LIFELINE is closed at the other end,
  on purpose or because the worker was killed, the command is stopped: SIGTERM to its process
  group, SIGKILL to all its descendants after GRACE_MS.
- To REPORT it writes `P group`, the command's process group, before it starts the command;
  `E errno` if the command could not be started; and `X code` once it has ended and none of its
  descendants is left (a negative code is a signal). If REPORT ends without `X`, this process was
  killed, and the worker ends the group.

Why a process of its own: PR_SET_PDEATHSIG alone ends the direct child only, does so when the
thread that started it ends, and needs code between fork and exec, which is not safe in a worker
with threads. This process has one thread, so all three are in order here. As a subreaper it also
inherits, and ends, grandchildren that left the process group: only these survive if the command
kills this process.

It must need nothing but the standard library, and of that little: every import delays a command.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

__all__ = ["main"]

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Read what to run, run it, report, end."""
    lifeline, report, grace_ms = (int(text) for text in sys.argv[1:4])
    os.set_inheritable(lifeline, False)
    os.set_inheritable(report, False)
    order = _read_order(lifeline)
    if order is None:
        return
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = _start(order, report)
    # The command alone holds its pipes, so that their end is seen when it has ended.
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    code = _attend(child, lifeline, woken, grace_ms / 1000)
    final = _end_all(child)
    os.write(report, f"X {final if code is None else code}\n".encode())


class _Order:
    """What to run: `commands.encode_order` says how it is written."""

    def __init__(self, text: bytes) -> None:
        self.program, self.cwd, count, *rest = text.split(b"\0")
        self.argv = rest[: int(count)]
        self.env = dict(pair.split(b"=", 1) for pair in rest[int(count) :])


def _read_order(lifeline: int) -> _Order | None:
    """The order, after its length in 8 bytes. None if the worker is gone already."""
    size = int.from_bytes(_read_exactly(lifeline, 8), "big")
    text = _read_exactly(lifeline, size)
    return _Order(text) if text else None


def _read_exactly(descriptor: int, size: int) -> bytes:
    pieces = []
    while size > 0:
        piece = os.read(descriptor, min(size, 1 << 20))
        if not piece:
            return b""
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _start(order: _Order, report: int) -> int:
    guard = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(127)
        # Told by the command's own process: it could kill this one as the first thing it does.
        os.write(report, f"P {os.getpid()}\n".encode())
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored, signal.SIG_DFL)
        os.chdir(order.cwd)
        os.execve(order.program, order.argv, order.env)  # noqa: S606 - an argv, no shell
    except OSError as error:
        os.write(report, f"E {error.errno}\n".encode())
    finally:
        os._exit(127)


def _attend(child: int, lifeline: int, woken: int, grace_s: float) -> int | None:
    """Wait until the command ends or is to be stopped; its exit code, if it has ended."""
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    poll.register(woken, select.POLLIN)
    worker = os.getppid()
    deadline = None
    while True:
        code = _reap(child)
        if code is not None:
            return code
        if deadline is not None and time.monotonic() >= deadline:
            return None
        # A second at most: a forked relative of the worker could hold the lifeline open.
        wait_s = 1.0 if deadline is None else min(1.0, max(0.0, deadline - time.monotonic()))
        ready = {descriptor for descriptor, _ in poll.poll(wait_s * 1000 + 1)}
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
        if deadline is None and (lifeline in ready or os.getppid() != worker):
            poll.unregister(lifeline)
            deadline = time.monotonic() + grace_s
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGTERM)


def _reap(child: int) -> int | None:
    """Collect what has ended; the command's exit code if it is among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _end_all(child: int) -> int:
    """Kill every descendant; the exit code of the command if it was still among them."""
    code = -int(signal.SIGKILL)
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        for pid in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)


def _children() -> list[int]:
    """Direct children, among them the orphans that we have inherited as subreaper."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as listing:  # noqa: PTH123
            return [int(pid) for pid in listing.read().split()]
    except OSError:
        return []


def _prctl(option: int, argument: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)


if __name__ == "__main__":
    main()
