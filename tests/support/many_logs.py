"""Several executions in a store, to which events are committed, and what the log must say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harmonia_actors.core import events as ev
from harmonia_actors.core.cursors import Cursor
from harmonia_actors.core.events import encode_event
from harmonia_actors.core.log_lines import LogLine
from harmonia_actors.core.options import ExecutionOptions
from harmonia_actors.core.records import Head, encode_head
from harmonia_actors.core.requests import LoggedEvent
from harmonia_actors.core.statuses import ExecutionStatus
from harmonia_actors.core.stimuli import Failure
from harmonia_actors.runtime.indexing import execution_indexes
from harmonia_actors.runtime.installation_events import InstallationEvents
from persistence.store import Commit, NewExecution, Store

__all__ = ["ManyLogs", "Said", "received"]


@dataclass(frozen=True)
class Said:
    """One event as it was committed."""

    execution_id: str
    seq: int
    #: Number of its commit in the order of all, and its place in it.
    commit: int
    place: int
    workflow_id: str
    event: ev.Event

    @property
    def id(self) -> tuple[str, int]:
        return (self.execution_id, self.seq)


@dataclass
class _Execution:
    workflow_id: str
    version: int = 1
    seq: int = 0
    ended: bool = False


@dataclass
class ManyLogs:
    """`said` lists all events in the order of commits."""

    store: Store
    #: Whether tasks write lines, too.
    with_lines: bool = False
    said: list[Said] = field(default_factory=list)
    executions: dict[str, _Execution] = field(default_factory=dict)
    commits: int = 0

    async def create(self, execution_id: str, workflow_id: str = "wf-1") -> None:
        if not self.executions:
            await self.store.renew_owner("o", lease_ms=10**9)
        # It goes with the last execution that refers to it.
        await self.store.put_definition("d", b"{}")
        self.executions[execution_id] = _Execution(workflow_id)
        head = self._head(execution_id, ExecutionStatus.RUNNING)
        new = NewExecution(
            execution_id, "d", {"head": encode_head(head)}, indexes=execution_indexes(head)
        )
        await self.store.create_execution(new, owners_max=1)

    def _head(self, execution_id: str, status: ExecutionStatus) -> Head:
        return Head(
            execution_id=execution_id,
            workflow_id=self.executions[execution_id].workflow_id,
            workflow_name="n",
            total=1,
            options=ExecutionOptions(),
            created_ms=1,
            updated_ms=1,
            status=status,
        )

    async def commit(
        self, execution_id: str, count: int = 1, *, last: bool = False, size: int = 0
    ) -> None:
        """Some events of tasks `a` and `b`, or of some size, and if `last` the end."""
        execution = self.executions[execution_id]
        told = [self._some_event(execution.seq + n) for n in range(count)]
        if size:
            told = [ev.TaskProgress("t", 0.5, "x" * size) for _ in range(count)]
        if last:
            told.append(ev.ExecutionCancelled(execution.workflow_id, "n", 5))
        first = execution.seq + 1
        status = ExecutionStatus.CANCELLED if last else ExecutionStatus.RUNNING
        await self.store.commit(
            Commit(
                execution_id,
                "o",
                1,
                execution.version + 1,
                first,
                fields={"head": encode_head(self._head(execution_id, status))},
                events=[
                    encode_event(event, seq=seq, at_ms=5, execution_id=execution_id)
                    for seq, event in enumerate(told, start=first)
                ],
                release=last,
            )
        )
        self.commits += 1
        self.said += [
            Said(execution_id, first + n, self.commits, n + 1, execution.workflow_id, event)
            for n, event in enumerate(told)
        ]
        execution.version += 1
        execution.seq += len(told)
        execution.ended = last

    async def expire(self) -> None:
        """Let all that has ended go."""
        while await self.store.expire(age_ms=0, limit=10):
            pass

    def _some_event(self, number: int) -> ev.Event:
        if self.with_lines and number % 5 == 4:
            return ev.TaskLog("ab"[number % 2], 1, (LogLine("log", "x", 1, "info"),), 0)
        return _some_event(number)

    @property
    def live(self) -> list[str]:
        return [name for name, execution in self.executions.items() if not execution.ended]


def _some_event(number: int) -> ev.Event:
    task = "ab"[number % 2]
    match number % 3:
        case 0:
            return ev.TaskStarted(task, 0, 1, 1)
        case 1:
            failure = Failure("no", "X", {})
            return ev.TaskFailed(task, 0, 1, 1, failure, 1, 2, will_retry=number % 2 == 0)
        case _:
            return ev.TaskProgress(task, 0.5, str(number))


async def received(hub: InstallationEvents, after: Cursor | None = None) -> Sequence[LoggedEvent]:
    """All that a stream sends until its end, but for its first mark and its last word."""
    found: list[LoggedEvent] = []
    async for batch in hub.events(after=after or Cursor(), follow=False):
        found += batch
    return found[1:-1]
