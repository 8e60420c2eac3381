"""Judges that what is to stop does stop: cancelled executions, and what is past its time.

A cancel counts once a client has been told that it was accepted, or a commit has removed its note.
From there on its execution must come to its end, unless it was there already. How soon, is judged
from the end of all faults on: each of them may hold up whoever has to stop something.

This module must not know how the engine decides what to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harmonia_actors.core.quarantine import QUARANTINED
from harmonia_actors.core.records import Head
from harmonia_actors.core.statuses import ExecutionStatus
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

    def committed(self, commit: Commit, head: Head) -> Iterator[str]:
        """A commit has been written for the first time. Yields what is wrong."""
        name, now_s, status = commit.execution_id, self._now_s(), head.status
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

    def _is_past(self, execution_id: str, since_s: float) -> bool:
        """Whether there was time enough to stop all of it."""
        known_s = max(since_s, self._calm_s(), self._claimed_s.get(execution_id, 0.0))
        return self._now_s() - known_s > _OBEYED_S
