"""The pauses of what is done again and again by many at a time, so that they do not keep in step.

Owners that were started together, or stood before the same store until it came back, would
otherwise ask it for the same things at the same moments, for ever.
"""

from __future__ import annotations

import random

__all__ = ["SPREAD", "Pauses"]

#: By how much of the longest pause one may be shorter. Whoever began together is spread over a
#: whole pause after some ten rounds, and nobody asks more than a third more often than he must.
SPREAD = 0.25


class Pauses:
    """The pauses of one of them. The same name always draws the same ones."""

    def __init__(self, name: str, most_s: float) -> None:
        # Nobody gains anything by guessing it.
        self._luck = random.Random(name)  # noqa: S311
        self._most_s = most_s

    def next_s(self) -> float:
        """How long to wait before the next round; never longer than the longest pause."""
        return self._most_s * (1 - SPREAD * self._luck.random())
