"""What a summary says of very large executions, and how much of one it keeps."""

from __future__ import annotations

from harmonia_actors.core import jsontext
from harmonia_actors.core.requests import StreamEvent
from harmonia_actors.core.summary import SUMMARY_TYPE, ExecutionSummary

TASKS = 30_000


def event(seq: int, kind: str, **data: object) -> StreamEvent:
    head = jsontext.encode({"seq": seq, "type": kind, "timestamp_ms": seq, "execution_id": "e"})
    before = head[:-1] + b',"data":'
    return StreamEvent(seq, kind, before + jsontext.encode(data) + b"}", len(before), last=False)


def of_task(seq: int, kind: str, index: int, **more: object) -> StreamEvent:
    return event(seq, kind, task_name=f"t{index}", task_index=index, total_tasks=TASKS, **more)


def test_all_is_done_only_when_all_is_done() -> None:
    summary = ExecutionSummary(TASKS, names_max=2)
    for index in range(TASKS - 1):
        summary.take(of_task(index + 1, "task_completed", index, attempt=1, output={}))
    assert summary.data()["progress"] == 0.9999
    summary.take(of_task(TASKS, "task_completed", TASKS - 1, attempt=1, output={}))
    assert summary.data()["progress"] == 1.0


def test_however_many_run_or_have_failed_a_message_is_small() -> None:
    summary = ExecutionSummary(TASKS, names_max=2)
    for index in range(TASKS):
        kind = "task_started" if index % 2 else "task_failed"
        summary.take(of_task(index + 1, kind, index, will_retry=False, error_details={"code": "X"}))
    told = summary.told()
    assert len(told.body) < 500
    assert jsontext.decode(told.data)["running_tasks"] == ["t1", "t3"]
    assert jsontext.decode(told.data)["failed_tasks"] == ["t0", "t2"]
    assert jsontext.decode(told.body)["timestamp_ms"] == told.seq == TASKS
    assert (told.type, told.last) == (SUMMARY_TYPE, False)


def test_what_it_does_not_know_changes_nothing() -> None:
    summary = ExecutionSummary(TASKS, names_max=2)
    before = summary.data()
    summary.take(event(1, "some_later_type", task_name="t1"))
    summary.take(event(2, "task_progress", task_name="not running", progress=0.5))
    assert summary.data() == before
