"""One case by one source: subscribers are there, events come, and what each process took."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.fanout.cases import FanOut, measure
from benchmarks.fanout.sources import Prepared, Source, TurnedDown
from benchmarks.fanout.subscribers import read_received
from benchmarks.machine import busy_s
from benchmarks.workloads.workload import Measured
from harmonia_serve.cli.installation.processes import memory_bytes

__all__ = ["run_case"]

_SETTLE_S = 1.5
_PATIENCE_S = 90.0


@dataclass
class _Shares:
    """What some processes take, by part, from now on."""

    parts: Mapping[str, Sequence[psutil.Process]]
    _begun_s: float = field(default_factory=time.monotonic)
    _busy_s: float = field(default_factory=busy_s)
    _cpu_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._cpu_s = {part: _cpu_s(found) for part, found in self.parts.items()}

    def figures(self) -> dict[str, float]:
        """In percent of a core and in MB, of each part and of all of them."""
        seconds = time.monotonic() - self._begun_s
        busy = (busy_s() - self._busy_s) / seconds * 100
        cpu = {
            part: (_cpu_s(found) - self._cpu_s[part]) / seconds * 100
            for part, found in self.parts.items()
        }
        pss = {part: _pss_mb(found) for part, found in self.parts.items()}
        figures = {f"cpu_{part}": value for part, value in cpu.items()}
        figures |= {f"pss_{part}": value for part, value in pss.items()}
        return figures | {
            "seconds": seconds,
            "cpu_percent": sum(cpu.values()),
            "pss_mb": sum(pss.values()),
            "others_percent": max(0.0, busy - sum(cpu.values())),
        }


def run_case(source: Source, case: FanOut) -> Measured:
    """Raises TurnedDown if it cannot be measured."""
    prepared = source.prepare(case)
    with tempfile.TemporaryDirectory(prefix="bench-events-") as folder:
        into = Path(folder) / "received"
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fanout.subscribers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            _tell(process, _order(case, prepared, into))
            opened = _hear(process)["open"]
            if opened < len(prepared.streams) + len(prepared.stalled):
                raise TurnedDown(f"only {opened} streams were opened")
            time.sleep(_SETTLE_S)
            shares = _Shares({**source.processes(), "client": [psutil.Process(process.pid)]})
            source.begin()
            problems = _hear(process)["problems"]
            taken = shares.figures()
        finally:
            process.kill()
            process.wait()
        received = read_received(into)
    names = [name for name, _, _ in prepared.streams]
    measured = measure(
        case, list(zip(names, received[: len(names)], strict=True)), source.published()
    )
    figures = measured.figures | taken | {"us_per_delivery": _cost_us(measured, taken)}
    return Measured(figures, [*measured.problems, *problems])


def _cost_us(measured: Measured, taken: dict[str, float]) -> float:
    """Processor time of all but the subscribers, by delivery: it stays when others are busy, too.

    What whoever runs takes while idle, and what made the events, is in it.
    """
    sending_s = (taken["cpu_percent"] - taken["cpu_client"]) / 100 * taken["seconds"]
    return sending_s * 1e6 / max(1.0, measured.figures["deliveries"])


def _order(case: FanOut, prepared: Prepared, into: Path) -> dict[str, Any]:
    streams: list[dict[str, Any]] = [
        {"kind": kind, "path": path} for _, kind, path in prepared.streams
    ]
    streams += [{"kind": kind, "path": path, "stalls": True} for kind, path in prepared.stalled]
    return {
        "host": prepared.host,
        "port": prepared.port,
        "headers": dict(prepared.headers),
        "streams": streams,
        "patience_s": _PATIENCE_S + case.seconds,
        "into": str(into),
    }


def _tell(process: subprocess.Popen[str], order: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()


def _hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the subscribers say next; they have a patience of their own."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise TurnedDown("the subscribers have ended before their time")
    found: dict[str, Any] = json.loads(line)
    return found


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _pss_mb(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += memory_bytes(process) / 1e6
    return total
