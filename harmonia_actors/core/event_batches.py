"""Events that several subscribers are sent, with what was made of them for all.

Thousands may be sent the same events: what each of them needs in the same form, like the bytes of a
message, is made by the first one that needs it and lives as long as the batch does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

__all__ = ["EventBatch", "made_once"]

_T = TypeVar("_T")
_E = TypeVar("_E")


class EventBatch(tuple[_E, ...]):
    """Some events in a row. As long as it is the same object, it is the same events."""

    # What was made, by what it is. Not a dataclass: a batch is compared by its events.
    made: dict[str, Any]

    def __new__(cls, events: Sequence[_E]) -> EventBatch[_E]:
        batch = super().__new__(cls, events)
        batch.made = {}
        return batch


def made_once(events: Sequence[_E], form: str, make: Callable[[Sequence[_E]], _T]) -> _T:
    """What `make` makes of these events: of a batch that is shared only the first time."""
    if not isinstance(events, EventBatch):
        return make(events)
    made: dict[str, _T] = events.made
    if form not in made:
        made[form] = make(events)
    return made[form]
