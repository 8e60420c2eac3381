"""How many execution actors there may be, and how patient all are with whom they cannot reach."""

from __future__ import annotations

from harmonia_actors.runtime.silence import Patience
from harmonia_actors.runtime.sizing import owners_max
from harmonia_actors.settings import Settings

__all__ = ["most_owners", "patience", "with_owners_max"]


def with_owners_max(settings: Settings, cpus: float) -> Settings:
    """The settings with the ceiling of execution actors that a cluster with so many CPUs gets.

    Set once for all processes of an installation: who gives executions to actors must agree on it.
    """
    ceiling = owners_max(settings.execution_actors_max, settings.execution_actors_min, cpus)
    return settings.model_copy(update={"execution_actors_max": ceiling})


def most_owners(settings: Settings) -> int:
    """The ceiling of execution actors, once `with_owners_max` has set it."""
    return owners_max(settings.execution_actors_max, settings.execution_actors_min)


def patience(settings: Settings) -> Patience:
    """How long actors that cannot be reached may still be alive."""
    return Patience(silent_s_max=settings.unreachable_s_max)
