"""What an execution may do, said as plainly as possible: everything is looked at again each time.

No counters, no heap, no draft: after each stimulus all tasks are scanned. It is the yardstick for
the engine's own `Execution`, which must reach the same states by doing much less.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from harmonia_actors.core import stimuli as st
from harmonia_actors.core.retry import delay_ms
from harmonia_actors.core.workflow import Workflow

__all__ = ["NaiveExecution"]

FINAL = ("completed", "failed", "skipped", "cancelled")


@dataclass
class Task:
    parents: tuple[int, ...]
    status: str = "pending"
    attempt: int = 1
    failures: int = 0
    losses: int = 0
    #: Handed out and not ended.
    live: bool = False
    #: Handed out by the stimuli that are being taken in: nobody has been told yet.
    fresh: bool = False
    #: Handed out by a former owner, and nobody knows how far it came.
    again: bool = False
    #: Why it was told to stop.
    stop: str = ""
    retry_ms: int | None = None
    timeout_ms: int | None = None
    #: When the attempt began that runs, has ended or is to be tried again, and how far it came.
    started_ms: int | None = None
    progress: float | None = None


@dataclass
class NaiveExecution:
    workflow: Workflow
    execution_id: str
    lost_max: int
    deadline_after_ms: int | None
    phase: str = "pending"
    error: str = ""
    deadline_ms: int | None = None
    tasks: list[Task] = field(default_factory=list)
    #: All tasks have completed; what remains is the execution's output.
    all_done: bool = False
    _deadline_again: int | None = None

    def __post_init__(self) -> None:
        self.tasks = [Task(parents) for parents in self.workflow.graph.parents]

    @property
    def goes_on(self) -> bool:
        return self.phase == "running" and not self.error

    def take(self, stimuli: list[st.Stimulus]) -> None:
        for task in self.tasks:
            task.fresh = False
        for stimulus in stimuli:
            if not self.phase.startswith("ended"):
                self._take(stimulus)
                self._scan()
        self._end()

    def resume(self, at_ms: int, adopted: set[tuple[int, int]]) -> None:
        if self.phase == "pending" or self.phase.startswith("ended"):
            return
        self.deadline_ms = self.deadline_ms or self._deadline_again
        lost = []
        for index, task in enumerate(self.tasks):
            task.fresh, task.stop = False, ""
            if task.live and (index, task.attempt) in adopted:
                self._adopt(index, at_ms)
            elif task.status == "running":
                lost.append(index)
            elif task.live:
                # It may have run: the next number, when it is known whether anything goes on.
                task.live, task.again = False, True
        for index in lost:
            if self.tasks[index].live:
                self._lost(index)
        for task in self.tasks:
            if task.again and self.goes_on:
                task.attempt += 1
                task.progress = None
                task.live = task.fresh = True
            task.again = False
        self._scan()
        self._end()

    def _adopt(self, index: int, at_ms: int) -> None:
        task = self.tasks[index]
        if task.status != "running":
            self._begin(index, at_ms)
        task.timeout_ms = self._timeout_of(index)
        if self.phase == "cancelling":
            task.stop = "cancelled"

    # -------------------------------------------------------------------------------------------

    def _take(self, stimulus: st.Stimulus) -> None:
        match stimulus:
            case st.StartRequested(at_ms):
                self._start(at_ms)
            case st.CancelRequested():
                if self.phase in ("pending", "running"):
                    self.phase = "cancelling"
                    self._stop_all("cancelled")
            case st.TimerFired(at_ms):
                self._timers(at_ms)
            case st.CheckpointTaken() | st.AutomaticCheckpointTaken() | st.NodeChosen():
                pass  # Nothing follows from them here.
            case st.OutputComposed() | st.OutputRefused():
                self._output(stimulus)
            case _:
                task = self.tasks[stimulus.task]
                if task.live and not task.fresh and task.attempt == stimulus.attempt:
                    self._report(stimulus)

    def _start(self, at_ms: int) -> None:
        if self.phase == "pending":
            self.phase = "running"
            if self.deadline_after_ms is not None:
                self.deadline_ms = self._deadline_again = at_ms + self.deadline_after_ms

    def _output(self, stimulus: st.Stimulus) -> None:
        works = isinstance(stimulus, st.OutputComposed)
        if not (self.all_done and self.goes_on):
            return
        self.phase = "ended completed" if works else self.phase
        self.error = "" if works else "output"

    def _report(self, report: st.AttemptStimulus) -> None:
        task = self.tasks[report.task]
        match report:
            case st.AttemptStarted():
                if task.status != "running":
                    self._begin(report.task, report.at_ms)
            case st.AttemptSucceeded():
                if task.status != "running":
                    self._begin(report.task, report.at_ms)
                task.status, task.live = "completed", False
            case st.ProgressReported(fraction=fraction):
                task.progress = fraction if task.status == "running" else task.progress
            case st.AttemptFailed():
                self._failed(report.task, report.at_ms, retriable=report.failure.retriable)
            case st.AttemptLost():
                self._lost(report.task)
            case st.AttemptStopped():
                self._stopped(report.task, report.at_ms)
            case _:
                pass

    def _stopped(self, index: int, at_ms: int) -> None:
        task = self.tasks[index]
        if task.stop == "timeout" and task.status == "running":
            self._failed(index, at_ms, retriable=True)
        elif task.stop:
            self._drop(task)
        else:
            self._lost(index)

    def _begin(self, index: int, at_ms: int) -> None:
        task = self.tasks[index]
        task.status, task.started_ms, task.retry_ms = "running", at_ms, None
        task.progress = None
        task.timeout_ms = self._timeout_of(index)

    def _timeout_of(self, index: int) -> int | None:
        after_ms = self.workflow.tasks[index].timeout_ms
        return None if after_ms is None else (self.tasks[index].started_ms or 0) + after_ms

    def _failed(self, index: int, at_ms: int, *, retriable: bool) -> None:
        task = self.tasks[index]
        if self.phase == "cancelling":
            self._drop(task)
            return
        policy = self.workflow.tasks[index].retry
        task.failures += 1
        if policy and self.goes_on and retriable and task.failures <= policy.max_retries:
            luck = f"{self.execution_id}/{index}/{task.attempt}"
            task.status = "retrying"
            task.retry_ms = at_ms + delay_ms(policy, failures=task.failures, luck=luck)
            task.attempt, task.live, task.stop, task.timeout_ms = task.attempt + 1, False, "", None
            task.progress = None
            return
        self._fail_for_good(task)

    def _lost(self, index: int) -> None:
        task = self.tasks[index]
        if self.phase == "cancelling" or (not self.goes_on and task.status != "running"):
            self._drop(task)
            return
        task.losses += 1
        if self.goes_on and task.losses <= self.lost_max:
            task.status, task.stop, task.timeout_ms = "pending", "", None
            task.attempt, task.live, task.fresh = task.attempt + 1, True, True
            task.started_ms = task.progress = None
            return
        self._fail_for_good(task)

    def _fail_for_good(self, task: Task) -> None:
        task.status, task.live = "failed", False
        if not self.error:
            self.error = "task"
            self._stop_all("taken_back")

    def _timers(self, at_ms: int) -> None:
        due = []
        if self.deadline_ms is not None and self.deadline_ms <= at_ms:
            due.append((self.deadline_ms, 0, -1))
        for index, task in enumerate(self.tasks):
            if task.status == "running" and task.timeout_ms is not None:
                due.append((task.timeout_ms, 1, index))
            if task.status == "retrying" and task.retry_ms is not None:
                due.append((task.retry_ms, 2, index))
        for due_ms, kind, index in sorted(due):
            if due_ms <= at_ms:
                (self._deadline, self._timed_out, self._retry)[kind](index)

    def _deadline(self, _: int) -> None:
        self.deadline_ms = None
        if self.phase == "running":
            self.error = self.error or "timeout"
            self._stop_all("cancelled")

    def _timed_out(self, index: int) -> None:
        task = self.tasks[index]
        if task.status == "running":
            task.timeout_ms = None
            task.stop = task.stop if task.stop == "cancelled" else "timeout"

    def _retry(self, index: int) -> None:
        if self.goes_on:
            task = self.tasks[index]
            task.retry_ms = None
            task.live = task.fresh = True

    def _stop_all(self, reason: str) -> None:
        for task in self.tasks:
            if task.fresh:
                task.live = task.fresh = False
            if not task.live:
                continue
            if reason == "cancelled":
                task.stop = "cancelled"
            elif task.status != "running" and not task.stop:
                task.stop = "taken_back"

    def _drop(self, task: Task) -> None:
        was_cancelled = self.phase == "cancelling" or task.status == "running"
        task.status = "cancelled" if was_cancelled else "skipped"
        task.live = False

    def _scan(self) -> None:
        """What may start, or will never start, found by looking at every task."""
        for task in self.tasks:
            if task.live or task.status in FINAL or self.phase == "pending":
                continue
            if not self.goes_on:
                self._drop(task)
            elif task.status == "pending" and all(
                self.tasks[parent].status == "completed" for parent in task.parents
            ):
                task.live = task.fresh = True

    def _end(self) -> None:
        if self.phase.startswith("ended") or self.phase == "pending":
            return
        if all(task.status in FINAL for task in self.tasks):
            if self.phase == "cancelling":
                self.phase = "ended cancelled"
            elif self.error:
                self.phase = "ended failed"
            else:
                self.all_done = True
