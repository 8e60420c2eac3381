"""What uses files and waits until its execution has a node for them.

Such starts are held back until the node is written in the execution's head: an attempt that ran
before on another one would leave its files there. A node that is gone is waited for like one that
has yet to come, as long as no task has left files on it that others may need.
This module must not know Ray, nor how a node is found.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from harmonia_actors.core.commands import StartAttempt
from harmonia_actors.core.execution import Execution
from harmonia_actors.core.resources import ResourceRequest
from harmonia_actors.core.statuses import TaskStatus
from harmonia_actors.runtime.ports import Nodes

__all__ = ["NodeNeed", "NodeWait"]

#: Attempts that are shown as waiting, at most.
_SHOWN_MAX = 100
#: An attempt that was lost with its node is made again, files and all.
_HAVE_WRITTEN = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED})


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

    execution: Execution
    nodes: Nodes
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
        if self._has_node(self.need):
            held, self._held = self._held, {}
            return [*held.values(), *starts]
        free = []
        for start in starts:
            if start.task in self.need.tasks:
                self._held[(start.task, start.attempt)] = start
            else:
                free.append(start)
        return free

    def _has_node(self, need: NodeNeed) -> bool:
        place = self.execution.head.node
        return bool(place) and not (self.nodes.is_gone(place) and not self._has_files(need))

    def _has_files(self, need: NodeNeed) -> bool:
        """Whether a task has ended that may have left files which others need."""
        if self.execution.head.files_from:
            return True
        rows = self.execution.rows
        return any(rows[task].status in _HAVE_WRITTEN for task in need.tasks)

    def take_unshown(self) -> list[StartAttempt]:
        """Those that wait and are to be shown as waiting from now on."""
        first = itertools.islice(self._held.items(), _SHOWN_MAX)
        found = [start for attempt, start in first if attempt not in self._shown]
        self._shown.update((start.task, start.attempt) for start in found)
        return found

    def withdraw(self, task: int, attempt: int) -> bool:
        """True if the attempt was held back; it will not start."""
        return self._held.pop((task, attempt), None) is not None
