"""When automatic checkpoints are due, said as plainly as can be: asked anew after each decision."""

from __future__ import annotations

from dataclasses import dataclass

from harmonia_actors.core.execution import Execution
from harmonia_actors.core.options import CheckpointPolicy
from harmonia_actors.core.statuses import TaskStatus

__all__ = ["NaiveCheckpoints"]


@dataclass
class NaiveCheckpoints:
    policy: CheckpointPolicy | None
    completed: int = 0
    since_ms: int | None = None
    #: The one that was asked for and is not there.
    outstanding: int | None = None

    def expected(self, execution: Execution, at_ms: int, *, resumed: bool) -> list[int]:
        """Seqs of the checkpoints that a decision must ask for."""
        if self.policy is None or execution.is_final:
            return []
        if self.since_ms is None:
            self.since_ms = execution.head.started_ms
        if self.since_ms is None:
            return []
        if self.outstanding is not None:
            return [self.outstanding] if resumed else []
        statuses = [row.status for row in execution.rows]
        completed = statuses.count(TaskStatus.COMPLETED)
        new, is_over = completed - self.completed, all(status.is_final for status in statuses)
        by_count, by_time = self.policy.every_completions, self.policy.every_ms
        is_due = (by_count is not None and new >= by_count) or (
            by_time is not None and at_ms >= self.since_ms + by_time
        )
        if is_over or new == 0 or not is_due:
            return []
        told = execution.told_seq
        self.completed, self.since_ms, self.outstanding = completed, at_ms, told
        return [told]
