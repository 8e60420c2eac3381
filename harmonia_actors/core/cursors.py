"""Where a subscriber stands: in the log of one execution, or in that of the whole installation.

The events of an execution are numbered by their seq. Log lines are for those who ask, so they have
no seq of their own: `12-3` is the third event of lines after event 12. Places are in the order of
the log.

An entry of the log holds the events of one commit. A cursor names the last entry of which any
event was seen, and how many of it were: `1795000000000-42` all, `1795000000000-42.3` three, `0`
nothing yet. Cursors are in the order of the log.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["ALL", "Cursor", "Place", "parse_cursor", "parse_place"]

#: More events than one commit can have.
ALL: Final = 2**53

#: No event has this seq, or a higher one: it is no whole number for everybody who counts.
_SEQ_BOUND: Final = 2**53

_TEXT: Final = re.compile(r"([0-9]{1,15})-([0-9]{1,15})(?:\.([1-9][0-9]{0,8}))?")
_PLACE: Final = re.compile(r"([0-9]{1,16})(?:-([1-9][0-9]{0,8}))?")


class Place(NamedTuple):
    """After an event of an execution, and after so many events of lines behind it."""

    seq: int = 0
    part: int = 0

    @property
    def text(self) -> str:
        """As clients see it."""
        return f"{self.seq}-{self.part}" if self.part else str(self.seq)


def parse_place(text: str) -> Place | None:
    """The place that a client has sent; None if it cannot be one."""
    found = _PLACE.fullmatch(text)
    if found is None or int(found[1]) >= _SEQ_BOUND:
        return None
    return Place(int(found[1]), int(found[2] or 0))


class Cursor(NamedTuple):
    """After `taken` events of an entry; without arguments, before all entries."""

    at_ms: int = 0
    number: int = 0
    taken: int = ALL

    @property
    def is_partial(self) -> bool:
        """Whether events of its entry remain."""
        return self.taken != ALL

    @property
    def text(self) -> str:
        """As clients see it."""
        if not (self.at_ms or self.number):
            return "0"
        part = f".{self.taken}" if self.is_partial else ""
        return f"{self.at_ms}-{self.number}{part}"


def parse_cursor(text: str) -> Cursor | None:
    """The cursor that a client has sent; None if it cannot be one."""
    if text == "0":
        return Cursor()
    found = _TEXT.fullmatch(text)
    if found is None:
        return None
    at_ms, number, taken = found.groups()
    if taken and not int(number):
        # The log counts from 1. What a gap begins after may be 0, but nothing is a part of it.
        return None
    return Cursor(int(at_ms), int(number), int(taken) if taken else ALL)
