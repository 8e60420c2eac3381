"""How many execution actors there should be, and whose executions need another owner.

A pure decision over what the store and Ray say; the supervisor carries it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["OwnerView", "SizingLimits", "SizingPlan", "plan_owners"]


@dataclass(frozen=True, slots=True)
class SizingLimits:
    """Bounds on the number of execution actors."""

    least: int
    most: int
    #: Idle ones that are kept ready while others work, until the ceiling is reached.
    spare: int = 1
    idle_s: float = 60.0


@dataclass(frozen=True, slots=True)
class OwnerView:
    """A registered owner, as store and Ray see it."""

    name: str
    load: int
    #: Whether Ray knows it here.
    alive: bool
    #: Whether its lease has run out.
    expired: bool
    idle_s: float


@dataclass(frozen=True, slots=True)
class SizingPlan:
    """What is to be done."""

    create: int
    retire: tuple[str, ...]
    orphan: tuple[str, ...]
    pick_up: bool


def plan_owners(
    owners: Sequence[OwnerView],
    *,
    waiting: int,
    starting: int,
    serving: int,
    limits: SizingLimits,
) -> SizingPlan:
    """Decide. `waiting` executions have no owner; `starting` and `serving` count actors here."""
    orphan = tuple(owner.name for owner in owners if owner.expired and not owner.alive)
    idle = [owner for owner in owners if owner.alive and owner.load == 0 and not owner.expired]
    there = starting + serving
    # Each execution that waits gets an actor of its own below the ceiling, and one stays ready.
    wanted = max(limits.least, there + waiting + limits.spare - len(idle) - starting)
    create = max(0, min(wanted, limits.most) - there)
    retire: list[str] = []
    if not waiting and not create:
        # One that starts may not come to serve: only those that do hold the floor.
        surplus = min(len(idle) - limits.spare, serving - limits.least)
        longest = sorted(idle, key=lambda owner: -owner.idle_s)
        retire = [o.name for o in longest[: max(0, surplus)] if o.idle_s >= limits.idle_s]
    return SizingPlan(create, tuple(retire), orphan, pick_up=waiting > 0)
