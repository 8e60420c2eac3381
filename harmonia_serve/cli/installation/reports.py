"""What the parts of `harmonia up` tell each other about how it goes: reports, one JSON line each.

The Ray process reports to the watchdog, and a watchdog in the background to the command that
started it, through a pipe that nothing else writes to.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "Done",
    "Failed",
    "FirstKey",
    "HeadProcesses",
    "Note",
    "Ready",
    "Report",
    "ReportReader",
    "ReportWriter",
    "Show",
    "Step",
]

_READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Step:
    """Something is being started."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """It has started: what it is now, and how long that took."""

    text: str
    ms: int


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth telling that changes nothing."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class FirstKey:
    """The first API key, made just now. Never written to a log."""

    api_key: str

    def __repr__(self) -> str:
        return "FirstKey(…)"


@dataclass(frozen=True, slots=True)
class HeadProcesses:
    """Process ids of what Ray cannot live without."""

    pids: dict[str, int]


@dataclass(frozen=True, slots=True)
class Ready:
    """The service answers at this URL."""

    url: str
    has_key: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """It could not be started, or could not go on."""

    message: str
    way_out: str = ""
    #: Whether it may go well the next time: a machine under load, not a mistake.
    again: bool = False


Report = Step | Done | Note | FirstKey | HeadProcesses | Ready | Failed
Show = Callable[[Report], None]

_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Step, Done, Note, FirstKey, HeadProcesses, Ready, Failed)
}


class ReportWriter:
    """Sends reports; once nobody reads them any more, they are dropped."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor: int | None = descriptor

    def __call__(self, report: Report) -> None:
        """Send one."""
        if self._descriptor is None:
            return
        line = json.dumps([type(report).__name__, asdict(report)]) + "\n"
        left = memoryview(line.encode())
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except BrokenPipeError:
            self.close()

    def close(self) -> None:
        """Send no more."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class ReportReader:
    """Receives reports."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""
        self.ended = False

    def read(self, timeout_s: float) -> list[Report]:
        """Reports that have come, after waiting for the first one for so long at most."""
        if self.ended:
            return []
        ready, _, _ = select.select([self._descriptor], [], [], timeout_s)
        if not ready:
            return []
        chunk = os.read(self._descriptor, _READ_BYTES)
        if not chunk:
            self.ended = True
            return []
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        return [_parse(line) for line in lines]

    def close(self) -> None:
        """Read no more."""
        self.ended = True
        os.close(self._descriptor)


def _parse(line: bytes) -> Report:
    kind, fields = json.loads(line)
    report: Report = _KINDS[kind](**fields)
    return report
