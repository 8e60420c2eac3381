"""Bounds of the supervisor and its janitor, as the settings have them."""

from __future__ import annotations

from harmonia_actors.actors.sizes import most_owners, patience
from harmonia_actors.runtime.janitor import JanitorLimits
from harmonia_actors.runtime.sizing import SizingLimits
from harmonia_actors.runtime.supervision import SupervisionTimes
from harmonia_actors.settings import Settings

__all__ = ["janitor_limits", "sizing_limits", "supervision_times"]


def sizing_limits(settings: Settings) -> SizingLimits:
    """How many execution actors there may be."""
    return SizingLimits(
        least=settings.execution_actors_min,
        most=most_owners(settings),
        spare=settings.execution_actors_spare,
    )


def supervision_times(settings: Settings) -> SupervisionTimes:
    """How patient the supervisor is."""
    return SupervisionTimes(patience(settings), settings.lease_ms)


def janitor_limits(settings: Settings) -> JanitorLimits:
    """How long what has ended is kept, and how much is cleaned at a time."""
    kept_s = settings.retention_s
    return JanitorLimits(
        retention_ms=None if kept_s is None else int(kept_s * 1000),
        orphan_age_s=settings.janitor_orphan_age_s,
        round_max=settings.janitor_round_max,
        compact_bytes_min=settings.store_rewrite_bytes_min if settings.store_rewrite else None,
    )
