"""Random clusters: whoever is ended to make room frees what is short, and nobody is in vain."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as some

from harmonia_actors.core.resources import Capacity, ResourceRequest
from harmonia_actors.runtime.orders import QueueKey
from harmonia_actors.runtime.room import Occupant, who_makes_room

REQUESTS = [
    ResourceRequest(num_cpus=cpus, num_gpus=gpus, custom=custom)
    for cpus in (0.0, 1.0, 2.0)
    for gpus in (0.0, 0.5, 1.0)
    for custom in ((), (("fpga", 1.0),))
]
NODES = ("a", "b")


@some.composite
def clusters(draw: some.DrawFn) -> tuple[Capacity, list[Occupant]]:
    """Nodes, and actors on them that take no more than there is."""
    totals = {
        node: {
            "CPU": float(draw(some.integers(0, 4))),
            "GPU": float(draw(some.integers(0, 2))),
            "fpga": float(draw(some.integers(0, 1))),
        }
        for node in NODES
    }
    capacity = Capacity(nodes=totals)
    placed: list[Occupant] = []
    for number in range(draw(some.integers(0, 8))):
        node = draw(some.sampled_from(NODES))
        demand = draw(some.sampled_from(REQUESTS)).demand()
        free = free_on(capacity, placed, node)
        if all(free.get(name, 0) >= amount for name, amount in demand.items()):
            is_doomed = draw(some.booleans())
            is_idle = draw(some.booleans()) and not is_doomed
            is_shared = draw(some.integers(0, 3)) == 0
            placed.append(Occupant(f"t{number}", node, demand, is_idle, is_doomed, is_shared))
    return capacity, placed


def free_on(capacity: Capacity, placed: list[Occupant], node: str) -> dict[str, float]:
    free = dict(capacity.nodes[node])
    for one in placed:
        if one.node_id == node:
            for name, amount in one.demand.items():
                free[name] -= amount
    return free


def fits(capacity: Capacity, placed: list[Occupant], key: QueueKey) -> bool:
    """Whether it could start, once those that are doomed have gone."""
    left = [one for one in placed if not one.is_doomed]
    return any(
        all(free_on(capacity, left, node).get(n, 0) >= amount for n, amount in demand.items())
        for node in ([key.node_id] if key.node_id else NODES)
        for demand in [key.resources.demand()]
    )


keys = some.builds(
    QueueKey, some.sampled_from(REQUESTS), some.sampled_from(["", "a", "b"]), some.booleans()
)


@given(clusters(), keys, some.booleans())
def test_what_is_ended_holds_what_is_short_where_it_could_start(
    cluster: tuple[Capacity, list[Occupant]], key: QueueKey, waits_long: bool
) -> None:
    capacity, placed = cluster
    name = who_makes_room(key, placed, capacity, waits_long=waits_long)
    if name is None:
        return
    chosen = next(one for one in placed if one.name == name)
    assert not chosen.is_doomed
    assert key.node_id in ("", chosen.node_id)
    demand = key.resources.demand()
    assert (chosen.demand, chosen.is_shared) != (demand, key.shared), "it would serve itself"
    assert all(
        capacity.nodes[chosen.node_id].get(n, 0) >= amount for n, amount in demand.items()
    ), "it could never start there"
    free = free_on(capacity, [p for p in placed if not p.is_doomed], chosen.node_id)
    short = {n for n, amount in demand.items() if waits_long or free[n] < amount}
    assert short & set(chosen.demand), "what it holds is of no use"
    assert waits_long or not fits(capacity, placed, key)


@given(clusters(), keys)
def test_room_is_made_if_it_can_be_and_nobody_is_ended_in_vain(
    cluster: tuple[Capacity, list[Occupant]], key: QueueKey
) -> None:
    capacity, placed = cluster
    demand = key.resources.demand()
    fixed = [one for one in placed if (one.demand, one.is_shared) == (demand, key.shared)]
    ended: list[Occupant] = []
    while (name := who_makes_room(key, placed, capacity, waits_long=False)) is not None:
        chosen = next(one for one in placed if one.name == name)
        ended.append(chosen)
        placed = [
            replace(one, is_doomed=True) if one is chosen else one
            for one in placed
            if one is not chosen or not one.is_idle
        ]
    assert fits(capacity, placed, key) == fits(capacity, fixed, key)
    assert len({one.node_id for one in ended}) <= 1, "room on two nodes is no room"
    if ended:
        back = replace(ended[-1], is_doomed=False)
        before = [one for one in placed if one.name != back.name]
        assert not fits(capacity, [*before, back], key), "the last one was ended in vain"
