"""How many task actors there may be, from what is configured and what the cluster has now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.slots import PoolLimits

__all__ = ["PoolSizes"]

_WARM_LEAST: Final = 2
_MOST_LEAST: Final = 16
_ACTORS_PER_CPU_MAX: Final = 4
#: Places that the warm floor leaves to tasks with resources of their own.
_PLACES_FOR_OTHERS: Final = 2


@dataclass(frozen=True, slots=True)
class PoolSizes:
    """What is configured; 0 stands for a size by the CPUs that there are."""

    warm_min: int = 0
    actors_max: int = 0
    idle_ms: int = 60_000

    def limits(self, capacity: Capacity) -> PoolLimits:
        """The limits on a cluster that has this capacity now."""
        cpus = capacity.total_cpus()
        most = self.actors_max or max(
            _MOST_LEAST, _ACTORS_PER_CPU_MAX * cpus, self.warm_min + _PLACES_FOR_OTHERS
        )
        warm = self.warm_min or max(_WARM_LEAST, _steady_cpus(capacity))
        return PoolLimits(
            warm_min=min(warm, most - _PLACES_FOR_OTHERS),
            actors_max=most,
            idle_ms=self.idle_ms,
        )


def _steady_cpus(capacity: Capacity) -> int:
    """CPUs that are there whether anybody works or not.

    Where nodes are added on demand, a warm actor on one of them would keep it for ever.
    """
    may_grow = bool(capacity.node_types) or not capacity.complete
    return 0 if may_grow else capacity.total_cpus()
