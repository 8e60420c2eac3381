"""How much is handed out at a time: attempts of one execution, and bytes of all of one host.

An order holds the whole input of its attempt. Ten thousand tasks that become ready together must
not be ten thousand inputs in memory, so each execution has a backlog of attempts whose input is not
made yet, and makes inputs only as far as there is room. One attempt of each execution always may.
This module must not know Ray or the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from harmonia_actors.core.commands import StartAttempt
from harmonia_actors.runtime.orders import AttemptOrder

__all__ = ["Backlog", "InFlight", "size_of"]

#: What an order takes besides its input.
_ORDER_BYTES = 1_000
#: Inputs made before their sizes are looked at.
_AT_ONCE = 64

Attempt = tuple[int, int]


def size_of(order: AttemptOrder) -> int:
    """Bytes that an order holds, about."""
    values = order.values or {}
    own = _ORDER_BYTES + len(order.input) + sum(len(value) for value in values.values())
    return own + sum(map(size_of, order.then))


class InFlight:
    """The room that all executions of a host share."""

    def __init__(self, *, attempts_max: int, bytes_max: int) -> None:
        """`attempts_max`: of one execution; `bytes_max`: of all of them."""
        self.attempts_max = attempts_max
        self._bytes_max = bytes_max
        self.bytes = 0
        #: Backlogs that found no room, in the order in which they asked.
        self._waiting: dict[Backlog, None] = {}
        self._waking = False

    @property
    def left(self) -> int:
        """Bytes that nobody has taken."""
        return max(0, self._bytes_max - self.bytes)

    @property
    def is_full(self) -> bool:
        """Whether nobody who has something in flight may have more."""
        return self.bytes >= self._bytes_max

    def wait(self, backlog: Backlog) -> None:
        """Be woken when there is room."""
        self._waiting.setdefault(backlog)

    def forget(self, backlog: Backlog) -> None:
        """Do not wait any more."""
        self._waiting.pop(backlog, None)

    def released(self, size: int) -> None:
        """There is room again."""
        self.bytes -= size
        if self._waiting and not self._waking and not self.is_full:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        self._waking = False
        for backlog in list(self._waiting):
            if self.is_full:
                return
            del self._waiting[backlog]
            backlog.pump()


class Backlog:
    """What is to be started of one execution, and what has been."""

    def __init__(
        self,
        room: InFlight,
        make: Callable[[Sequence[StartAttempt]], Sequence[AttemptOrder]],
        hand_out: Callable[[Sequence[AttemptOrder]], None],
    ) -> None:
        """`make` gives the orders that can be made at once; others are its maker's business."""
        self._room = room
        self._make = make
        self._hand_out = hand_out
        self._queue: dict[Attempt, StartAttempt] = {}
        self._sizes: dict[Attempt, int] = {}
        #: The largest order of those made last: what the next ones are expected to take. At first
        #: nothing is known, and one is made alone.
        self._expected = 0

    def add(self, starts: Sequence[StartAttempt]) -> None:
        """Start these as soon as there is room."""
        self._queue.update(((start.task, start.attempt), start) for start in starts)
        self.pump()

    def withdraw(self, task: int, attempt: int) -> bool:
        """True if the attempt was still waiting here; it will not start."""
        return self._queue.pop((task, attempt), None) is not None

    def took(self, order: AttemptOrder) -> None:
        """An order was made: it takes room until its attempt has ended."""
        size = size_of(order)
        self._room.bytes += size - self._sizes.get((order.task, order.attempt), 0)
        self._sizes[(order.task, order.attempt)] = size

    def ended(self, task: int, attempt: int) -> None:
        """An attempt needs its room no more. `pump` makes use of it."""
        size = self._sizes.pop((task, attempt), None)
        if size is not None:
            self._room.released(size)

    def pump(self) -> None:
        """Start what there is room for, all that can start at once together."""
        ready: list[AttemptOrder] = []
        while starts := self._next():
            made = self._make(starts)
            self._expected = max([size_of(order) for order in made], default=_ORDER_BYTES)
            for order in made:
                self.took(order)
            ready += made
        if ready:
            self._hand_out(ready)
        if self._queue and self._room.is_full:
            self._room.wait(self)

    def close(self) -> None:
        """The execution has left this host: nothing of it waits or takes room here."""
        self._queue.clear()
        self._room.forget(self)
        for attempt in list(self._sizes):
            self.ended(*attempt)

    def _next(self) -> list[StartAttempt]:
        starts: list[StartAttempt] = []
        at_once = min(_AT_ONCE, self._room.left // self._expected) if self._expected else 1
        while self._queue and len(starts) < max(1, at_once) and self._may_have_more():
            attempt = next(iter(self._queue))
            starts.append(self._queue.pop(attempt))
            # Counted from here on, because some inputs have to be read first.
            self._room.bytes += _ORDER_BYTES
            self._sizes[attempt] = _ORDER_BYTES
        return starts

    def _may_have_more(self) -> bool:
        count = len(self._sizes)
        return not count or (count < self._room.attempts_max and not self._room.is_full)
