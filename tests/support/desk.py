"""A dispatcher among actors and leases that do what the test says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from harmonia_actors.runtime.dispatch import Dispatcher, DispatchLimits
from harmonia_actors.runtime.orders import AttemptOrder, Report
from harmonia_actors.runtime.stale import Stale
from tests.support.scripted_actors import (
    ManualClock,
    ScriptedActor,
    ScriptedLeases,
    order,
    settle,
    until,
)

__all__ = ["Desk"]


class Desk:
    """A dispatcher, its leases, and what it told."""

    def __init__(
        self,
        limits: DispatchLimits | None = None,
        may_give: Callable[[], bool] = lambda: True,
    ) -> None:
        self.leases = ScriptedLeases()
        self.clock = ManualClock()
        self.reports: list[Report] = []
        self.stale: Counter[Stale] = Counter()
        self.dispatcher = Dispatcher(
            leases=self.leases,
            tell=self.reports.extend,
            clock=self.clock,
            limits=limits or DispatchLimits(),
            note_stale=lambda what, count: self.stale.update({what: count}),
            may_give=may_give,
        )

    def told(self) -> list[str]:
        """Reports as `kind task attempt`."""
        return [
            f"{type(r.stimulus).__name__} {r.stimulus.task} {r.stimulus.attempt}"
            for r in self.reports
        ]

    def start(self, *orders: AttemptOrder) -> None:
        self.dispatcher.start(orders)

    async def learn(self, actor: ScriptedActor, seconds: float = 0.0002) -> None:
        """One batch has run, so that it is known how long the action takes: not worth a call."""
        actor.seconds = seconds
        self.start(order(900))
        await until(actor.running)
        actor.end(900)
        await until(lambda: "AttemptSucceeded 900 1" in self.told())
        await settle()
        self.reports.clear()
        actor.batches.clear()

    async def __aenter__(self) -> Desk:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.dispatcher.close()
