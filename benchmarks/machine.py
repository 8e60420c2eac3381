"""The machine a run was made on, and what the processes of a system take of it."""

from __future__ import annotations

import os
import platform
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from harmonia_serve.cli.installation.processes import memory_bytes, runs

__all__ = ["Usage", "Watch", "busy_s", "commit", "facts"]

_SAMPLE_S = 2.0
_GRACE_S = 5.0


def facts() -> dict[str, Any]:
    """Processor, memory, disk and versions."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


#: What is measured, and by what. Other changes, to tests or to pages, make no other version of it.
_MEASURED = (
    *("harmonia_actors", "harmonia_serve", "persistence", "benchmarks"),
    *("examples/wfcommons.py", "pyproject.toml", "requirements.lock"),
)
#: What a run writes itself does not make it a run of something else.
_WRITTEN = ("benchmarks/README.md", "benchmarks/results")


def commit(root: Path) -> str:
    """The commit that last changed what is measured; + if it has changed since, "" if unknown."""
    paths = [*_MEASURED, *(f":!{path}" for path in _WRITTEN)]
    try:
        version = _git(root, "log", "-1", "--format=%h", "--abbrev=7", "--", *paths)
        changed = _git(root, "status", "--porcelain", "--", *paths)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return version + ("+" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return run.stdout.strip()


@dataclass
class Usage:
    """What the processes took between two looks."""

    pss_mb: float = 0.0
    processes: int = 0
    started: int = 0
    cpu_s: float = 0.0
    #: What all other processes of the machine took, in percent of one core.
    others_percent: float = 0.0


@dataclass
class Watch:
    """Looks at a process and all below it. Known by id and start, so that no id is mistaken."""

    root: psutil.Process
    _peak_mb: float = 0.0
    _seen: set[psutil.Process] = field(default_factory=set)
    _cpu: dict[psutil.Process, float] = field(default_factory=dict)

    def processes(self) -> list[psutil.Process]:
        """Those that there are now."""
        try:
            return [self.root, *self.root.children(recursive=True)]
        except psutil.Error:
            return []

    def look(self) -> tuple[float, int]:
        """(PSS in MB, processes) now."""
        total, found = 0.0, self.processes()
        for process in found:
            try:
                total += memory_bytes(process) / 1e6
                times = process.cpu_times()
                self._cpu[process] = times.user + times.system
            except psutil.Error:
                continue
        self._seen.update(found)
        self._peak_mb = max(self._peak_mb, total)
        return total, len(found)

    def run(self, wait: Any) -> tuple[Any, Usage]:
        """Call `wait` and look all the while; what it returned, and what was taken meanwhile."""
        self.look()
        self._peak_mb = 0.0
        known, cpu_s = set(self._seen), sum(self._cpu.values())
        begun, busy_before_s = time.monotonic(), busy_s()
        ended = threading.Event()

        def sample() -> None:
            while not ended.wait(_SAMPLE_S):
                self.look()

        sampler = threading.Thread(target=sample, daemon=True)
        sampler.start()
        try:
            value = wait()
        finally:
            ended.set()
            sampler.join()
        _, count = self.look()
        used = sum(self._cpu.values()) - cpu_s
        others = max(busy_s() - busy_before_s - used, 0) / (time.monotonic() - begun) * 100
        return value, Usage(self._peak_mb, count, len(self._seen - known), used, others)

    def rest(self, seconds: float) -> Usage:
        """What an idle system takes."""
        self.look()
        cpu_s = sum(self._cpu.values())
        time.sleep(seconds)
        total, count = self.look()
        return Usage(total, count, 0, sum(self._cpu.values()) - cpu_s)

    def end(self) -> int:
        """Kill what is left of all that was ever seen. How many there were."""
        # Some, like those that track a library's shared memory, end a little after their parent.
        _, alive = psutil.wait_procs(self._seen, timeout=_GRACE_S)
        left = [process for process in alive if runs(process)]
        for process in left:
            try:
                process.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(left, timeout=10)
        return len(left)


def busy_s() -> float:
    """Seconds that the cores of the machine have worked, all together; whoever it was for."""
    times = psutil.cpu_times()
    resting = times.idle + getattr(times, "iowait", 0.0)
    return float(sum(times) - resting - getattr(times, "guest", 0.0))
