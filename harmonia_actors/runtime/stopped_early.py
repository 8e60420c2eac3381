"""Attempts that were stopped before they came: calls between processes overtake each other.

This module must not know how attempts run.
"""

from __future__ import annotations

from collections.abc import Container

from harmonia_actors.runtime.orders import AttemptId

__all__ = ["StoppedEarly"]

_KEPT = 10_000


class StoppedEarly:
    """Who is told to stop an attempt that is not here remembers it, for when it comes."""

    def __init__(self) -> None:
        self._attempts: dict[AttemptId, None] = {}

    def add(self, attempt: AttemptId) -> None:
        """It was stopped, and must not begin; the oldest of too many are forgotten."""
        self._attempts[attempt] = None
        while len(self._attempts) > _KEPT:
            del self._attempts[next(iter(self._attempts))]

    def take(self, attempt: AttemptId) -> bool:
        """It has come. True if it was stopped before."""
        if attempt not in self._attempts:
            return False
        del self._attempts[attempt]
        return True

    def forget(self, executions: Container[str]) -> None:
        """They have another owner, who has stopped nothing yet."""
        for attempt in [each for each in self._attempts if each[0] in executions]:
            del self._attempts[attempt]
