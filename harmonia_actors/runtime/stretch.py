"""The stretch that a task actor is on: tasks that follow one another, with what each one made.

A plain record: `TaskHost` decides how far it goes. This module must not know Ray or the store.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from harmonia_actors.core.stimuli import Output
from harmonia_actors.runtime.orders import AttemptOrder

__all__ = ["Stretch"]


@dataclass(slots=True)
class Stretch:
    """What is left of it, and the outputs that its inputs may refer to."""

    execution_id: str = ""
    since_s: float = 0.0
    rest: deque[AttemptOrder] = field(default_factory=deque)
    #: Names of the tasks whose outputs the rest refers to.
    _needed: frozenset[str] = frozenset()
    #: Outputs by task name: JSON, or the URL of a blob.
    _outputs: dict[str, bytes | str] = field(default_factory=dict)

    def begin(self, first: AttemptOrder, now_s: float) -> AttemptOrder:
        """Go on this one from now on; its first order."""
        self.execution_id, self.since_s = first.execution_id, now_s
        self.rest = deque(first.then)
        self._needed = frozenset(name for order in first.then for name in order.tasks)
        self._outputs = {}
        return replace(first, then=()) if first.then else first

    def made(self, order: AttemptOrder, output: Output) -> None:
        """An order of it has been carried out, and its output is durable."""
        if order.task_name in self._needed:
            kept = output.url if output.inline is None else output.inline
            self._outputs[order.task_name] = kept or b""

    def next_order(self) -> AttemptOrder | None:
        """The next one, with all that its input refers to; None at the end."""
        if not self.rest:
            return None
        order = self.rest.popleft()
        if order.values is None:
            return order
        made = {name: self._outputs[name] for name in order.tasks if name in self._outputs}
        return replace(order, values={**order.values, **made})

    def take_rest(self) -> list[AttemptOrder]:
        """Go no further."""
        rest = list(self.rest)
        self.rest.clear()
        return rest
