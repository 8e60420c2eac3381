"""The processes of one installation: how they are known, counted and, at the end, ended.

Everything that Ray starts for an installation inherits one environment variable with its data
directory. A process is ours if it carries that, or descends from one that does: nothing else is
ever signalled. Process ids are compared together with their start, so that a reused id is not
mistaken.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

__all__ = ["MARKER", "end_all", "marked", "memory_bytes", "runs", "tree"]

#: Name of the environment variable that all processes of an installation carry.
MARKER = "HARMONIA_INSTALLATION"


def marked(data_dir: Path) -> list[psutil.Process]:
    """All living processes of the installation in `data_dir`, this one and its parents left out."""
    value = str(data_dir.resolve())
    found: dict[psutil.Process, None] = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == value:
                found[process] = None
        except (psutil.Error, OSError):
            # Not ours to look into, or gone in the meantime: not one of ours either way.
            continue
    return _living([*found, *tree(found)])


def tree(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    """All descendants of some processes."""
    found: dict[psutil.Process, None] = {}
    for root in roots:
        try:
            found.update(dict.fromkeys(root.children(recursive=True)))
        except psutil.Error:
            continue
    return list(found)


def end_all(processes: Iterable[psutil.Process], *, timeout_s: float = 10.0) -> int:
    """Kill processes and wait until they are gone. Returns how many there were.

    They are not asked first: who may still have to save something is asked before, by its owner.
    """
    doomed = _living(processes)
    for process in doomed:
        try:
            process.kill()
        except psutil.Error:
            continue
    deadline = time.monotonic() + timeout_s
    # Whoever is their parent collects them when it likes: a zombie has ended.
    while any(runs(process) for process in doomed) and time.monotonic() < deadline:
        time.sleep(0.02)
    return len(doomed)


def memory_bytes(process: psutil.Process) -> int:
    """Memory of a process: its share of what is shared (PSS) where that can be read."""
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", 0) or full.rss)
    except (psutil.AccessDenied, NotImplementedError):
        return int(process.memory_info().rss)


def _living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [
        process
        for process in dict.fromkeys(processes)
        if process.pid not in spared and runs(process)
    ]


def runs(process: psutil.Process) -> bool:
    """Whether a process still does something: one that waits to be collected does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
