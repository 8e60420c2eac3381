"""A TaskContext for calling actions without an engine: it records what it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harmonia_actors.components.workspace import Workspace


@dataclass
class RecordingContext:
    """Implements the TaskContext protocol; `cancel()` is what the engine would do."""

    workspace: Workspace
    allowed_commands: frozenset[str] | None = None
    execution_id: str = "exec-1"
    workflow_id: str = "wf-1"
    task_name: str = "a.task"
    attempt: int = 1
    reports: list[tuple[float, str]] = field(default_factory=list, repr=False)
    lines: list[str] = field(default_factory=list)
    relayed: list[tuple[str, bytes]] = field(default_factory=list, repr=False)
    _stopped: bool = False
    _callbacks: list[Callable[[], None]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def idempotency_key(self) -> str:
        return f"{self.execution_id}/{self.task_name}"

    @property
    def cancelled(self) -> bool:
        return self._stopped

    def on_cancel(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if not self._stopped:
                self._callbacks.append(callback)
                return
        callback()

    def cancel(self) -> None:
        with self._lock:
            self._stopped = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def progress(self, fraction: float, message: str = "") -> None:
        self.reports.append((fraction, message))

    def log(self, message: str, level: str = "info") -> None:
        self.lines.append(message)

    def relay(self, stream: str, chunk: bytes) -> None:
        self.relayed.append((stream, chunk))


def context_in(directory: Path, **given: object) -> RecordingContext:
    """A context whose workspace is `directory`, with nothing else allowed."""
    return RecordingContext(Workspace(directory), **given)  # type: ignore[arg-type]
