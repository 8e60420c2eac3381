"""What is true of every execution between two stimuli, as named rules.

    I1   a task has begun only if all it depends on has completed, and has been handed out only if
         all but one has: behind that one, in a stretch
    I2   final is final: a task or an execution that has ended never changes again
    I3   at most one attempt of a task lives at a time, and attempt numbers only grow; of one that
         is over, the row shows no progress and no lines, and no start either while the task is
         pending
    I4   a completed task has its output, which never changes
    I6   the seq of events grows by one with each, without gap or repeat
    I7   state, stored and read again, is the same state
    I8   counters equal a recount
    I9   the status of an execution follows from its tasks, its error and whether it was cancelled
    I10  whatever has begun and has not ended waits for something that will come
    I11  no automatic checkpoint is due that was not decided on; the next one has its timer
    I12  the node of its files, once chosen, is never another one

`violations` asks one state, `violations_since` what happened between two, `violations_of` the
events of a decision. All are pure; each message begins with the name of its rule. (I5, a limit on
what runs at a time, is not of this module: task actors are limited, executions are not.)
This module must not know stores, clocks or logs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harmonia_actors.core.commands import StopReason
from harmonia_actors.core.events import FINAL_EVENT_TYPES
from harmonia_actors.core.execution import Decision, Execution
from harmonia_actors.core.records import (
    OutputReference,
    TaskRow,
    decode_head,
    decode_row,
    encode_head,
    encode_row,
)
from harmonia_actors.core.statuses import ExecutionStatus, TaskStatus
from harmonia_actors.core.timers import TimerKind

__all__ = ["Picture", "picture", "violations", "violations_of", "violations_since"]

_BEGUN = frozenset({TaskStatus.RUNNING, TaskStatus.RETRYING, TaskStatus.COMPLETED})
_WITHOUT_PROGRESS = frozenset({TaskStatus.PENDING, TaskStatus.RETRYING})
_ENDED_WITHOUT = frozenset({TaskStatus.FAILED, TaskStatus.SKIPPED, TaskStatus.CANCELLED})


@dataclass(frozen=True, slots=True)
class Picture:
    """What `violations_since` has to remember of an earlier state."""

    seq: int
    status: ExecutionStatus
    statuses: tuple[TaskStatus, ...]
    attempts: tuple[int, ...]
    outputs: tuple[OutputReference | None, ...]
    node_id: str | None


def picture(execution: Execution) -> Picture:
    """The state as of now, for a later `violations_since`."""
    rows = execution.rows
    return Picture(
        seq=execution.seq,
        status=execution.head.status,
        statuses=tuple(row.status for row in rows),
        attempts=tuple(row.attempt for row in rows),
        outputs=tuple(row.output for row in rows),
        node_id=execution.head.labels.get("node_id"),
    )


def violations(execution: Execution) -> list[str]:
    """Rules that the state breaks; empty if all is well. For executions that were resumed."""
    return [
        *_order(execution),
        *_attempts(execution),
        *_outputs(execution),
        *_records(execution),
        *_counters(execution),
        *_status(execution),
        *_outstanding(execution),
        *_automatic(execution),
    ]


def violations_since(before: Picture, execution: Execution) -> list[str]:
    """Rules that were broken on the way from an earlier state to this one."""
    found = []
    if before.status.is_final and (
        execution.head.status is not before.status or execution.seq != before.seq
    ):
        found.append(f"I2 the execution was {before.status} and has changed since")
    for index, row in enumerate(execution.rows):
        name = execution.workflow.tasks[index].name
        if before.statuses[index].is_final and row.status is not before.statuses[index]:
            found.append(f"I2 task '{name}' was {before.statuses[index]}, is {row.status}")
        if row.attempt < before.attempts[index]:
            found.append(
                f"I3 task '{name}' was at attempt {before.attempts[index]}, is at {row.attempt}"
            )
        if before.outputs[index] is not None and row.output != before.outputs[index]:
            found.append(f"I4 the output of task '{name}' has changed")
    if execution.seq < before.seq:
        found.append(f"I6 seq was {before.seq}, is {execution.seq}")
    node_id = execution.head.labels.get("node_id")
    if before.node_id is not None and node_id != before.node_id:
        found.append(f"I12 the files were on node {before.node_id}, are on {node_id}")
    return found


def violations_of(decision: Decision, *, seq_before: int, seq_after: int) -> list[str]:
    """Rules that the events of a decision break."""
    found = [
        f"I6 event {numbered.index} stands where {expected} belongs"
        for expected, numbered in enumerate(decision.events, seq_before + 1)
        if numbered.index != expected
    ]
    if seq_after != seq_before + len(decision.events):
        found.append(f"I6 {len(decision.events)} events took seq from {seq_before} to {seq_after}")
    found.extend(
        f"I2 event {numbered.seq} ({numbered.event.type}) is followed by others"
        for numbered in decision.events[:-1]
        if numbered.event.type in FINAL_EVENT_TYPES
    )
    return found


def _named(execution: Execution) -> Iterator[tuple[int, str, TaskRow]]:
    for index, row in enumerate(execution.rows):
        yield index, execution.workflow.tasks[index].name, row


def _order(execution: Execution) -> Iterator[str]:
    for index, name, row in _named(execution):
        if row.status not in _BEGUN and index not in execution.handed_out:
            continue
        parents = execution.workflow.graph.parents[index]
        open_ones = [p for p in parents if execution.rows[p].status is not TaskStatus.COMPLETED]
        if row.status is TaskStatus.PENDING and len(open_ones) == 1:
            continue
        for parent in open_ones:
            status = execution.rows[parent].status
            other = execution.workflow.tasks[parent].name
            yield f"I1 task '{name}' is {row.status} while '{other}' is {status}"


def _attempts(execution: Execution) -> Iterator[str]:
    for index, name, row in _named(execution):
        if row.attempt < 1 or row.failures < 0 or row.losses < 0:
            yield f"I3 task '{name}' is at attempt {row.attempt}"
        if row.failures + row.losses > row.attempt:
            ended = row.failures + row.losses
            yield f"I3 task '{name}' is at attempt {row.attempt}, but {ended} have ended"
        if row.status is TaskStatus.PENDING and row.started_ms is not None:
            yield f"I3 task '{name}' is pending, but has begun at {row.started_ms}"
        yield from _midway(name, row)
        if row.status is TaskStatus.RUNNING and index not in execution.handed_out:
            yield f"I3 task '{name}' runs, but was not handed out"
        if row.status.is_final and index in execution.handed_out:
            yield f"I2 task '{name}' is {row.status}, but an attempt of it lives"
        if row.status.is_final and row.completed_ms is None:
            yield f"I2 task '{name}' is {row.status}, but it is not known since when"
    for index in execution._stopping.keys() - execution.handed_out:
        name = execution.workflow.tasks[index].name
        yield f"I3 task '{name}' is being stopped, but no attempt of it lives"


def _midway(name: str, row: TaskRow) -> Iterator[str]:
    if row.status in _WITHOUT_PROGRESS and (row.progress is not None or row.message):
        yield f"I3 task '{name}' is {row.status}, but shows the progress of an attempt"
    if row.status is not TaskStatus.RUNNING and row.lines:
        yield f"I3 task '{name}' is {row.status}, but counts the lines of an attempt"


def _outputs(execution: Execution) -> Iterator[str]:
    for _, name, row in _named(execution):
        if (row.status is TaskStatus.COMPLETED) != (row.output is not None):
            yield f"I4 task '{name}' is {row.status}, its output is {row.output}"
    has_output = execution.head.output is not None
    if has_output != (execution.head.status is ExecutionStatus.COMPLETED):
        yield f"I4 the execution is {execution.head.status}, its output {execution.head.output}"


def _records(execution: Execution) -> Iterator[str]:
    head = encode_head(execution.head)
    if encode_head(decode_head(head)) != head:
        yield "I7 the head is another one when stored and read again"
    for _, name, row in _named(execution):
        body = encode_row(row)
        if decode_row(body) != row or encode_row(decode_row(body)) != body:
            yield f"I7 the row of task '{name}' is another one when stored and read again"


def _counters(execution: Execution) -> Iterator[str]:
    rows = execution.rows
    completed = TaskStatus.COMPLETED
    for index, name, _ in _named(execution):
        parents = execution.workflow.graph.parents[index]
        waiting = sum(rows[parent].status is not completed for parent in parents)
        if execution.waiting_on[index] != waiting:
            yield f"I8 task '{name}' waits for {waiting}, counted {execution.waiting_on[index]}"
    recounts = {
        "open_count": (execution.open_count, sum(not row.status.is_final for row in rows)),
        "completed_tasks": (
            execution.head.completed_tasks,
            sum(row.status is completed for row in rows),
        ),
        "total": (execution.head.total, len(rows)),
    }
    for counter, (kept, counted) in recounts.items():
        if kept != counted:
            yield f"I8 {counter} is {kept}, a recount gives {counted}"
    running = {index for index, row in enumerate(rows) if row.status is TaskStatus.RUNNING}
    if set(execution._running) != running:
        yield f"I8 running are {sorted(running)}, kept is {sorted(execution._running)}"


def _status(execution: Execution) -> Iterator[str]:
    head, rows = execution.head, execution.rows
    status = head.status
    ended = [row.status for row in rows if row.status.is_final]
    without = [each for each in ended if each in _ENDED_WITHOUT]
    if status.is_final and len(ended) < len(rows):
        yield f"I9 the execution is {status}, but {len(rows) - len(ended)} tasks are not final"
    if status is ExecutionStatus.COMPLETED and (without or head.error is not None):
        yield f"I9 the execution is completed with {len(without)} tasks that are not"
    if status is ExecutionStatus.FAILED and head.error is None:
        yield "I9 the execution is failed, and nothing says why"
    if status is ExecutionStatus.PENDING and (execution.handed_out or without):
        yield "I9 the execution is pending, but tasks of it have begun or ended"
    if status is ExecutionStatus.RUNNING and head.error is None and without:
        yield f"I9 the execution is running without an error, but a task is {without[0]}"
    if status is ExecutionStatus.RUNNING and len(ended) == len(rows) and not execution._composing:
        yield "I9 all tasks are final, but the execution is running"
    if status is ExecutionStatus.CANCELLING and len(ended) == len(rows):
        yield "I9 all tasks are final, but the execution is cancelling"
    if status.is_final != (head.completed_ms is not None):
        yield f"I9 the execution is {status}, completed_ms is {head.completed_ms}"


def _outstanding(execution: Execution) -> Iterator[str]:
    head = execution.head
    if head.status.is_final or head.status is ExecutionStatus.PENDING:
        return
    heap = execution._timers.heap
    timers = {(kind, task, attempt) for _, kind, task, attempt in heap}
    armed_ms = execution._timers.armed_ms
    if heap and (armed_ms is None or armed_ms > heap[0][0]):
        yield f"I10 a timer is due at {heap[0][0]}, but what is armed is {armed_ms}"
    has_deadline = head.deadline_ms is not None and execution.accepts_starts
    if has_deadline and (TimerKind.DEADLINE, -1, 0) not in timers:
        yield "I10 the execution has a deadline without a timer"
    for index, name, row in _named(execution):
        if row.status.is_final:
            continue
        why = _stalls(execution, index, row, timers)
        if why:
            yield f"I10 task '{name}' is {row.status}, but {why}"


def _automatic(execution: Execution) -> Iterator[str]:
    head, policy, last = execution.head, execution.checkpoint_policy, execution.head.automatic
    if (last is not None) != (policy is not None and head.started_ms is not None):
        yield f"I11 the policy is {policy}, the last automatic checkpoint is {last}"
    if policy is None or last is None:
        return
    completed = head.completed_tasks - last.completed_tasks
    if completed < 0 or last.seq > execution.seq:
        yield f"I11 {last} was decided on behind {head.completed_tasks} and {execution.seq}"
    if head.status.is_final or not last.taken or completed == 0 or execution.open_count == 0:
        return
    if policy.every_completions is not None and completed >= policy.every_completions:
        yield f"I11 {completed} tasks have completed since {last}, which is not the last one"
    has_timer = any(kind is TimerKind.CHECKPOINT for _, kind, _, _ in execution._timers.heap)
    if policy.every_ms is not None and not has_timer:
        yield f"I11 the checkpoint after {last} has no timer"


def _stalls(
    execution: Execution, index: int, row: TaskRow, timers: set[tuple[TimerKind, int, int]]
) -> str:
    """Why an open task waits for nothing; empty if it waits for something."""
    if index in execution.handed_out:
        has_timeout = bool(execution.workflow.tasks[index].timeout_ms)
        if row.status is not TaskStatus.RUNNING or not has_timeout:
            return ""
        is_stopping = execution._stopping.get(index) in (StopReason.TIMEOUT, StopReason.CANCELLED)
        due_comes = is_stopping or (TimerKind.TASK_TIMEOUT, index, row.attempt) in timers
        return "" if due_comes else "its timeout has no timer"
    if not execution.accepts_starts:
        return "nothing starts any more"
    if row.status is TaskStatus.RETRYING:
        is_due = (TimerKind.RETRY, index, row.attempt) in timers
        return "" if is_due else "its retry has no timer"
    return "it was not handed out" if execution.waiting_on[index] == 0 else ""
