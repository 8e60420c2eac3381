"""What an execution waits for: deadline, timeouts, retries, checkpoints, earliest first.

A timer names the attempt it was made for; one that has been overtaken is dropped when it comes up,
so that nothing has to be searched for and removed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from heapq import heappop, heappush

__all__ = ["Timer", "TimerKind", "Timers"]


class TimerKind(IntEnum):
    """What the time is for."""

    DEADLINE = 0
    TASK_TIMEOUT = 1
    RETRY = 2
    CHECKPOINT = 3


Timer = tuple[int, TimerKind, int, int]


@dataclass(slots=True)
class Timers:
    """A heap of (due_ms, kind, task, attempt)."""

    heap: list[Timer] = field(default_factory=list)
    #: What was last asked for by ArmTimer; None if nothing is armed.
    armed_ms: int | None = None

    def push(self, due_ms: int, kind: TimerKind, task: int = -1, attempt: int = 0) -> None:
        """Add a timer."""
        heappush(self.heap, (due_ms, kind, task, attempt))

    def pop_due(self, at_ms: int) -> list[Timer]:
        """Remove and return those whose time has come, earliest first."""
        due = []
        while self.heap and self.heap[0][0] <= at_ms:
            due.append(heappop(self.heap))
        if self.armed_ms is not None and self.armed_ms <= at_ms:
            self.armed_ms = None
        return due

    def to_arm(self) -> int | None:
        """When to be woken, if that is earlier than what was asked for before."""
        if not self.heap:
            return None
        earliest = self.heap[0][0]
        if self.armed_ms is not None and self.armed_ms <= earliest:
            return None
        self.armed_ms = earliest
        return earliest
