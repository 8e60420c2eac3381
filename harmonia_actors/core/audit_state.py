"""Whether what is stored of an execution says the same as its log. Pure, like the auditor.

The head and the rows must be those of the moment at which the log was read: each commit writes
them together with its events, so they agree after every commit, not only at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harmonia_actors.core.audit import Auditor
from harmonia_actors.core.audit_findings import Violation
from harmonia_actors.core.audit_outputs import ToldOutput, digest_of, reference_problem
from harmonia_actors.core.audit_tasks import ToldTask
from harmonia_actors.core.records import Head, TaskRow
from harmonia_actors.core.statuses import ExecutionStatus, TaskStatus
from harmonia_actors.core.stimuli import WORKER_LOST

__all__ = ["disagreements", "inherited_tasks", "missing_output", "wrong_output"]

_ENDS = {
    "execution_completed": ExecutionStatus.COMPLETED,
    "execution_failed": ExecutionStatus.FAILED,
    "execution_cancelled": ExecutionStatus.CANCELLED,
}
_NO_ROW = TaskRow()


def inherited_tasks(head: Head, rows: Mapping[int, TaskRow]) -> frozenset[int]:
    """Tasks that had completed before the checkpoint that an execution was restored from.

    Their outputs are kept under the execution that ran them.
    """
    if head.checkpoint_id is None:
        return frozenset()
    return frozenset(
        index
        for index, row in rows.items()
        if row.output is not None and row.output.execution_id != head.execution_id
    )


def disagreements(
    auditor: Auditor,
    head: Head,
    rows: Mapping[int, TaskRow],
    seq: int,
    *,
    lost_attempts_max: int | None = None,
) -> list[Violation]:
    """What the state stored at `seq` says otherwise than the log up to there.

    `lost_attempts_max` is the setting under which the execution has run; None if it is not known.
    """
    found = []
    if auditor.seq != seq:
        message = f"the log ends with event {auditor.seq}, but {seq} were stored"
        found.append(Violation("A1", auditor.seq, None, message))
    found += [Violation("A16", None, None, problem) for problem in _head_problems(auditor, head)]
    if problem := _output_problem(auditor, head):
        found.append(Violation("A16", None, None, problem))
    for index, task in enumerate(auditor.told.tasks):
        if index not in auditor.inherited:
            row = rows.get(index, _NO_ROW)
            if problem := next(_row_problems(index, task, row, head.execution_id), ""):
                found.append(Violation("A17", None, task.name, problem))
            if problem := _retry_problem(task, row, head, lost_attempts_max):
                found.append(Violation("A11", None, task.name, problem))
    return found


def missing_output(task: str | None) -> Violation:
    """The output of a task, or of the execution, is referred to and is not there."""
    whose = "the execution" if task is None else f"task '{task}'"
    return Violation("A18", None, task, f"the output of {whose} is not stored")


def wrong_output(task: str | None, told: ToldOutput, body: bytes) -> Violation | None:
    """What is wrong with the stored body of an output, of a task or of the execution."""
    if digest_of(body) == told.digest:
        return None
    whose = "the execution" if task is None else f"task '{task}'"
    message = f"the output of {whose} is stored otherwise than it was told"
    return Violation("A16" if task is None else "A17", None, task, message)


def _head_problems(auditor: Auditor, head: Head) -> Iterator[str]:
    final, started = auditor.final, auditor.started
    if final is not None and head.status is not _ENDS[final.kind]:
        yield f"the status is {head.status}, but the log ends with {final.kind}"
    if final is None and head.status.is_final:
        yield f"the status is {head.status}, but the log has no such event"
    if (head.status is ExecutionStatus.PENDING) != (auditor.events == 0):
        yield f"the status is {head.status} after {auditor.events} events"
    if final is not None and final.kind == "execution_failed":
        if head.error != final.data["error"]:
            yield "the error is not that of the log"
    elif head.status is ExecutionStatus.RUNNING and auditor.ending.seq and head.error is None:
        yield f"there is no error, but event {auditor.ending.seq} has bound the execution to end"
    # The quarantine of one that had not begun is its beginning, too, though no event says so.
    began = started or final if head.status is ExecutionStatus.FAILED else started
    expected = {
        "total": (head.total, len(auditor.told.tasks)),
        "completed_tasks": (head.completed_tasks, auditor.told.completed),
        "log_events": (head.log_events, auditor.log_events),
        "log_bytes": (head.log_bytes, auditor.told.log_bytes),
        "started_ms": (head.started_ms, None if began is None else began.at_ms),
        "completed_ms": (head.completed_ms, None if final is None else final.at_ms),
        "an output": (head.output is not None, head.status is ExecutionStatus.COMPLETED),
    }
    for name, (stored, told) in expected.items():
        if stored != told:
            yield f"{name} is {stored}, by the log it is {told}"


def _output_problem(auditor: Auditor, head: Head) -> str:
    if head.output is None or auditor.output is None:
        return ""
    return reference_problem(head.output, auditor.output, head.execution_id, None, "execution")


def _row_problems(index: int, task: ToldTask, row: TaskRow, execution_id: str) -> Iterator[str]:
    if not _fits(task, row):
        told = task.end or ("running" if task.is_running else "waiting")
        yield f"it is stored as {row.status}, but told as {told}"
    if not _attempt_fits(task, row.attempt):
        yield f"it is stored at attempt {row.attempt}, but told at {task.attempt}"
    if row.failures != task.failures or row.losses < task.losses:
        yield (
            f"{row.failures} failures and {row.losses} losses are stored, "
            f"but {task.failures} and {task.losses} are told"
        )
    lines = task.lines if task.is_running else 0
    if row.lines != lines:
        yield f"{row.lines} lines of its attempt are stored, but {lines} are told"
    # A loss that nobody was told of takes back the start of an earlier attempt.
    was_taken_back = row.started_ms is None and row.losses > task.losses
    started_ms = None if was_taken_back else task.started_ms
    if (row.started_ms, row.completed_ms) != (started_ms, task.ended_ms):
        yield (
            f"its times are stored as {row.started_ms} and {row.completed_ms}, "
            f"but told as {started_ms} and {task.ended_ms}"
        )
    if (row.output is not None) != (task.end is TaskStatus.COMPLETED):
        yield f"it is told as {task.end or 'not ended'}, its output is {row.output}"
    if row.output is not None and task.output is not None:
        key = f"{index}:{task.attempt}"
        problem = reference_problem(row.output, task.output, execution_id, task.name, key)
        if problem:
            yield problem
    failure = row.failure
    failed_with = None if failure is None else (failure.message, failure.shown_details())
    if failed_with != task.failed_with:
        yield "what is stored of its last failure is not what was told"


def _retry_problem(task: ToldTask, row: TaskRow, head: Head, lost_attempts_max: int | None) -> str:
    """Whether it is known that a failure was tried again, or not, as it should not have been.

    The log does not tell whether a failure may be tried again; the row does, of the last one. Only
    of the failure that has bound the execution to end is it sure that nothing else had before.
    """
    if row.failure is None or task.failed_with is None:
        return ""
    if task.will_retry:
        return "" if row.failure.retriable else "a failure is retried that says it is for good"
    if task.end is not TaskStatus.FAILED or (head.error or {}).get("task") != task.name:
        return ""
    if row.failure.code == WORKER_LOST:
        if lost_attempts_max is not None and row.losses <= lost_attempts_max:
            return f"loss {row.losses} ends the task, which may lose {lost_attempts_max} attempts"
    elif row.failure.retriable and row.failures <= task.max_retries:
        return f"failure {row.failures} is not retried; {task.max_retries} retries are due"
    return ""


def _fits(task: ToldTask, row: TaskRow) -> bool:
    if task.end is not None:
        return row.status is task.end
    if task.is_running:
        return row.status is TaskStatus.RUNNING
    return row.status is TaskStatus.PENDING or (
        row.status is TaskStatus.RETRYING and task.failures > 0
    )


def _attempt_fits(task: ToldTask, attempt: int) -> bool:
    """The attempt that ran last, or ended the task, is the one that is stored.

    Otherwise each that was told of has ended, and what is stored is one that comes after it.
    """
    is_last = task.is_running or task.ended_running or task.end is TaskStatus.FAILED
    if is_last or task.end is TaskStatus.COMPLETED:
        return attempt == task.attempt
    return attempt > task.attempt
