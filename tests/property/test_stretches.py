"""Random chains and joins, handed out in stretches to honest workers that die, fail and are late.

A worker keeps to its part: it starts what follows only once the outcome before is in the inbox, and
not any more once a new owner has asked. After every step all invariants hold and the audit of the
log finds nothing; no attempt begins twice, or before what it waits for is durable; and at the end
the execution ends.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from harmonia_actors.core import commands as cmd
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.execution import CoreLimits, Decision
from harmonia_actors.core.statuses import TaskStatus
from tests.support.executions import Story, failed, output, workflow_of

_TASKS_MAX = 9
_ROUNDS_MAX = 400

Attempt = tuple[int, int]


@dataclass(eq=False)
class Worker:
    """A process with one stretch."""

    rest: deque[Attempt]
    live: Attempt | None = None
    #: Reports that are on their way to the owner, in order.
    untold: list[st.AttemptStimulus] = field(default_factory=list)


@some.composite
def tasks_of(draw: some.DrawFn) -> dict[str, Any]:
    tasks: dict[str, Any] = {}
    for index in range(draw(some.integers(1, _TASKS_MAX))):
        parents = {index - 1} if index else set()
        if index and draw(some.integers(0, 3)) == 0:
            parents = draw(some.sets(some.integers(0, index - 1), max_size=2))
        tasks[f"t{index}"] = {
            "depends_on": [f"t{parent}" for parent in sorted(parents)],
            "retry_policy": {"max_retries": draw(some.integers(0, 2)), "retry_interval": 0},
        }
    return tasks


class StretchMachine(RuleBasedStateMachine):
    """Plays workers, clients, and owners that die."""

    @initialize(tasks=tasks_of(), unjoined=some.sets(some.integers(0, 8)), most=some.integers(1, 9))
    def begin(self, tasks: dict[str, Any], unjoined: set[int], most: int) -> None:
        joined = [name for index, name in enumerate(tasks) if index not in unjoined]
        limits = CoreLimits(stretch_tasks_max=most, lost_attempts_max=30)
        self.story = Story(workflow_of(tasks), joined=joined, limits=limits)
        self.workers: list[Worker] = []
        #: What the inbox has and no commit has acknowledged.
        self.inbox: list[st.AttemptStimulus] = []
        self.begun: set[Attempt] = set()
        self.due = False
        self.perform(self.story.start())

    # What workers do ---------------------------------------------------------------------------

    @precondition(lambda self: self.workers)
    @rule(data=some.data())
    def works(self, data: some.DataObject) -> None:
        """The next step of a worker: it begins something, or what it is at ends."""
        worker = data.draw(some.sampled_from(self.workers))
        if worker.live is not None:
            ends = some.sampled_from(["on", "on", "on", "back", "broke", "fatal"])
            self.step(worker, data.draw(ends))
        elif worker.rest:
            self.step(worker, "begin")
        if data.draw(some.booleans()):
            self.deliver(worker)

    def step(self, worker: Worker, how: str) -> None:
        at_ms = self.story.at_ms
        if how == "begin":
            worker.live = worker.rest.popleft()
            self.check_begin(worker.live)
            worker.untold.append(st.AttemptStarted(*worker.live, at_ms))
            return
        assert worker.live is not None
        (task, attempt), worker.live = worker.live, None
        if how in ("broke", "fatal"):
            failure = failed(retriable=how == "broke")
            worker.untold.append(st.AttemptFailed(task, attempt, at_ms, failure))
        else:
            success = st.AttemptSucceeded(task, attempt, at_ms, output({"of": task}))
            worker.untold.append(success)
            if how == "on" and worker.rest:
                self.inbox += [st.AttemptStarted(task, attempt, at_ms), success]
                return
        self.return_rest(worker)

    def return_rest(self, worker: Worker, but: Attempt | None = None) -> None:
        at_ms = self.story.at_ms
        worker.untold += [st.AttemptReturned(*each, at_ms) for each in worker.rest if each != but]
        worker.rest.clear()

    def check_begin(self, attempt: Attempt) -> None:
        assert attempt not in self.begun, f"{attempt} begins twice"
        self.begun.add(attempt)
        kept = {(r.task, r.attempt) for r in self.inbox if isinstance(r, st.AttemptSucceeded)}
        rows = self.story.execution.rows
        for parent in self.story.workflow.graph.parents[attempt[0]]:
            is_durable = rows[parent].status is TaskStatus.COMPLETED
            assert is_durable or (parent, rows[parent].attempt) in kept, f"{attempt} is too early"

    def deliver(self, worker: Worker) -> None:
        untold, worker.untold = worker.untold, []
        if worker.live is None and not worker.rest and worker in self.workers:
            self.workers.remove(worker)
        if untold:
            self.tell(*untold)

    @precondition(lambda self: self.workers)
    @rule(data=some.data())
    def dies(self, data: some.DataObject) -> None:
        """A worker dies; its owner reads the inbox and only then says what is lost."""
        worker = data.draw(some.sampled_from(self.workers))
        self.workers.remove(worker)
        had = [*([worker.live] if worker.live else []), *worker.rest]
        told_late = [each for each in worker.untold if isinstance(each, st.AttemptReturned)]
        unkept = [(r.task, r.attempt) for r in worker.untold if not self.is_kept(r)]
        gone = dict.fromkeys([*unkept, *((r.task, r.attempt) for r in told_late), *had])
        self.tell(*self.inbox)
        order = self.chain_order(list(gone))
        at_ms = self.story.at_ms
        self.tell(*(st.AttemptLost(*each, at_ms, "it died") for each in reversed(order)))

    def is_kept(self, report: st.AttemptStimulus) -> bool:
        kept = {(r.task, r.attempt) for r in self.inbox}
        return (report.task, report.attempt) in kept

    def chain_order(self, attempts: list[Attempt]) -> list[Attempt]:
        order = self.story.workflow.graph.order()
        return sorted(attempts, key=lambda attempt: order.index(attempt[0]))

    # What owners and clients do ----------------------------------------------------------------

    @rule(data=some.data())
    def another_owner(self, data: some.DataObject) -> None:
        """The inbox comes with the claim; then workers are asked, and go no further."""
        adopted: set[Attempt] = set()
        outcomes: list[st.AttemptStimulus] = []
        for worker in list(self.workers):
            worker.rest.clear()
            found = data.draw(some.booleans())
            held = [
                r for r in worker.untold if isinstance(r, (st.AttemptSucceeded, st.AttemptFailed))
            ]
            worker.untold = []
            if found:
                adopted |= {(r.task, r.attempt) for r in held}
                outcomes += held
            if worker.live is not None and found:
                adopted.add(worker.live)
            else:
                self.workers.remove(worker)
        settled, self.inbox = self.inbox, []
        self.due = False
        self.perform(self.story.resume(adopted, settled))
        if outcomes:
            self.tell(*outcomes)

    @rule(odds=some.integers(0, 6))
    def cancel(self, odds: int) -> None:
        if not odds:
            self.tell(st.CancelRequested(self.story.at_ms))

    @rule()
    def timer(self) -> None:
        if self.due:
            self.due = False
            self.perform(self.story.wait(1_000))

    def tell(self, *reports: st.Stimulus) -> None:
        self.perform(self.story.take(*reports))
        # What was taken in is acknowledged by the same commit.
        told = {(r.task, r.attempt) for r in reports if isinstance(r, st.AttemptSucceeded)}
        self.inbox = [r for r in self.inbox if (r.task, r.attempt) not in told]

    def perform(self, decision: Decision) -> None:
        for command in decision.commands:
            match command:
                case cmd.StartAttempt(task, attempt, then):
                    self.workers.append(Worker(deque([(task, attempt), *then])))
                case cmd.StopAttempt(task, attempt):
                    self.stop((task, attempt))
                case cmd.ArmTimer():
                    self.due = True
                case _:
                    self.tell(st.OutputComposed(self.story.at_ms, output({})))

    def stop(self, attempt: Attempt) -> None:
        stopped = st.AttemptStopped(*attempt, self.story.at_ms)
        for worker in self.workers:
            if attempt in worker.rest:
                self.return_rest(worker, attempt)
                worker.untold.append(stopped)
                return
            if worker.live == attempt:
                worker.live = None
                worker.untold.append(stopped)
                self.return_rest(worker)
                return
            if any((r.task, r.attempt) == attempt for r in worker.untold):
                self.return_rest(worker)
                return
        self.workers.append(Worker(deque(), None, [stopped]))

    def teardown(self) -> None:
        if not hasattr(self, "story"):
            return
        for _ in range(_ROUNDS_MAX):
            if self.story.execution.is_final:
                return
            if self.workers:
                worker = self.workers[0]
                if worker.live is not None:
                    self.step(worker, "on")
                elif worker.rest:
                    self.step(worker, "begin")
                self.deliver(worker)
            self.timer()
        raise AssertionError(f"it does not end: {self.story.statuses()}")


StretchMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestStretches = StretchMachine.TestCase
