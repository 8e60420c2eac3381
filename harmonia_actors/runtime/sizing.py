"""How many execution actors there should be, and whose executions need another owner.

A pure decision over what the store and Ray say; the supervisor carries it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["LeaseWatch", "OwnerView", "SizingLimits", "SizingPlan", "owners_max", "plan_owners"]

#: Where the ceiling is left to us: the more owners there are, the less goes together.
_PER_CPU = 2
_LEAST_CEILING = 4
_MOST_CEILING = 100


def owners_max(ceiling: int, least: int, cpus: float = 0.0) -> int:
    """The ceiling that is configured; for 0 one by the CPUs, not below the floor `least`."""
    by_cpus = min(max(_LEAST_CEILING, int(_PER_CPU * cpus)), _MOST_CEILING)
    return ceiling or max(by_cpus, least)


@dataclass(frozen=True, slots=True)
class SizingLimits:
    """Bounds on the number of execution actors."""

    least: int
    #: The ceiling of those that new executions make grow.
    most: int
    #: Idle ones that are kept ready while others work, also beyond the ceiling: what a dead one
    #: leaves behind goes on there, and need not wait until another process has started.
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
    #: Whether it lives and does nothing any more: see `LeaseWatch`.
    hung: bool = False


@dataclass(slots=True)
class LeaseWatch:
    """Which living owners are hung: they let their lease run out, look after look.

    A process may be stopped, or its loop may stand still: Ray says that it lives, but nobody
    drives its executions. An owner renews its lease at a third of it, so whoever is seen without
    one for half of it, in every look, is hung. While the store is away all leases run out: a look
    that fails, or comes late, says nothing about anybody, and all begins anew.
    """

    hung_after_s: float
    #: Looks that are further apart say nothing of the time between.
    gap_s_max: float
    #: Since when each was seen without a lease.
    _since_s: dict[str, float] = field(default_factory=dict)
    _hung: set[str] = field(default_factory=set)
    _looked_s: float = float("-inf")

    @property
    def hung(self) -> frozenset[str]:
        """Owners that live and are hung, also those whom the store does not know any more."""
        return frozenset(self._hung)

    def looked(self, expired: Mapping[str, bool], now_s: float) -> frozenset[str]:
        """What was seen of the living owners that the store knows; who is hung."""
        if now_s - self._looked_s > self.gap_s_max:
            self._since_s.clear()
        self._looked_s = now_s
        without = {name for name, has_run_out in expired.items() if has_run_out}
        self._since_s = {name: self._since_s.get(name, now_s) for name in without}
        self._hung.difference_update(expired.keys() - without)
        self._hung.update(n for n, s in self._since_s.items() if now_s - s >= self.hung_after_s)
        return self.hung

    def failed(self) -> None:
        """A look has failed."""
        self._since_s.clear()

    def forget(self, owner: str) -> None:
        """It has died."""
        self._since_s.pop(owner, None)
        self._hung.discard(owner)


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
    """Decide. `waiting` executions have no owner; `starting` and `serving` count actors here.

    One that is hung is succeeded as if it were dead, and is none that serves. It is not ended: it
    ends itself when it wakes and finds its lease gone.
    """
    orphan = tuple(o.name for o in owners if o.expired and (not o.alive or o.hung))
    idle = [owner for owner in owners if owner.alive and owner.load == 0 and not owner.expired]
    there = starting + serving
    # Each execution that waits gets an actor of its own below the ceiling, and some stay ready.
    wanted = max(limits.least, there + waiting + limits.spare - len(idle) - starting)
    most = limits.most + limits.spare
    if waiting and not idle and not starting and there >= most:
        # Suspects: all else is given to owners that have some already. They must not wait until one
        # of these, who get more all the time, has nothing left.
        most += 1
    create = max(0, min(wanted, most) - there)
    retire: list[str] = []
    if not waiting and not create:
        # One that starts may not come to serve: only those that do hold the floor.
        surplus = min(len(idle) - limits.spare, serving - limits.least)
        longest = sorted(idle, key=lambda owner: -owner.idle_s)
        retire = [o.name for o in longest[: max(0, surplus)] if o.idle_s >= limits.idle_s]
    return SizingPlan(create, tuple(retire), orphan, pick_up=waiting > 0)
