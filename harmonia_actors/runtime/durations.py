"""How long actions take, learned from batches, so that the next batch has the right size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from harmonia_actors.runtime.orders import AttemptOrder

__all__ = ["Durations"]

#: Actions remembered; those unused longest go first.
_ACTIONS_MAX = 1_000
_LEAST_S = 0.000_02
_WEIGHT = 0.5


class Durations:
    """A moving average per action, in seconds."""

    def __init__(self) -> None:
        self._seconds: OrderedDict[tuple[str, str], float] = OrderedDict()

    def expected_s(self, order: AttemptOrder, *, otherwise: float) -> float:
        """How long an attempt will probably take; `otherwise` if its action was never seen."""
        return self._seconds.get((order.component, order.action), otherwise)

    def expected_of_all(self, order: AttemptOrder, *, otherwise: float) -> float:
        """How long it will probably take with the rest of its stretch."""
        return sum(self.expected_s(each, otherwise=otherwise) for each in (order, *order.then))

    def learn(self, chunk: Sequence[AttemptOrder], seconds: float) -> None:
        """A batch took so long. Batches of mixed actions teach each of them the mean."""
        if not chunk:
            return
        each = max(_LEAST_S, seconds / len(chunk))
        for name in {(order.component, order.action) for order in chunk}:
            known = self._seconds.pop(name, each)
            self._seconds[name] = known + _WEIGHT * (each - known)
        while len(self._seconds) > _ACTIONS_MAX:
            self._seconds.popitem(last=False)
