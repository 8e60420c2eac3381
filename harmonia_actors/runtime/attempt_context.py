"""What an action sees of its attempt: TaskContext, with progress that is coalesced."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

from harmonia_actors.components.contract import WorkspaceLike
from harmonia_actors.core.stimuli import ProgressReported
from harmonia_actors.runtime.orders import AttemptOrder, Report
from harmonia_actors.runtime.ports import Clock

__all__ = ["LiveAttempt"]

_log = logging.getLogger("harmonia.task")

_MESSAGE_CHARS_MAX = 1_000


class LiveAttempt:
    """One attempt while it runs. Implements TaskContext; safe to use from any thread."""

    def __init__(
        self,
        order: AttemptOrder,
        *,
        workspace: Callable[[str, Sequence[str]], WorkspaceLike],
        allowed_commands: frozenset[str] | None,
        report: Callable[[Report], None],
        progress_interval_ms: int,
        clock: Clock,
        flush_later: Callable[[LiveAttempt, float], None] | None = None,
    ) -> None:
        """`flush_later(self, seconds)`, called in any thread, asks for a `flush` in some seconds.

        Without it, whoever made this calls `flush` again and again.
        """
        self.order = order
        self._clock = clock
        self._workspace_of = workspace
        self._workspace: WorkspaceLike | None = None
        self._allowed_commands = allowed_commands
        self._report = report
        self._interval_s = progress_interval_ms / 1000
        self._flush_later = flush_later
        self._lock = threading.Lock()
        self._cancelled = False
        self._callbacks: list[Callable[[], None]] = []
        self._reported_s = -math.inf
        #: The latest progress, and what of it was held back because it came too soon.
        self._latest: tuple[float, str] | None = None
        self._held_back: tuple[float, str] | None = None

    @property
    def execution_id(self) -> str:
        """Id of the execution."""
        return self.order.execution_id

    @property
    def workflow_id(self) -> str:
        """Id of the workflow."""
        return self.order.workflow_id

    @property
    def task_name(self) -> str:
        """Name of the task."""
        return self.order.task_name

    @property
    def attempt(self) -> int:
        """1 for the first try."""
        return self.order.attempt

    @property
    def idempotency_key(self) -> str:
        """The same for all attempts of one task of one execution."""
        return f"{self.order.execution_id}/{self.order.task_name}"

    @property
    def workspace(self) -> WorkspaceLike:
        """Where files live; the directory is made when it is first asked for."""
        return self.open_workspace()

    def open_workspace(self) -> WorkspaceLike:
        """The workspace. Blocks the first time, if files are to be copied for long."""
        if self._workspace is None:
            self._workspace = self._workspace_of(self.order.execution_id, self.order.files_from)
        return self._workspace

    @property
    def allowed_commands(self) -> frozenset[str] | None:
        """Programs that commands may run; None means any."""
        return self._allowed_commands

    @property
    def cancelled(self) -> bool:
        """True once the attempt is to stop."""
        return self._cancelled

    def cancel(self) -> None:
        """Tell the action to stop; callbacks run in the calling thread."""
        with self._lock:
            if self._cancelled:
                return
            self._cancelled = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception:
                _log.exception("%s: a cancel callback failed", self.idempotency_key)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the attempt is to stop; at once if that has happened already."""
        with self._lock:
            if not self._cancelled:
                self._callbacks.append(callback)
                return
        callback()

    def progress(self, fraction: float, message: str = "") -> None:
        """Report progress; the latest report wins if they come faster than the set rate."""
        if not isinstance(fraction, (int, float)) or not 0.0 <= fraction <= 1.0:
            raise ValueError(f"progress must be from 0.0 to 1.0, not {fraction!r}")
        text = str(message)[:_MESSAGE_CHARS_MAX].encode("utf-8", "replace").decode()
        with self._lock:
            self._latest = (float(fraction), text)
            left_s = self._left_s()
            if left_s > 0:
                is_first = self._held_back is None
                self._held_back = self._latest
            else:
                self._reported_s = time.monotonic()
                self._held_back = None
        if left_s <= 0:
            self._tell(float(fraction), text)
        elif is_first and self._flush_later is not None:
            self._flush_later(self, left_s)

    def flush(self) -> float | None:
        """Tell progress that was held back, if its time has come; else the seconds until then."""
        with self._lock:
            if self._held_back is None:
                return None
            left_s = self._left_s()
            if left_s > 0:
                return left_s
            fraction, text = self._held_back
            self._held_back = None
            self._reported_s = time.monotonic()
        self._tell(fraction, text)
        return None

    def last_progress(self) -> Report | None:
        """The latest progress, to go with the outcome: what was told before may come behind it."""
        with self._lock:
            latest, self._held_back = self._latest, None
        return None if latest is None else self._progress_report(*latest)

    def log(self, message: str) -> None:
        """Write a line to the service's log."""
        _log.info("%s attempt %d: %s", self.idempotency_key, self.attempt, message)

    def _left_s(self) -> float:
        """Seconds until progress may be told again; the lock is held."""
        return self._reported_s + self._interval_s - time.monotonic()

    def _tell(self, fraction: float, text: str) -> None:
        self._report(self._progress_report(fraction, text))

    def _progress_report(self, fraction: float, text: str) -> Report:
        order = self.order
        now_ms = self._clock.now_ms()
        stimulus = ProgressReported(order.task, order.attempt, now_ms, fraction, text)
        return Report(order.execution_id, stimulus)
