"""What an action sees of its attempt: TaskContext, with progress and lines that are coalesced."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from harmonia_actors.components.contract import WorkspaceLike
from harmonia_actors.core.log_lines import LEVELS, LineSplitter, LogLine, safe_line
from harmonia_actors.core.stimuli import LinesReported, ProgressReported
from harmonia_actors.runtime.attempt_log import AttemptLog, LogLimits, Piece
from harmonia_actors.runtime.logs import without_keys
from harmonia_actors.runtime.orders import AttemptOrder, Report
from harmonia_actors.runtime.ports import Clock

__all__ = ["LiveAttempt"]

_log = logging.getLogger("harmonia.task")

_MESSAGE_CHARS_MAX = 1_000
#: Flushes may come so much too early or too late.
_NO_MATTER_S = 0.001
_LEVELS: Final = {level: getattr(logging, level.upper()) for level in LEVELS}


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
        log_limits: LogLimits | None = None,
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
        #: Whether it is only to stop because its process ends.
        self.is_lost = False
        self._callbacks: list[Callable[[], None]] = []
        self._reported_s = -math.inf
        #: The latest progress, and what of it was held back because it came too soon.
        self._latest: tuple[float, str] | None = None
        self._held_back: tuple[float, str] | None = None
        #: When the next `flush` comes that was asked for.
        self._flush_s = math.inf
        self._log_limits = log_limits or LogLimits()
        self._lines = AttemptLog(self._log_limits)
        #: When what waits there may be told.
        self._lines_due_s = math.inf
        self._splitters: dict[str, LineSplitter] = {}

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

    def end(self) -> None:
        """As `cancel`, because the process ends: nobody wanted this attempt to stop."""
        self.is_lost = not self._cancelled
        self.cancel()

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
                self._held_back = self._latest
            else:
                self._reported_s = time.monotonic()
                self._held_back = None
        if left_s <= 0:
            self._tell(float(fraction), text)
        else:
            self._ask_for_flush(left_s)

    def flush(self) -> float | None:
        """Tell what was held back and whose time has come; the seconds until that of the rest.

        None if nothing is left, or another flush was asked for that comes in time.
        """
        progress, piece = None, None
        with self._lock:
            if self._held_back is not None and self._left_s() <= 0:
                progress, self._held_back = self._held_back, None
                self._reported_s = time.monotonic()
            if self._lines_due_s <= time.monotonic():
                piece = self._lines.take()
                self._set_lines_due()
            left_s = self._lines_due_s - time.monotonic()
            if self._held_back is not None:
                left_s = min(left_s, self._left_s())
            next_s = self._next_flush_s(left_s)
        if progress is not None:
            self._tell(*progress)
        if piece is not None:
            self._report(self._lines_report(piece))
        return next_s

    def last_reports(self) -> list[Report]:
        """Lines and the latest progress, to go with the outcome.

        Those that were told last are among them, because they may come behind it.
        """
        with self._lock:
            latest, self._held_back = self._latest, None
        progress = [] if latest is None else [self._progress_report(*latest)]
        return [*self._last_lines(), *progress]

    def log(self, message: str, level: str = "info") -> None:
        """Write to the log of the attempt, and to the service's."""
        if level not in _LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, not {level!r}")
        text = str(message)
        _log.log(_LEVELS[level], "%s attempt %d: %s", self.idempotency_key, self.attempt, text)
        with self._lock:
            now_ms = self._clock.now_ms()
            for line in text.splitlines() or [""]:
                self._add_line("log", line, now_ms, level)
        self._lines_added()

    def relay(self, stream: str, chunk: bytes) -> None:
        """Take in what a program has written: the lines that end in it."""
        with self._lock:
            splitter = self._splitters.get(stream)
            if splitter is None:
                splitter = LineSplitter(self._log_limits.line_bytes_max)
                self._splitters[stream] = splitter
            if self._lines.is_full:
                self._lines.skip(splitter.count(chunk))
            else:
                now_ms = self._clock.now_ms()
                for line in splitter.feed(chunk):
                    self._add_output(stream, line, now_ms)
        self._lines_added()

    def _last_lines(self) -> list[Report]:
        with self._lock:
            for stream, splitter in self._splitters.items():
                for line in splitter.rest():
                    self._add_output(stream, line, self._clock.now_ms())
            pieces = self._lines.close() if self._log_limits.bytes_max else []
            self._set_lines_due()
        return [self._lines_report(each, last=each is pieces[-1]) for each in pieces]

    def lines_again(self) -> list[Report]:
        """The lines that were told last, for a new owner: the former one may not have kept them."""
        with self._lock:
            piece = self._lines.again()
        return [] if piece is None else [self._lines_report(piece)]

    def _add_output(self, stream: str, line: bytes, at_ms: int) -> None:
        """One more line of a program; the lock is held."""
        bytes_max = self._log_limits.line_bytes_max
        text = line[:bytes_max].decode("utf-8", "replace")
        self._add_line(stream, text, at_ms, is_cut=len(line) > bytes_max)

    def _add_line(
        self, stream: str, text: str, at_ms: int, level: str = "", *, is_cut: bool = False
    ) -> None:
        """One more line; the lock is held."""
        if self._lines.is_full:
            self._lines.skip(1)
            return
        bytes_max = self._log_limits.line_bytes_max
        safe = safe_line(text, bytes_max, conceal=without_keys, is_cut=is_cut)
        self._lines.add(LogLine(stream, safe, at_ms, level))

    def _lines_added(self) -> None:
        """Have lines told that wait, unless that has been asked for already."""
        with self._lock:
            if self._lines_due_s < math.inf or not self._log_limits.bytes_max:
                return
            self._set_lines_due()
            left_s = self._lines_due_s - time.monotonic()
        if left_s < math.inf:
            self._ask_for_flush(max(0.0, left_s))

    def _set_lines_due(self) -> None:
        """What waits may be told an interval from now; the lock is held."""
        after_s = self._log_limits.interval_ms / 1000
        self._lines_due_s = time.monotonic() + after_s if self._lines.waits else math.inf

    def _ask_for_flush(self, left_s: float) -> None:
        """Unless one comes as early: progress and lines have rates of their own."""
        with self._lock:
            at_s = time.monotonic() + left_s
            if self._flush_later is None or self._flush_s <= at_s + _NO_MATTER_S:
                return
            self._flush_s = at_s
        self._flush_later(self, left_s)

    def _next_flush_s(self, left_s: float) -> float | None:
        """Seconds until the flush after one that has come now; the lock is held."""
        now_s = time.monotonic()
        if now_s + _NO_MATTER_S < self._flush_s < math.inf:
            # This one was asked for before, for later: that one goes on with what is left.
            return None
        self._flush_s = now_s + left_s
        return max(0.0, left_s) if left_s < math.inf else None

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

    def _lines_report(self, piece: Piece, *, last: bool = False) -> Report:
        order, now_ms = self.order, self._clock.now_ms()
        stimulus = LinesReported(order.task, order.attempt, now_ms, *piece, last)
        return Report(order.execution_id, stimulus)
