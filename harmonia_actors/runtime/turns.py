"""Keeps the reports of stretches in order: nothing of a task before the outcome of the one before.

What is told while a batch runs may arrive behind what the batch returns, and a task of a stretch
has started because of an outcome that may still be on its way.
This module must not know Ray.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from harmonia_actors.core import stimuli as st
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder, Report

__all__ = ["Turns", "members_of", "ran_of"]

_UNSTARTED = (st.AttemptReturned, st.AttemptLost, st.AttemptStopped)


def members_of(orders: Sequence[AttemptOrder]) -> list[AttemptOrder]:
    """All attempts that orders stand for, each stretch in its order."""
    return [member for order in orders for member in (order, *order.then)]


def ran_of(orders: Sequence[AttemptOrder], reports: Sequence[Report]) -> list[AttemptOrder]:
    """Those attempts of a batch that did run, by what its end has told."""
    returned = {
        each.attempt_id for each in reports if isinstance(each.stimulus, st.AttemptReturned)
    }
    return [member for member in members_of(orders) if member.id not in returned]


@dataclass(slots=True)
class Turns:
    """Which attempts follow which, as long as neither has ended."""

    _before: dict[AttemptId, AttemptId] = field(default_factory=dict)
    _behind: dict[AttemptId, AttemptId] = field(default_factory=dict)
    #: Reports that came too early, by the attempt whose outcome has to come first.
    _early: dict[AttemptId, list[Report]] = field(default_factory=dict)

    def given(self, order: AttemptOrder) -> None:
        """A stretch has been given out."""
        former = order.id
        for follower in order.then:
            self._before[follower.id], self._behind[former] = former, follower.id
            former = follower.id

    def follows(self, attempt: AttemptId) -> bool:
        """Whether another one has to end first."""
        return attempt in self._before

    def in_order(self, reports: Sequence[Report]) -> Iterator[Report]:
        """These, but for those that are too early, and those that were until now."""
        coming = deque(reports)
        while coming:
            report = coming.popleft()
            former = self._before.get(report.attempt_id)
            if former is not None and not isinstance(report.stimulus, _UNSTARTED):
                self._early.setdefault(former, []).append(report)
                continue
            yield report
            if isinstance(report.stimulus, st.AttemptSucceeded):
                # Whoever takes the reports may have forgotten it meanwhile: what was early is kept.
                coming.extendleft(reversed(self.ended(report.attempt_id)))

    def ended(self, attempt: AttemptId) -> list[Report]:
        """An attempt has ended, or is of no interest any more: what waited for its outcome."""
        former = self._before.pop(attempt, None)
        if former is not None:
            self._behind.pop(former, None)
        follower = self._behind.pop(attempt, None)
        if follower is not None:
            self._before.pop(follower, None)
        return self._early.pop(attempt, [])
