"""How an owner knows by itself that its executions are certainly still its own.

The store decides who owns them, and refuses what anybody else writes. What is not written, an
attempt that is given to a task actor, nobody there can refuse: whoever stood still for longer than
its lease must not give out what was decided before, because a successor may have counted it as
lost. Task actors that the successor has asked refuse it too; those that came later know nothing.
This module must not know Ray or the store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from harmonia_actors.runtime.clock import steady_s

__all__ = ["NotOwner", "Tenure"]


class NotOwner(Exception):
    """Who wants to be an owner has been one, and was succeeded."""


class Tenure:
    """Until when the lease was had at least, by a clock that nobody sets.

    It goes on while the machine sleeps, where there is such a clock; a virtual machine that stands
    still with its clock learns nothing by it until it is next told that the lease is gone.
    """

    def __init__(self, now_s: Callable[[], float] = steady_s) -> None:
        self._now_s = now_s
        self._certain_until_s = float("-inf")
        #: Whether the store has ever answered.
        self.has_begun = False
        self._is_over = False

    @property
    def is_certain(self) -> bool:
        """Whether nobody else can have taken over; not that anybody has, if it is False."""
        return not self._is_over and self._now_s() < self._certain_until_s

    async def renew(self, ask: Callable[[], Awaitable[bool]], lease_ms: int) -> bool:
        """Renew by `ask`, and tell what it says: whether the store has renewed the lease.

        The lease runs from when the store did that, which is not before it was asked. Once it has
        said no, others have what this owner had, and no later answer makes it an owner again.
        """
        asked_s = self._now_s()
        is_renewed = not self._is_over and await ask() and not self._is_over
        self.has_begun = True
        self._is_over = not is_renewed
        if is_renewed:
            self._certain_until_s = max(self._certain_until_s, asked_s + lease_ms / 1000)
        return is_renewed
