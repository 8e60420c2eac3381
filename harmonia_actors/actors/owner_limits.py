"""Bounds of an execution actor, as the settings have them."""

from __future__ import annotations

from harmonia_actors.actors.sizes import most_owners, patience
from harmonia_actors.core.execution import CoreLimits
from harmonia_actors.runtime.census import CensusTimes
from harmonia_actors.runtime.dispatch import DispatchLimits
from harmonia_actors.runtime.host_limits import HostLimits
from harmonia_actors.settings import Settings

__all__ = ["census_times", "core_limits", "dispatch_limits", "host_limits"]


def core_limits(settings: Settings) -> CoreLimits:
    """Bounds of an execution's decisions."""
    return CoreLimits(
        lost_attempts_max=settings.lost_attempts_max,
        stretch_tasks_max=settings.stretch_tasks_max,
        progress_events_max=settings.events_per_execution_max,
        log_bytes_max=settings.task_log_execution_bytes_max,
        inline_output_bytes_max=settings.inline_output_bytes_max,
        checkpoints_kept=settings.automatic_checkpoints_kept,
    )


def host_limits(settings: Settings) -> HostLimits:
    """Bounds of an execution actor."""
    return HostLimits(
        owners_max=most_owners(settings),
        lease_ms=settings.lease_ms,
        executions_max=settings.executions_per_actor_max,
        output_cache_bytes=settings.output_cache_bytes,
        attempts_in_flight_max=settings.attempts_in_flight_max,
        crashes_max=settings.quarantine_crashes,
        calm_s=settings.suspect_calm_s,
        in_flight_bytes_max=settings.in_flight_bytes_max,
        lines_wait_ms=settings.task_log_interval_ms,
        lines_waiting_bytes_max=settings.task_log_waiting_bytes_max,
    )


def dispatch_limits(settings: Settings) -> DispatchLimits:
    """How attempts are batched and stopped."""
    return DispatchLimits(
        batch_target_ms=settings.batch_target_ms,
        batch_attempts_max=settings.batch_attempts_max,
        batch_bytes_max=settings.batch_bytes_max,
        shared_attempts_max=settings.async_attempts_max,
        cancel_grace_ms=settings.cancel_grace_ms,
        turn_ms=settings.lease_turn_ms,
        unreachable_s_max=settings.unreachable_s_max,
    )


def census_times(settings: Settings) -> CensusTimes:
    """How patient a new owner is with task actors."""
    return CensusTimes(patience(settings), settings.census_s_max)
