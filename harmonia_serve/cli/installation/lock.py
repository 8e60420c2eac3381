"""One `harmonia up` for each data directory: a lock that ends with its holder, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from harmonia_serve.cli.output import duration_text
from harmonia_serve.cli.problems import CommandFailed

__all__ = ["Holder", "hold", "holder_of"]

_LOCK = "up.lock"
_PATIENCE_S = 0.5


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a data directory, and since when (seconds since the epoch)."""

    pid: int
    since_s: float

    def __str__(self) -> str:
        return f"process {self.pid}, since {duration_text((time.time() - self.since_s) * 1000)}"


@contextmanager
def hold(data_dir: Path) -> Iterator[None]:
    """Hold the data directory. Raises CommandFailed if another process does."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (data_dir / _LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise CommandFailed(
            f"the data directory {data_dir} cannot be written: {error.strerror}",
            "Choose another one with --data-dir.",
        ) from error
    with file:
        if not _lock_in_time(file):
            raise CommandFailed(
                f"Harmonia is up on {data_dir} already ({holder_of(data_dir) or 'starting'})",
                f"Use it, stop it with `harmonia down --data-dir {data_dir}`, "
                "or choose another --data-dir.",
            )
        file.truncate(0)
        json.dump({"pid": os.getpid(), "since_s": time.time()}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def holder_of(data_dir: Path) -> Holder | None:
    """Who holds the data directory now; None if nobody does."""
    try:
        file = (data_dir / _LOCK).open(encoding="utf-8")
    except OSError:
        return None
    with file:
        if _try_lock(file):
            return None
        try:
            document = json.load(file)
            holder = Holder(int(document["pid"]), float(document["since_s"]))
        except (ValueError, KeyError, TypeError):
            # It has the lock, but has not written yet who it is.
            return None
    return holder if psutil.pid_exists(holder.pid) else None


def _lock_in_time(file: IO[str]) -> bool:
    """Try for a moment: `holder_of` takes the lock for an instant to see whether it is free."""
    deadline = time.monotonic() + _PATIENCE_S
    while not _try_lock(file):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
