"""Whether any run of the core writes a given log: a search for one.

It searches through whatever the log does not tell (cancels, timers, restarts, what was handed out,
alone or behind another one, what came in one batch). It is slow and knows nothing of the auditor's
rules: it asks the core. Times and outputs are left out; the order in which one decision drops
several tasks is left open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harmonia_actors.core import jsontext
from tests.property.histories import Message, Steps, messages_of, possible_steps

__all__ = ["Explained"]

_DROPS = ("task_skipped", "task_cancelled")


class Explained:
    """Every way in which the core could have written a log; then, whether it could another one.

    Logs that begin alike are explained alike up to where they part, so that many mutations of one
    log can be asked for.
    """

    def __init__(self, first: Steps, log: Sequence[Message]) -> None:
        self._log = log
        self._execution_id = first.head.execution_id
        #: No attempt gets further than a mutation could have it: the search comes to an end.
        self._attempt_max = 2 + max((m["data"].get("attempt", 0) for m in log), default=0)
        #: States after so many events, and decisions of several events, from where they begin.
        self._states: list[list[Steps]] = [[] for _ in range(len(log) + 1)]
        self._leaps: dict[tuple[int, tuple[_Shape, ...], object], Steps] = {}
        self._explore(log, [(0, first)], keep=True)

    def is_explained(self) -> bool:
        """Whether some run of the core begins with the log itself."""
        return bool(self._states[len(self._log)])

    def explains(self, other: Sequence[Message]) -> bool:
        """Whether some run of the core begins with this log."""
        parting = 0
        while parting < min(len(other), len(self._log)) and other[parting] == self._log[parting]:
            parting += 1
        try:
            begun = [(parting, state) for state in self._states[parting]]
            shapes = [_shape(message) for message in other]
            for (place, told, _), then in self._leaps.items():
                after = _follow(shapes, place, told) if place < parting else None
                # It may end beyond, or be cut short where the log ends.
                if after is not None and (after > parting or after == len(other)):
                    begun.append((after, then))
            return self._explore(other, begun, keep=False)
        except (KeyError, TypeError, ValueError, AttributeError):
            # The log holds what no event can hold.
            return False

    def _explore(
        self, log: Sequence[Message], begun: list[tuple[int, Steps]], *, keep: bool
    ) -> bool:
        """Follow the log from these states; True once its end is reached."""
        shapes = [_shape(message) for message in log]
        seen = {(place, state.key()) for place, state in begun}
        stack = list(begun)
        while stack:
            place, now = stack.pop()
            if keep:
                self._states[place].append(now)
            if place == len(log) and not keep:
                return True
            wanted = log[place] if place < len(log) else None
            if wanted is None:
                continue
            for _, step in possible_steps(now, wanted):
                then = now.copy()
                told = [_shape(m) for m in messages_of(step(then), self._execution_id)]
                if any(row.attempt > self._attempt_max for row in then.rows):
                    continue
                if keep and len(told) > 1:
                    self._leaps.setdefault((place, tuple(told), then.key()), then)
                after = _follow(shapes, place, told)
                if after is not None and (known := (after, then.key())) not in seen:
                    seen.add(known)
                    stack.append((after, then))
        return False


_Shape = tuple[bool, str]


def _shape(message: Message) -> _Shape:
    """What is compared, all but places, times and outputs; and whether it is a drop."""
    data = {k: v for k, v in message["data"].items() if k not in ("output", "duration_seconds")}
    parts = (message["type"], message["execution_id"], data)
    return message["type"] in _DROPS, jsontext.encode_text(parts)


def _follow(log: Sequence[_Shape], place: int, told: Sequence[_Shape]) -> int | None:
    """The place after what was told, if that is what the log has there; else None.

    Drops that stand together may have come in any order, and the log may end at any event.
    """
    part = log[place : place + len(told)]
    found, expected = _runs(part), _runs(told)
    whole = len(part) == len(told)
    for number, (mine, theirs) in enumerate(zip(found, expected, strict=False), 1):
        is_cut = not whole and number == len(found)
        if mine != theirs and not (is_cut and mine <= theirs):
            return None
    return place + len(part)


def _runs(shapes: Sequence[_Shape]) -> list[Counter[str]]:
    """Events one by one, but drops that stand together as one, in no order."""
    found: list[Counter[str]] = []
    follows_drop = False
    for is_drop, shape in shapes:
        if is_drop and follows_drop:
            found[-1][shape] += 1
        else:
            found.append(Counter([shape]))
        follows_drop = is_drop
    return found
