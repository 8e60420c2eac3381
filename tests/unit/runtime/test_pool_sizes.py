"""How many task actors there may be, by what is set and by what the cluster has."""

from __future__ import annotations

import pytest

from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.pool_sizes import PoolSizes


def cluster(cpus: float, *, scales: bool = False, complete: bool = True) -> Capacity:
    return Capacity({"a": {"CPU": cpus}}, ({"CPU": 8.0},) if scales else (), complete)


@pytest.mark.parametrize(
    ("sizes", "capacity", "warm", "most"),
    [
        (PoolSizes(), cluster(2), 2, 16),
        (PoolSizes(), cluster(0), 2, 16),
        (PoolSizes(), cluster(640), 640, 2560),
        (PoolSizes(), cluster(640, scales=True), 2, 2560),
        (PoolSizes(), cluster(640, complete=False), 2, 2560),
        (PoolSizes(warm_min=5), cluster(640, scales=True), 5, 2560),
        (PoolSizes(warm_min=50), cluster(2), 50, 52),
        (PoolSizes(actors_max=6), cluster(64), 4, 6),
        (PoolSizes(warm_min=3, actors_max=9), cluster(64), 3, 9),
    ],
)
def test_zero_is_by_the_cpus_that_there_are_now(
    sizes: PoolSizes, capacity: Capacity, warm: int, most: int
) -> None:
    limits = sizes.limits(capacity)
    assert (limits.warm_min, limits.actors_max) == (warm, most)
