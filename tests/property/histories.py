"""All that can happen to an execution, one step at a time: to make histories, and to explain them.

Whatever can be joined is: a stretch whose rest comes back at once is one that was shorter, so that
all runs in which fewer tasks are joined are among these. What another owner finds in the inbox is
left out: that is as if the former one had still taken it in.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from heapq import heapify
from itertools import combinations
from random import Random
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.commands import StartAttempt
from harmonia_actors.core.execution import CoreLimits, Decision, Execution, NumberedEvent
from harmonia_actors.core.log_lines import LogLine
from harmonia_actors.core.quarantine import fail_head, quarantine_error
from harmonia_actors.core.records import decode_head, decode_row, encode_head, encode_row
from harmonia_actors.core.statuses import ExecutionStatus, TaskStatus
from harmonia_actors.core.stimuli import WORKER_LOST
from harmonia_actors.core.timers import Timer, TimerKind, Timers
from harmonia_actors.core.workflow import Workflow
from tests.support.auditing import bodies_of
from tests.support.executions import START_MS, output

__all__ = [
    "Message",
    "Step",
    "Steps",
    "joinable",
    "live_through",
    "messages_of",
    "possible_steps",
]

#: An event as it is stored, decoded.
Message = dict[str, Any]
#: A name for what happens, and what it does: it gives the events that it makes.
Step = tuple[str, Callable[["Steps"], list[NumberedEvent]]]

_LINE = {"stream": "stdout", "text": "here", "timestamp_ms": START_MS}
_DROPS = ("task_skipped", "task_cancelled")
#: Events that a decision which drops tasks may begin with; None where any is wanted.
_MAY_DROP = (None, *_DROPS)
_RUNNING = TaskStatus.RUNNING
#: The limit on lost attempts is a setting, which a log does not tell: none, or reached.
_LOSSES = (1_000, 0)
#: How often an execution that is quarantined has ended its owners.
_CRASHES = 3
_LAST = ("execution_failed", "execution_cancelled")


def joinable(workflow: Workflow) -> frozenset[int]:
    """All tasks that could be joined to those before them, whatever their actions are."""
    tasks, graph = workflow.tasks, workflow.graph
    return frozenset(
        task.index
        for task in tasks
        if all(
            tasks[parent].resources == task.resources
            for parent in graph.parents[task.index]
            if len(graph.children[parent]) == 1
        )
    )


class Steps(Execution):
    """An execution whose batches are taken apart: each stimulus by itself, then their end."""

    in_batch = False
    #: The time of what happens: it stands still in a search, which leaves times out.
    now_ms = START_MS
    #: Checkpoints that were told of: the inbox holds each only once.
    checkpoints: frozenset[str] = frozenset()

    def take(self, stimulus: st.Stimulus) -> list[NumberedEvent]:
        self.in_batch = True
        if isinstance(stimulus, st.CheckpointTaken):
            self.checkpoints |= {stimulus.checkpoint_id}
        self._take(replace(stimulus, at_ms=max(stimulus.at_ms, self.now_ms)))
        return self._told()

    def close_batch(self) -> list[NumberedEvent]:
        self.in_batch = False
        self._settle(self.now_ms)
        return self._finish_draft().events

    def _told(self) -> list[NumberedEvent]:
        told, self._draft.events = self._draft.events, []
        return told

    def fire(self, timer: Timer) -> list[NumberedEvent]:
        """This timer comes up, all others later."""
        others = [other for other in self._timers.heap if other != timer]
        self._timers.heap = [timer]
        told = self.take(st.TimerFired(timer[0]))
        self._timers.heap = others
        heapify(self._timers.heap)
        return told

    def restart(self, adopted: Sequence[tuple[int, int]], losses_max: int) -> list[NumberedEvent]:
        """Another owner takes over and finds these attempts."""
        self._load(losses_max)
        return self.resume(self.now_ms, adopted).events

    def end_by_quarantine(self) -> list[NumberedEvent]:
        """Another owner takes over, and ends it task by task before it looks for attempts."""
        self._load(_LOSSES[0])
        return self.quarantine(self.now_ms, quarantine_error(_CRASHES)).events

    def end_by_head(self) -> list[NumberedEvent]:
        """Another owner takes over, and ends it without a look at its tasks."""
        told = fail_head(self.head, self.seq, self.now_ms, quarantine_error(_CRASHES))
        self.seq = told.index
        return [told]

    def _load(self, losses_max: int) -> None:
        rows = {index: decode_row(encode_row(row)) for index, row in enumerate(self.rows)}
        head = decode_head(encode_head(self.head_record()))
        self.__init__(  # type: ignore[misc]
            workflow=self.workflow,
            head=head,
            rows=rows,
            seq=self.seq,
            limits=_losing(losses_max),
            joined=self._joined,
        )

    def lose(self, task: int, attempt: int, reason: str, losses_max: int) -> list[NumberedEvent]:
        """The process of an attempt dies, as the last one that is borne or not."""
        self.limits = _losing(losses_max)
        return self.take(st.AttemptLost(task, attempt, START_MS, reason))

    @property
    def fresh(self) -> set[int]:
        """What is to be handed out once the batch has ended."""
        starts = [each for each in self._draft.commands if isinstance(each, StartAttempt)]
        return {task for each in starts for task, _ in [(each.task, each.attempt), *each.then]}

    @property
    def live(self) -> list[tuple[int, int]]:
        """Attempts that task actors know of, and whose turn has come."""
        return [each for each in self._given if not self.waiting_on[each[0]]]

    @property
    def behind(self) -> list[tuple[int, int]]:
        """Attempts that task actors know of, but that wait for their turn in a stretch."""
        return [each for each in self._given if self.waiting_on[each[0]]]

    @property
    def _given(self) -> list[tuple[int, int]]:
        return [(task, self.rows[task].attempt) for task in sorted(self.handed_out - self.fresh)]

    def may_return(self, task: int) -> bool:
        """Whether an attempt whose turn has come may come back, to be handed out anew."""
        return self.accepts_starts and self.rows[task].status is not _RUNNING

    def may_gain(self, task: int) -> bool:
        """Whether another one would be handed out behind this task if it came back now.

        If not, coming back makes no difference that a loss would not make.
        """
        if not self.may_lead_on(task):
            return False
        (follower,) = self.workflow.graph.children[task]
        return self.waiting_on[follower] == 1 and follower not in self.handed_out

    @property
    def timers(self) -> list[Timer]:
        """Those that still matter."""
        return [timer for timer in self._timers.heap if self._matters(timer)]

    def _matters(self, timer: Timer) -> bool:
        _, kind, task, attempt = timer
        if kind is TimerKind.DEADLINE:
            return True
        row = self.rows[task]
        is_due = row.status is TaskStatus.RETRYING and task not in self.handed_out
        return kind is TimerKind.RETRY and row.attempt == attempt and is_due

    def copy(self) -> Steps:
        """As `copy.deepcopy`, but only of what changes: a search makes very many."""
        made = object.__new__(Steps)
        made.__dict__.update(self.__dict__)
        made.head = copy.copy(self.head)
        made.rows = [copy.copy(row) for row in self.rows]
        made.waiting_on = list(self.waiting_on)
        made.handed_out = set(self.handed_out)
        made._running = dict(self._running)
        made._stopping = dict(self._stopping)
        made._kept = dict(self._kept)
        made._timers = Timers(list(self._timers.heap), self._timers.armed_ms)
        made._draft = Decision(commands=list(self._draft.commands))
        return made

    def key(self) -> tuple[object, ...]:
        """Equal for states from which the same can follow."""
        return (
            self.head.status,
            jsontext.encode_text(self.head.error),
            self.head.started_ms,
            self.in_batch,
            self._composing,
            frozenset(self.handed_out),
            frozenset(self._stopping.items()),
            frozenset(self._kept),
            frozenset(self.fresh),
            frozenset((kind, task) for _, kind, task, _ in self.timers),
            tuple(
                (row.status, row.attempt, row.failures, row.losses, row.progress, row.message)
                for row in self.rows
            ),
        )


def _losing(losses_max: int) -> CoreLimits:
    return CoreLimits(lost_attempts_max=losses_max)


# What can happen ---------------------------------------------------------------------------------


def possible_steps(now: Steps, wanted: Message | None) -> Iterator[Step]:
    """Everything that can happen next; `wanted` is the event that should come of it, if known.

    Steps that can only make other events than that are left out.
    """
    if now.in_batch:
        yield "the batch ends", Steps.close_batch
    if now.is_final:
        return
    kind = None if wanted is None else wanted["type"]
    if now.head.status is ExecutionStatus.PENDING:
        yield _told(st.StartRequested(START_MS))
    drops = any(not row.status.is_final for row in now.rows) and now.open_count > len(
        now.handed_out
    )
    if _may_be_cancelled(now) and (not drops or kind in _MAY_DROP):
        yield _told(st.CancelRequested(START_MS))
    yield from _checkpoint_steps(now, wanted)
    for timer in now.timers:
        if timer[1] is TimerKind.RETRY or not drops or kind in _MAY_DROP:
            yield f"timer {timer}", lambda steps, timer=timer: steps.fire(timer)
    if now._composing and now.accepts_starts:
        yield _told(st.OutputComposed(START_MS, output({"made": True})))
        yield from (_told(st.OutputRefused(START_MS, failure)) for failure in _refusals(wanted))
    yield from _reports(now, wanted)
    if not now.in_batch:
        yield from _restarts(now, kind)
        yield from _quarantines(now, kind)


def _may_be_cancelled(now: Steps) -> bool:
    """Whether a cancel would do anything; what was restored has begun when it is made."""
    is_restored = now.head.checkpoint_id is not None
    return now.head.status is not ExecutionStatus.CANCELLING and not (
        is_restored and now.head.status is ExecutionStatus.PENDING
    )


def _restarts(now: Steps, kind: str | None) -> Iterator[Step]:
    """Another owner takes over, and finds some of what lives."""
    running = {task for task, _ in now.live if now.rows[task].status is _RUNNING}
    for count in range(len(now.live) + 1):
        for found in combinations(now.live, count):
            tasks = {task for task, _ in found}
            is_told = tasks != running
            if kind in ("task_started", "task_failed", *_MAY_DROP) or not is_told:
                for most in _LOSSES if running - tasks else _LOSSES[:1]:
                    name = f"restart {found} {most}"
                    yield name, lambda steps, f=found, m=most: steps.restart(f, m)


def _quarantines(now: Steps, kind: str | None) -> Iterator[Step]:
    """It has ended its owners, and is ended: with its tasks, or at once if even that is too much.

    What was restored has begun when it is made.
    """
    is_pending = now.head.status is ExecutionStatus.PENDING
    if kind in (*_MAY_DROP, *_LAST) or (is_pending and kind == "execution_started"):
        yield "quarantine", Steps.end_by_quarantine
    if kind in (None, "execution_failed") and not (is_pending and now.head.checkpoint_id):
        yield "quarantine of the head", Steps.end_by_head


def _told(stimulus: st.Stimulus) -> Step:
    return repr(stimulus), lambda steps: steps.take(stimulus)


def _checkpoint_steps(now: Steps, wanted: Message | None) -> Iterator[Step]:
    # Whoever drives an execution has it started before it looks into its inbox.
    if now.head.started_ms is None:
        return
    if wanted is None:
        yield _told(st.CheckpointTaken(START_MS, f"cp-{now.seq}", "here"))
    elif wanted["type"] == "checkpoint_created":
        data = wanted["data"]
        if data["checkpoint_id"] in now.checkpoints:
            return
        yield _told(st.CheckpointTaken(START_MS, data["checkpoint_id"], data["name"]))


def _reports(now: Steps, wanted: Message | None) -> Iterator[Step]:
    for task, attempt in now.live:
        yield from _attempt_steps(now, task, attempt, wanted)
        if now.may_return(task) and (wanted is None or now.may_gain(task)):
            yield _told(st.AttemptReturned(task, attempt, START_MS))
    for task, attempt in now.behind:
        yield from _steps_behind(now, task, attempt, wanted)


def _attempt_steps(now: Steps, task: int, attempt: int, wanted: Message | None) -> Iterator[Step]:
    about = wanted is None or wanted["data"].get("task_name") == now.workflow.tasks[task].name
    kind = None if wanted is None else wanted["type"]
    runs = now.rows[task].status is _RUNNING
    if about and kind in (None, "task_started") and not runs:
        yield _told(st.AttemptStarted(task, attempt, START_MS))
    if about and kind in (None, "task_started", "task_completed"):
        yield _told(st.AttemptSucceeded(task, attempt, START_MS, output({"n": task})))
    if about and kind in (None, "task_progress") and runs:
        share, message = (0.5, "") if wanted is None else _progress(wanted)
        yield _told(st.ProgressReported(task, attempt, START_MS, share, message))
    if about and kind in (None, "task_log") and runs:
        yield _told(_lines(wanted, task, attempt, now.rows[task].lines))
    if about and kind in (None, "task_failed"):
        for failure in _failures(wanted):
            yield _told(st.AttemptFailed(task, attempt, START_MS, failure))
    if (about and kind in (None, "task_failed", *_DROPS)) or (not runs and now.accepts_starts):
        for most in _LOSSES:
            name = f"lost {task} {attempt} {most}"
            yield name, lambda steps, m=most: steps.lose(task, attempt, _loss(wanted), m)
    if task in now._stopping and about and kind in (None, *_DROPS):
        yield _told(st.AttemptStopped(task, attempt, START_MS))


def _steps_behind(now: Steps, task: int, attempt: int, wanted: Message | None) -> Iterator[Step]:
    """What can become of an attempt before its turn has come.

    That it has come back makes a difference only where all is bound to end before its turn.
    """
    kind = None if wanted is None else wanted["type"]
    about = wanted is None or wanted["data"].get("task_name") == now.workflow.tasks[task].name
    is_dropped = not now.accepts_starts
    if is_dropped and not (about and kind in _MAY_DROP):
        return
    if is_dropped or kind in ("task_failed", *_MAY_DROP):
        yield _told(st.AttemptReturned(task, attempt, START_MS))
    if wanted is None or not is_dropped:
        name = f"lost {task} {attempt}"
        yield name, lambda steps: steps.lose(task, attempt, _loss(wanted), _LOSSES[0])
    if wanted is None and task in now._stopping:
        yield _told(st.AttemptStopped(task, attempt, START_MS))


def _progress(wanted: Message) -> tuple[float, str]:
    return wanted["data"]["progress"], wanted["data"]["message"]


def _lines(wanted: Message | None, task: int, attempt: int, told: int) -> st.LinesReported:
    data = {"lines": [_LINE], "dropped": 0} if wanted is None else wanted["data"]
    lines = tuple(
        LogLine(each["stream"], each["text"], each["timestamp_ms"], each.get("level", ""))
        for each in data["lines"]
    )
    return st.LinesReported(task, attempt, START_MS, told + data["dropped"], lines)


def _failures(wanted: Message | None) -> list[st.Failure]:
    message, code, details = "broke", "BROKE", {"why": 1}
    if wanted is not None:
        data = wanted["data"]
        details = dict(data["error_details"])
        message, code = data["error"], details.pop("code")
        if code == WORKER_LOST:
            return []
    return [
        st.Failure(message, code, details, origin, retriable)
        for retriable in (True, False)
        for origin in ("component", "engine")
    ]


def _loss(wanted: Message | None) -> str:
    if wanted is not None and wanted["type"] == "task_failed":
        return str(wanted["data"]["error"])
    return "its node died"


def _refusals(wanted: Message | None) -> list[st.Failure]:
    if wanted is None:
        return [st.Failure("no", "MISSING_VALUE", {}, "engine")]
    if wanted["type"] == "execution_failed":
        error = wanted["data"]["error"]
        details = dict(error["details"])
        return [st.Failure(error["message"], details.pop("code", ""), details, "engine")]
    return []


# Making a log ------------------------------------------------------------------------------------

#: Steps that lead to an early end if they come as often as all others.
_RARE = ("Cancel", "Checkpoint", "OutputRefused", "quarantine", "restart", "timer")
_BAD = ("AttemptFailed", "lost")


def live_through(
    first: Steps, luck: Random, events_max: int, *, tick_ms: int = 0
) -> tuple[list[Message], Steps]:
    """A history that ends, or is under way after so many events; and the state at its last.

    From step to step, so much time goes by.
    """
    now, log = first.copy(), []
    rare = luck.choice([0.0, 0.1, 0.4])
    while not now.is_final and len(log) < events_max:
        steps = list(possible_steps(now, None))
        if luck.random() < 0.7:
            steps = [s for s in steps if not s[0].startswith("quarantine")] or steps
        rest = [s for s in steps if not s[0].startswith((*_RARE, *_BAD))]
        bad = [s for s in steps if s[0].startswith(_BAD)]
        chance = luck.random()
        if chance >= rare and rest:
            steps = bad if bad and chance > 0.85 else rest
        now.now_ms += tick_ms
        log += luck.choice(steps)[1](now)
    if now.in_batch:
        log += now.close_batch()
    return messages_of(log, first.head.execution_id), now


def messages_of(events: Sequence[NumberedEvent], execution_id: str) -> list[Message]:
    """Events as they are stored, decoded."""
    return [jsontext.decode(body) for body in bodies_of(events, execution_id)]
