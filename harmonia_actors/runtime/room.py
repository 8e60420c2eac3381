"""Who is in the way of a task actor that cannot start: whose end would free what it lacks.

Nodes are counted by what they have in all and what the pool's own actors take of it. Others may
take something, too, of which nothing is known here: it shows when an actor that should have room
has been waiting for long.
This module must not know Ray, nor who holds which actor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.orders import QueueKey

__all__ = ["Occupant", "who_makes_room"]

#: Ray counts resources in ten-thousandths: less than half of one is nothing.
_NOTHING = 0.00005

Amounts = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Occupant:
    """A task actor on a node, and what it takes there."""

    name: str
    node_id: str
    demand: Amounts
    is_idle: bool
    #: It will be ended as soon as it is given back: what it takes is as good as free.
    is_doomed: bool = False
    #: Several holders may use it at a time.
    is_shared: bool = False


def who_makes_room(
    key: QueueKey, occupants: Sequence[Occupant], capacity: Capacity, *, waits_long: bool
) -> str | None:
    """The actor to end next, so that one of this class can start; None if none need or would do.

    Of the nodes that could serve, room is made on the one where least is short. `waits_long`: it
    has waited where there should be room for it, so others must have taken what looks free.
    """
    demand = key.resources.demand()
    by_node: dict[str, list[Occupant]] = {}
    for one in occupants:
        by_node.setdefault(one.node_id, []).append(one)
    best: tuple[bool, float, str] | None = None
    for node_id in capacity.nodes_for([key.resources]):
        if key.node_id not in ("", node_id):
            continue
        here = by_node.get(node_id, [])
        coming = _sum(one.demand for one in here if one.is_doomed)
        free = {} if waits_long else _free(capacity.nodes[node_id], here)
        short = _short(demand, free, coming)
        if not short:
            return None
        useful = [
            one
            for one in here
            # One that serves the class itself is asked for, not ended.
            if not (one.is_doomed or (one.demand == demand and one.is_shared == key.shared))
            and any(one.demand.get(name, 0.0) for name in short)
        ]
        enough = not _short(short, _sum(one.demand for one in useful), {})
        if not useful or not (enough or waits_long):
            continue
        idle = [one for one in useful if one.is_idle]
        by_idle = not _short(short, _sum(one.demand for one in idle), {})
        share = max(amount / demand[name] for name, amount in short.items())
        most = max(idle or useful, key=lambda one: _part(one.demand, short))
        rank = (not by_idle, share, most.name)
        best = min(best, rank) if best else rank
    return best[2] if best else None


def _free(total: Amounts, here: Sequence[Occupant]) -> dict[str, float]:
    taken = _sum(one.demand for one in here)
    return {name: amount - taken.get(name, 0.0) for name, amount in total.items()}


def _short(demand: Amounts, free: Amounts, coming: Amounts) -> dict[str, float]:
    """What is missing of a demand."""
    missing = {
        name: amount - max(0.0, free.get(name, 0.0)) - coming.get(name, 0.0)
        for name, amount in demand.items()
    }
    return {name: amount for name, amount in missing.items() if amount > _NOTHING}


def _part(held: Amounts, short: Amounts) -> float:
    """How much of what is short somebody holds."""
    return sum(min(1.0, held.get(name, 0.0) / amount) for name, amount in short.items())


def _sum(parts: Iterable[Amounts]) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in parts:
        for name, amount in part.items():
            found[name] = found.get(name, 0.0) + amount
    return found
