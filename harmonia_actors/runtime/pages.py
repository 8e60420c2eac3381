"""How many events one reading takes, so that what one subscriber waits with is bounded in bytes.

A log can be asked for a number of events only, and they differ in size by a thousand times. So the
size of those that came last says how many to ask for; what is too much all the same is left in the
log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

__all__ = ["Pages"]

#: The first page, when nothing is known of sizes.
_FIRST: Final = 16
#: The next one has at most so many times as many: what follows small events may be large.
_GROWTH: Final = 8
_MOST: Final = 500


class _Sized(Protocol):
    @property
    def body(self) -> bytes: ...


_E = TypeVar("_E", bound=_Sized)


class Pages:
    """The pages that one subscriber reads, one after another."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        #: Events to ask for next.
        self.count = _FIRST

    def cut(self, events: Sequence[_E]) -> Sequence[_E]:
        """As many of these as one page may hold, one at least. The rest is to be read again."""
        taken = self._fitting(events)
        rest = events[taken:]
        if rest:
            self.count = self._fitting(rest)
        elif events:
            as_these = self._bytes_max * len(events) // max(1, _size(events))
            self.count = max(1, min(as_these, self.count * _GROWTH, _MOST))
        return events[:taken]

    def _fitting(self, events: Sequence[_E]) -> int:
        size = 0
        for count, event in enumerate(events):
            size += len(event.body)
            if count and size > self._bytes_max:
                return count
        return len(events)


def _size(events: Sequence[_Sized]) -> int:
    return sum(len(event.body) for event in events)
