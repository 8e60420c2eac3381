"""Which faults strike, and when: all of it drawn from the seed, each counted when it has landed.

Every seed switches on some kinds only and makes them rare or frequent: with everything on at once,
one fault hides what another one would show.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

__all__ = ["CHANCES", "INTERVALS_S", "OTHERS", "Faults"]

_T = TypeVar("_T")

#: Faults at a point of the program, with the chance that each passing of the point has.
CHANCES: Mapping[str, float] = {
    # An owner dies in a gap of decide, commit, perform, publish.
    "owner dies with a decision": 0.02,
    "owner dies with a commit": 0.02,
    "owner dies before it performs": 0.02,
    "owner dies while it performs": 0.04,
    "owner dies before it publishes": 0.03,
    "owner stops before it performs": 0.02,
    # The store.
    "store request is lost": 0.03,
    "store reply is lost": 0.04,
    "store request comes late": 0.02,
    "commit comes late": 0.03,
    "blob store fails": 0.2,
    # The network between owners, task actors and replicas of the service.
    "report is lost": 0.08,
    "report comes twice": 0.08,
    "report comes late": 0.08,
    "message is lost": 0.15,
    "message comes twice": 0.05,
    "message comes late": 0.05,
    "call fails though its actor lives": 0.01,
    "task actor dies with its outcome": 0.04,
    "task actor does not start": 0.1,
}

#: Faults that come at any time, with the mean number of seconds between two.
INTERVALS_S: Mapping[str, float] = {
    "owner dies": 6.0,
    "owner stops": 6.0,
    "task actor dies": 4.0,
    "task actor stops": 8.0,
    "store is away": 8.0,
    "store is slow": 8.0,
    "clock jumps": 8.0,
    "owner is cut off from the store": 8.0,
    "owner is thought dead": 8.0,
    "task pool dies": 10.0,
    "supervisor dies": 10.0,
    "broadcaster dies": 8.0,
    "service dies": 10.0,
    "streams die": 8.0,
    "half of all dies": 15.0,
    "everything dies": 20.0,
}

#: Faults that are there from the beginning of a process on.
OTHERS = ("clock is off",)

#: What share of all kinds a seed has; few at a time let each other be seen.
_SHARES_ON = (0.1, 0.3, 0.6)


class Faults:
    """The faults of one run."""

    def __init__(self, seed: str) -> None:
        self._luck = random.Random(f"{seed}/faults")
        self._share_on = self._luck.choice(_SHARES_ON)
        self.landed: Counter[str] = Counter()
        #: From here on nothing goes wrong any more.
        self.over = False
        self._chances = {kind: self._scaled(chance) for kind, chance in CHANCES.items()}
        self.intervals_s = {
            kind: mean_s / scale
            for kind, mean_s in INTERVALS_S.items()
            if (scale := self._scaled(1.0))
        }

    def _scaled(self, chance: float) -> float:
        """Off, or between half of it and three times as much."""
        is_on = self._luck.random() < self._share_on
        scale = self._luck.choice((0.5, 1.0, 1.0, 3.0))
        return chance * scale if is_on else 0.0

    def strikes(self, kind: str) -> bool:
        """Whether this fault happens here and now; then it counts as landed."""
        chance = self._chances[kind]
        if self.over or not chance or self._luck.random() >= chance:
            return False
        self.landed[kind] += 1
        return True

    def between(self, least: float, most: float) -> float:
        """How much of something there is."""
        return self._luck.uniform(least, most)

    def whether(self, chance: float) -> bool:
        """A side question of a fault that strikes."""
        return self._luck.random() < chance

    def gap_s(self, kind: str) -> float:
        """Until a fault of this kind comes again."""
        return self._luck.expovariate(1 / self.intervals_s[kind])

    def one_of(self, several: Sequence[_T]) -> _T:
        """Whom it hits."""
        return self._luck.choice(several)
