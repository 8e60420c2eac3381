"""What uses files and waits until its execution has a node for them.

Such starts are held back until the node is written in the execution's head: an attempt that ran
before on another one would leave its files there.
This module must not know Ray, nor how a node is found.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harmonia_actors.core.commands import StartAttempt
from harmonia_actors.core.resources import ResourceRequest

__all__ = ["NodeNeed", "NodeWait"]

#: Attempts that are shown as waiting, at most.
_SHOWN_MAX = 100


@dataclass(frozen=True, slots=True)
class NodeNeed:
    """The tasks of a workflow that use files, and what a node must have for all of them."""

    tasks: frozenset[int]
    request: ResourceRequest

    @property
    def reason(self) -> str:
        """What those tasks wait for, in words."""
        asked = self.request.describe()
        return f"no node is there yet that has {asked}, for the tasks that use files"


@dataclass
class NodeWait:
    """Starts that are held back; without a need, none ever is."""

    labels: Mapping[str, Any]
    need: NodeNeed | None
    _held: dict[tuple[int, int], StartAttempt] = field(default_factory=dict)
    _shown: set[tuple[int, int]] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether anything is held back."""
        return bool(self._held)

    def let_through(self, starts: Sequence[StartAttempt]) -> list[StartAttempt]:
        """Those that may start now, held ones first; call it only after a commit."""
        if self.need is None:
            return list(starts)
        if "node_id" in self.labels:
            held, self._held = self._held, {}
            return [*held.values(), *starts]
        free = []
        for start in starts:
            if start.task in self.need.tasks:
                self._held[(start.task, start.attempt)] = start
            else:
                free.append(start)
        return free

    def take_unshown(self) -> list[StartAttempt]:
        """Those that wait and are to be shown as waiting from now on."""
        first = itertools.islice(self._held.items(), _SHOWN_MAX)
        found = [start for attempt, start in first if attempt not in self._shown]
        self._shown.update((start.task, start.attempt) for start in found)
        return found

    def withdraw(self, task: int, attempt: int) -> bool:
        """True if the attempt was held back; it will not start."""
        return self._held.pop((task, attempt), None) is not None
