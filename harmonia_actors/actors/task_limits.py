"""Bounds of a task actor, as the settings have them."""

from __future__ import annotations

from harmonia_actors.runtime.attempt_log import LogLimits
from harmonia_actors.runtime.task_host import TaskHostLimits
from harmonia_actors.settings import Settings

__all__ = ["task_host_limits"]


def task_host_limits(settings: Settings) -> TaskHostLimits:
    """Times and sizes of a task actor."""
    allowed = settings.allow_commands
    return TaskHostLimits(
        start_report_ms=settings.start_report_ms,
        stretch_ms=settings.stretch_ms,
        progress_interval_ms=settings.progress_interval_ms,
        log=LogLimits(
            interval_ms=settings.task_log_interval_ms,
            line_bytes_max=settings.task_log_line_bytes_max,
            piece_bytes_max=settings.task_log_event_bytes_max,
            bytes_max=settings.task_log_bytes_max,
        ),
        allowed_commands=None if allowed is None else frozenset(allowed),
        live_attempts_max=settings.async_attempts_max,
    )
