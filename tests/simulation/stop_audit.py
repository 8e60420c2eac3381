"""Judges that what is to stop does stop: cancelled executions, and what is past its time.

A cancel counts once a client has been told that it was accepted, or a commit has removed its note.
From there on its execution must come to its end, unless it was there already. A timeout counts from
when the store was told that the attempt, or the execution, has begun. How soon something is to stop
is judged from the end of all faults on: each of them may hold up whoever has to stop it.

This module must not know how the engine decides what to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harmonia_actors.core import events as ev
from harmonia_actors.core.execution import Execution
from harmonia_actors.core.quarantine import QUARANTINED
from harmonia_actors.core.records import Head
from harmonia_actors.core.statuses import ExecutionStatus
from harmonia_actors.core.workflow import Workflow
from harmonia_actors.runtime.orders import AttemptOrder
from persistence.store import Commit

__all__ = ["READ_S", "StopAuditor"]

#: Until a note is certainly read, if nothing goes wrong: a lease runs out, somebody looks, an owner
#: is started and takes its census. An owner that is there looks every second.
READ_S = 15.0
#: From a decision to stop until nothing of it begins any more, or is left: requests to the store
#: that come late, a silent task actor, the grace, the death of who did not obey.
_OBEYED_S = 8.0

_STOPPING = (ExecutionStatus.CANCELLING, ExecutionStatus.CANCELLED)


@dataclass
class _Cancel:
    """What is known of the cancel of one execution, and when that was."""

    acknowledged_s: float | None = None
    #: A commit has removed its note.
    taken_s: float | None = None
    #: The execution was at its end by then, or came there by that very commit.
    too_late: bool = False


class StopAuditor:
    """Knows what is to stop, and since when."""

    def __init__(self, now_s: Callable[[], float], calm_s: Callable[[], float]) -> None:
        """`calm_s`: since when nothing goes wrong any more; infinite until then."""
        self._now_s = now_s
        self._calm_s = calm_s
        self._cancels: dict[str, _Cancel] = {}
        #: When each execution got the owner that it has.
        self._claimed_s: dict[str, float] = {}
        self._ended_s: dict[str, float] = {}
        #: What runs of each task, as the log has it: its attempt, and when that was told.
        self._running: dict[tuple[str, int], tuple[int, float]] = {}
        self._started_s: dict[str, float] = {}

    def acknowledged(self, execution_id: str) -> None:
        """A client has been told that its cancel is accepted."""
        cancel = self._cancels.setdefault(execution_id, _Cancel())
        if cancel.acknowledged_s is None:
            cancel.acknowledged_s = self._now_s()

    def claimed(self, execution_id: str) -> None:
        """An execution has another owner, who has to find out what is to stop."""
        self._claimed_s[execution_id] = self._now_s()

    def begun(self, order: AttemptOrder, suspicion_s: float) -> Iterator[str]:
        """An attempt begins. Yields what is wrong."""
        cancel = self._cancels.get(order.execution_id)
        if cancel is None:
            return
        if cancel.taken_s is not None and self._is_past(order.execution_id, cancel.taken_s):
            yield f"{order.id} begins, though its cancel was taken in at {cancel.taken_s:.3f} s"
        since_s, patience_s = cancel.acknowledged_s, READ_S + suspicion_s
        if since_s is not None and self._now_s() - max(since_s, self._calm_s()) > patience_s:
            yield f"{order.id} begins, though its cancel was acknowledged at {since_s:.3f} s"

    def ended(self, order: AttemptOrder, workflow: Workflow) -> Iterator[str]:
        """An attempt has ended in a process that lives. Yields what is wrong."""
        attempt, told_s = self._running.get((order.execution_id, order.task), (0, 0.0))
        timeout_ms = workflow.tasks[order.task].timeout_ms
        # What the log does not show as running, nobody knows of who could stop it.
        if timeout_ms is None or attempt != order.attempt:
            return
        if self._is_past(order.execution_id, told_s, timeout_ms):
            yield f"{order.id} began before {told_s:.3f} s, and ends after its timeout"

    def told(self, execution_id: str, raw: Mapping[str, Any]) -> None:
        """An event is stored."""
        kind, data = raw["type"], raw["data"]
        if kind == ev.TaskStarted.type:
            self._running[(execution_id, data["task_index"])] = data["attempt"], self._now_s()
        elif "task_index" in data:
            self._running.pop((execution_id, data["task_index"]), None)

    def committed(self, commit: Commit, execution: Execution) -> Iterator[str]:
        """A commit has been written for the first time. Yields what is wrong."""
        head = execution.head
        name, now_s, status = commit.execution_id, self._now_s(), head.status
        begun_s = self._started_s.setdefault(name, now_s)
        timeout_ms = head.options.timeout_ms or execution.workflow.timeout_ms
        if timeout_ms is not None and status.is_final and self._is_past(name, begun_s, timeout_ms):
            yield f"it began at {begun_s:.3f} s, and ends after its timeout"
        if "cancel" in commit.inbox_done:
            cancel = self._cancels.setdefault(name, _Cancel())
            if status not in _STOPPING:
                cancel.too_late = status.is_final
                if not cancel.too_late:
                    yield f"the note of its cancel is gone, and it is {status}"
            cancel.taken_s = now_s if cancel.taken_s is None else cancel.taken_s
        if status.is_final:
            self._ended_s[name] = now_s
            since_s = getattr(self._cancels.get(name), "taken_s", None)
            if since_s is not None and self._is_past(name, since_s):
                yield f"its cancel was taken in at {since_s:.3f} s, and it ends only now"

    def check_end(self, execution_id: str, head: Head, suspicion_s: float) -> Iterator[str]:
        """Whether a cancel that was accepted has been obeyed. Yields what is wrong."""
        cancel = self._cancels.get(execution_id)
        if cancel is None or head.status is ExecutionStatus.CANCELLED:
            return
        if head.error is not None and head.error["code"] == QUARANTINED:
            return
        if cancel.taken_s is not None and not cancel.too_late:
            yield f"its cancel was taken in, but it is {head.status}"
        since_s = cancel.acknowledged_s
        if since_s is None:
            return
        late_s = self._ended_s[execution_id] - max(since_s, self._calm_s())
        if late_s > READ_S + suspicion_s:
            yield f"its cancel was acknowledged at {since_s:.3f} s, but it is {head.status}"

    def _is_past(self, execution_id: str, since_s: float, timeout_ms: int = 0) -> bool:
        """Whether there was time enough to stop all of it.

        An owner that takes over waits for no longer than if the wait began there.
        """
        known_s = max(since_s, self._calm_s(), self._claimed_s.get(execution_id, 0.0))
        return self._now_s() - known_s > timeout_ms / 1000 + _OBEYED_S
