"""Random chains and joins, handed out in stretches to honest workers that die, fail and are late.

A worker keeps to its part: it starts what follows only once the outcome before is in the inbox, and
not any more once a new owner has asked. After every step all invariants hold and the audit of the
log finds nothing; no attempt begins twice, or before what it waits for is durable; and at the end
the execution ends.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as some

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


def tasks_of(luck: random.Random) -> dict[str, Any]:
    tasks: dict[str, Any] = {}
    for index in range(luck.randint(1, _TASKS_MAX)):
        parents = {index - 1} if index else set()
        if index and luck.random() < 0.2:
            parents = set(luck.sample(range(index), min(index, luck.randint(0, 2))))
        tasks[f"t{index}"] = {
            "depends_on": [f"t{parent}" for parent in sorted(parents)],
            "retry_policy": {"max_retries": luck.randint(0, 2), "retry_interval": 0},
        }
    return tasks


class Play:
    """Plays workers, clients, and owners that die, as luck will have it."""

    def __init__(self, seed: int) -> None:
        self.luck = random.Random(seed)
        tasks = tasks_of(self.luck)
        joined = [name for name in tasks if self.luck.random() < 0.9]
        limits = CoreLimits(stretch_tasks_max=self.luck.randint(1, 9), lost_attempts_max=30)
        self.story = Story(workflow_of(tasks), joined=joined, limits=limits)
        self.workers: list[Worker] = []
        #: What the inbox has and no commit has acknowledged.
        self.inbox: list[st.AttemptStimulus] = []
        self.begun: set[Attempt] = set()
        #: Attempts because of whose outcome others have begun: no other may count any more.
        self.relied_on: dict[int, int] = {}
        self.due = False
        self.perform(self.story.start())

    def act(self) -> None:
        """One thing happens."""
        acts = [(10, self.works), (2, self.dies), (3, self.another_owner), (2, self.timer)]
        chances = [*acts, (0.2, self.cancel)]
        weights = [weight for weight, _ in chances]
        ((_, act),) = self.luck.choices(chances, weights)
        act()

    # What workers do ---------------------------------------------------------------------------

    def works(self) -> None:
        """The next steps of a worker: it begins something, or what it is at ends."""
        if not self.workers:
            return
        worker = self.luck.choice(self.workers)
        for _ in range(self.luck.randint(1, 4)):
            if worker.live is not None:
                self.step(worker, self.luck.choice([*["on"] * 20, "back", "broke", "fatal"]))
            elif worker.rest:
                self.step(worker, "begin")
        if self.luck.random() < 0.4:
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
            self.relied_on[parent] = rows[parent].attempt

    def deliver(self, worker: Worker) -> None:
        untold, worker.untold = worker.untold, []
        if worker.live is None and not worker.rest and worker in self.workers:
            self.workers.remove(worker)
        if untold:
            self.tell(*untold)

    def dies(self) -> None:
        """A worker dies; its owner reads the inbox and only then says what is lost."""
        if not self.workers:
            return
        worker = self.luck.choice(self.workers)
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

    def another_owner(self) -> None:
        """The inbox comes with the claim; then workers are asked, and go no further."""
        adopted: set[Attempt] = set()
        outcomes: list[st.AttemptStimulus] = []
        for worker in list(self.workers):
            worker.rest.clear()
            found = self.luck.random() < 0.5
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

    def cancel(self) -> None:
        self.tell(st.CancelRequested(self.story.at_ms))

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
        rows = self.story.execution.rows
        for task, attempt in self.relied_on.items():
            assert rows[task].attempt == attempt, f"what followed {task}/{attempt} was in vain"
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

    def end(self) -> None:
        """Nothing goes wrong any more: it ends."""
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


@settings(max_examples=400, deadline=None)
@given(some.integers(0, 2**32), some.integers(1, 40))
def test_stretches_obey_all_rules_and_end(seed: int, acts: int) -> None:
    play = Play(seed)
    for _ in range(acts):
        if not play.story.execution.is_final:
            play.act()
    play.end()
