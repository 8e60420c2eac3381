"""Bounds of the pool of task actors, as the settings have them."""

from __future__ import annotations

from harmonia_actors.actors.sizes import patience
from harmonia_actors.runtime.pool_host import PoolTimes
from harmonia_actors.runtime.pool_sizes import PoolSizes
from harmonia_actors.settings import Settings

__all__ = ["pool_sizes", "pool_times"]


def pool_sizes(settings: Settings) -> PoolSizes:
    """How many task actors there may be."""
    return PoolSizes(
        warm_min=settings.task_actors_min,
        actors_max=settings.task_actors_max,
        idle_ms=int(settings.task_actor_idle_s * 1000),
    )


def pool_times(settings: Settings) -> PoolTimes:
    """How patient the pool is."""
    return PoolTimes(patience=patience(settings))
