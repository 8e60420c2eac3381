"""A summary says what the events say, up to any of them; and telling it loses nothing.

Histories are those of the engine's own core, restored executions, cancels, losses and restarts
included (`histories`). The yardstick looks at all events again each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from harmonia_actors.core import jsontext
from harmonia_actors.core.requests import StreamEvent
from harmonia_actors.core.state import CANCELLED_REASON
from harmonia_actors.core.statuses import TaskStatus
from harmonia_actors.core.summary import SUMMARY_TYPE, ExecutionSummary
from harmonia_actors.runtime.event_hub import parse_event
from harmonia_serve.summaries import Telling
from tests.property.histories import Message, Steps, live_through
from tests.property.test_audit import beginnings

_SETTINGS = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
seeds = some.integers(0, 2**32)
_NAMES_MAX = 3
_EVENTS_MAX = 30


def stored(log: Sequence[Message]) -> list[StreamEvent]:
    return [parse_event(index, jsontext.encode(message)) for index, message in enumerate(log, 1)]


def restored(first: Steps) -> int:
    return sum(row.status is TaskStatus.COMPLETED for row in first.rows)


def completed(log: Sequence[Message]) -> int:
    return sum(message["type"] == "task_completed" for message in log)


def as_told(log: Sequence[Message], first: Steps) -> dict[str, Any]:
    """What a log says, by a look at the last events of each task."""
    log = [message for message in log if message["type"] != "task_log"]
    total, before = len(first.rows), restored(first)
    statuses, shares, failed = [], [], []
    starts: dict[str, int] = {}
    for message in log:
        name = message["data"].get("task_name")
        if message["type"] == "task_started":
            starts[name] = message["seq"]
    for name in {m["data"]["task_name"]: None for m in log if "task_name" in m["data"]}:
        about = [m for m in log if m["data"].get("task_name") == name]
        last = [m for m in about if m["type"] != "task_progress"][-1]
        status = last["type"].removeprefix("task_").replace("started", "running")
        if status == "failed" and last["data"]["will_retry"]:
            lost = last["data"]["error_details"]["code"] == "WORKER_LOST"
            status = "pending" if lost else "retrying"
        elif status == "failed":
            failed.append((last["seq"], name))
        elif status == "running":
            told = about[-1]["data"].get("progress", 0.0)
            shares.append((starts[name], name, told))
        statuses.append(status)
    counts = {status.value: 0 for status in TaskStatus} | Counter(statuses)
    counts["completed"] += before
    counts["pending"] += total - len(statuses) - before
    share = (counts["completed"] + sum(told for _, _, told in sorted(shares))) / total
    own = [m["type"] for m in log if m["type"].startswith("execution_")]
    cancelled = any(m["data"].get("reason") == CANCELLED_REASON for m in log)
    status = own[-1].removeprefix("execution_").replace("started", "running") if own else "pending"
    return {
        "status": "cancelling" if cancelled and status in ("running", "pending") else status,
        "progress": round(share if counts["completed"] == total else min(share, 0.9999), 4),
        "total_tasks": total,
        "tasks": counts,
        "running_tasks": [name for _, name, _ in sorted(shares)][:_NAMES_MAX],
        "failed_tasks": [name for _, name in sorted(failed)][:_NAMES_MAX],
    }


@_SETTINGS
@given(beginnings(5), seeds)
def test_a_summary_after_any_event_is_what_the_events_say(first: Steps, seed: int) -> None:
    log, last = live_through(first, Random(seed), _EVENTS_MAX)
    summary = ExecutionSummary(len(first.rows), names_max=_NAMES_MAX)
    summary.note_restored(restored(first))
    for count, event in enumerate(stored(log), 1):
        summary.take(event)
        assert summary.data() == as_told(log[:count], first)
    counts = summary.data()["tasks"]
    # A task whose retry is lost before it begins is pending again, of which no event tells.
    waiting = ("pending", "retrying")
    rows = Counter(row.status.value for row in last.rows)
    assert sum(counts[name] for name in waiting) == sum(rows[name] for name in waiting)
    assert all(counts[s] == rows[s] for s in TaskStatus if s not in waiting)


class Subscriber:
    """A client that keeps what it gets, and resumes after the last seq it has."""

    def __init__(self, log: Sequence[Message], first: Steps) -> None:
        self.log, self.first = log, first
        self.got: list[StreamEvent] = []
        self.after = 0

    def join(self, now: int, luck: Random) -> bool:
        """Come when the log has so many events; stay for some more, or to its end.

        Whether there was anything to be told.
        """
        before = len(self.got)
        self._follow(now, luck)
        return len(self.got) > before

    def _follow(self, now: int, luck: Random) -> None:
        found = self.log[:now]
        summary = ExecutionSummary(len(self.first.rows), names_max=_NAMES_MAX)
        telling = Telling(
            summary,
            after=self.after,
            found_seq=found[-1]["seq"] if found else 0,
            found_completed=restored(self.first) + completed(found),
        )
        events = stored(self.log)
        while events:
            size = luck.randint(1, 6)
            batch, events = events[:size], events[size:]
            out = telling.take(batch)
            if telling.is_due and luck.random() < 0.5:
                out.append(telling.tell())
            for message in out:
                self.got.append(message)
                self.after = message.seq
                if luck.random() < 0.1:
                    return  # The connection is cut.
        if telling.is_due:
            message = telling.tell()
            self.got.append(message)
            self.after = message.seq


@_SETTINGS
@given(beginnings(5), seeds)
def test_whoever_resumes_has_every_own_event_once_and_the_last_picture(
    first: Steps, seed: int
) -> None:
    luck = Random(seed)
    log, _ = live_through(first, luck, _EVENTS_MAX)
    subscriber = Subscriber(log, first)
    for now in sorted(luck.choices(range(len(log) + 1), k=luck.randint(0, 8))):
        subscriber.join(now, luck)
    # Each time something comes, and it goes on from there.
    while subscriber.join(len(log), luck):
        assert len(subscriber.got) <= 2 * len(log)
    seqs = [message.seq for message in subscriber.got]
    assert seqs == sorted(set(seqs)), "each message goes on from the one before"
    own = [m for m in log if not m["type"].startswith("task_")]
    plain = [message for message in subscriber.got if message.type != SUMMARY_TYPE]
    assert [jsontext.decode(message.body) for message in plain] == own
    summaries = [message for message in subscriber.got if message.type == SUMMARY_TYPE]
    for message in summaries:
        assert jsontext.decode(message.body)["data"] == as_told(
            [m for m in log if m["seq"] <= message.seq], first
        )
        assert jsontext.decode(message.body)["seq"] == message.seq
    told = [m for m in log if m["type"] != "task_log"]
    of_tasks = [m["seq"] for m in told if m["type"].startswith("task_")]
    assert [message.seq for message in summaries[-1:]] == of_tasks[-1:]
