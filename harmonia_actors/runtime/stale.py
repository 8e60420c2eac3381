"""What came from those who were succeeded, or too late, and did not count: said and counted.

Each of it is harmless, and is what fencing is for; many of them say that processes stand still, or
that somebody makes reports up. This module must not know Ray.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

__all__ = ["STALE", "NoteStale", "Stale", "unnoted"]

Stale = Literal[
    # An owner that was succeeded wanted to write.
    "commits_refused",
    # It sent attempts to a task actor that knows its successor.
    "orders_refused",
    # An attempt was told of that is not, or not any more, the current one of its task.
    "reports_ignored",
]

STALE: tuple[Stale, ...] = get_args(Stale)

#: Notes that there was so much of it. Called from any thread.
NoteStale = Callable[[Stale, int], None]


def unnoted(what: Stale, count: int) -> None:
    """Nobody counts."""
