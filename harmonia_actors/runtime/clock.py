"""Clocks: the machine's, one that nobody sets, and the store's, by which all owners go.

Clocks of machines differ, by an hour if one is in a wrong zone, and they are set while they run.
What is waited for (a retry, a timeout, a checkpoint) is stored as a time of day, because whoever
takes an execution over must know it. So owners go by the one clock that they share, the store's,
and from when one has an execution it goes by a clock that goes on evenly, whatever is set.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from harmonia_actors.runtime.ports import Clock

__all__ = ["SteadyClock", "StoreClock", "SystemClock", "steady_s"]


def steady_s() -> float:
    """Seconds since some moment, by a clock that nobody sets."""
    # Where there is one that goes on while the machine sleeps, it is that.
    source = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if source is None else time.clock_gettime(source)


class SteadyClock:
    """Goes on from a time of day by a clock that nobody sets."""

    def __init__(self, at_ms: int, steady_s: Callable[[], float] = steady_s) -> None:
        self._steady_s = steady_s
        self._at_ms = at_ms
        self._since_s = steady_s()

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return self._at_ms + int((self._steady_s() - self._since_s) * 1000)

    def steady(self) -> SteadyClock:
        """Itself."""
        return self


class SystemClock:
    """The machine's time of day."""

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def steady(self) -> SteadyClock:
        """See `Clock.steady`."""
        return SteadyClock(self.now_ms())


class StoreClock:
    """The store's time of day, as it was last learned; until then, that of another clock."""

    def __init__(
        self, other: Clock, ask: Callable[[], Awaitable[int]], after: Callable[[int], Clock]
    ) -> None:
        """`ask` gives the store's time, `after` a steady clock that goes on from a time of day."""
        self._known = other.steady()
        self._ask = ask
        self._after = after

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return self._known.now_ms()

    def steady(self) -> Clock:
        """See `Clock.steady`. What is learned later makes it no other one."""
        return self._known

    async def learn(self) -> None:
        """Ask the store. Raises StoreUnavailable."""
        before_ms = self._known.now_ms()
        at_ms = await self._ask()
        # What the answer cannot contradict is kept: its way here would only put the clock back.
        if not before_ms - 1 <= at_ms <= self._known.now_ms() + 1:
            self._known = self._after(at_ms)
