"""Whether an event log tells a story that is possible: judged from the log and the graph alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from harmonia_actors.core import events as ev
from harmonia_actors.core.execution import Execution
from harmonia_actors.core.statuses import TaskStatus
from harmonia_actors.core.workflow import Workflow

__all__ = ["check_log"]


def check_log(
    workflow: Workflow,
    log: Sequence[tuple[int, ev.Event]],
    execution: Execution,
    restored: Collection[int] = (),
) -> None:
    """Raise AssertionError with what is wrong.

    `restored` are tasks that had completed in the execution that this one was restored from.
    """
    assert [seq for seq, _ in log] == list(range(1, len(log) + 1)), "seq has gaps or repeats"
    finals = [place for place, (_, event) in enumerate(log) if event.type in ev.FINAL_EVENT_TYPES]
    assert finals == [len(log) - 1], "there is not exactly one final event, at the end"
    completed: set[int] = set(restored)
    ended: set[int] = set(restored)
    running: dict[int, int] = {}
    attempts: dict[int, int] = {}
    for _, event in log:
        match event:
            case ev.TaskStarted():
                task = event.task_index
                assert task not in ended, f"{task} starts after its end"
                assert task not in running, f"{task} starts while it runs"
                assert event.attempt > attempts.get(task, 0), f"{task} repeats an attempt"
                missing = set(workflow.graph.parents[task]) - completed
                assert not missing, f"{task} starts before {missing} have completed"
                running[task] = attempts[task] = event.attempt
            case ev.TaskFailed():
                task = event.task_index
                assert task not in ended, f"{task} fails after its end"
                running.pop(task, None)
                if not event.will_retry:
                    ended.add(task)
            case ev.TaskCompleted() | ev.TaskSkipped() | ev.TaskCancelled():
                task = event.task_index
                assert task not in ended, f"{task} ends twice"
                ended.add(task)
                if isinstance(event, ev.TaskCompleted):
                    assert running.get(task) == event.attempt, f"{task} completes without a start"
                    completed.add(task)
                if isinstance(event, ev.TaskSkipped):
                    assert task not in running, f"{task} is skipped while it runs"
                running.pop(task, None)
            case ev.TaskProgress():
                assert workflow.by_name[event.task_name].index in running
            case ev.TaskLog():
                task = workflow.by_name[event.task_name].index
                assert running.get(task) == event.attempt, f"{task} writes and does not run"
            case _:
                pass
    assert running == {}, "the log ends while tasks run"
    assert len(ended) == len(workflow.tasks), "not every task has an end"
    rows = execution.rows
    assert completed == {i for i, row in enumerate(rows) if row.status is TaskStatus.COMPLETED}
    assert len(completed) == execution.head.completed_tasks
