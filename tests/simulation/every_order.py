"""All graphs of a few tasks up to isomorphism, and every state that one can be brought into.

From each state every report goes out that could come next; states that were seen before, also in
another guise (tasks that can be swapped without changing the graph), are not followed again. What
is left is finite, and every way through it has to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import combinations, permutations
from typing import Any

from harmonia_actors.core import stimuli as st
from harmonia_actors.core.events import Event
from harmonia_actors.core.execution import CoreLimits, Decision, Execution
from harmonia_actors.core.invariants import (
    picture,
    violations,
    violations_of,
    violations_since,
)
from harmonia_actors.core.statuses import ExecutionStatus
from harmonia_actors.core.workflow import Workflow
from tests.simulation.event_oracle import check_log
from tests.support.executions import START_MS, failed, new_head, output, workflow_of

__all__ = ["Explorer", "Moves", "graphs"]

Parents = tuple[tuple[int, ...], ...]
#: Stimuli that come together, or the attempts that a successor finds.
Move = tuple[st.Stimulus, ...] | frozenset[tuple[int, int]]
_OUTPUT = output({"n": 1})


def graphs(count: int) -> list[Parents]:
    """All acyclic graphs of `count` tasks, one of each form, tasks in topological order."""
    pairs = list(combinations(range(count), 2))
    found: dict[Any, Parents] = {}
    for chosen in range(2 ** len(pairs)):
        edges = [pair for bit, pair in enumerate(pairs) if chosen >> bit & 1]
        form = min(
            tuple(sorted((order[a], order[b]) for a, b in edges))
            for order in permutations(range(count))
        )
        parents = tuple(tuple(a for a, b in edges if b == task) for task in range(count))
        found.setdefault(form, parents)
    return list(found.values())


def swaps(parents: Parents) -> list[tuple[int, ...]]:
    """Orders of the tasks that leave the graph as it is."""
    edges = {(a, b) for b, of_task in enumerate(parents) for a in of_task}
    return [
        order
        for order in permutations(range(len(parents)))
        if {(order[a], order[b]) for a, b in edges} == edges
    ]


@dataclass(frozen=True)
class Moves:
    """What may happen besides the outcomes success, failure and loss of each attempt."""

    #: Starts are reported before outcomes, or only outcomes are.
    starts: bool = True
    cancel: bool = False
    #: How often the owner dies; its successor finds any part of what ran.
    restarts: int = 0
    #: Two reports come in one batch, in either order.
    pairs: bool = False
    retries: int = 0
    losses: int = 1


@dataclass(frozen=True)
class _Place:
    """A state, and how it was reached."""

    execution: Execution
    restarts: int = 0
    log: tuple[tuple[int, Event], ...] = ()


@dataclass
class Explorer:
    """Goes through all states of one graph."""

    parents: Parents
    moves: Moves
    states: int = 0
    steps: int = 0
    ends: set[str] = field(default_factory=set)
    _seen: dict[Any, bool] = field(default_factory=dict)

    def run(self) -> None:
        """Raises AssertionError, with the way that led there, if a rule is broken."""
        tasks = {
            f"t{task}": {
                "depends_on": [f"t{parent}" for parent in parents],
                "retry_policy": {"max_retries": self.moves.retries, "retry_interval": 0},
            }
            for task, parents in enumerate(self.parents)
        }
        self.workflow: Workflow = workflow_of(tasks)
        self._swaps = swaps(self.parents)
        limits = CoreLimits(lost_attempts_max=self.moves.losses)
        execution = Execution(workflow=self.workflow, head=new_head(self.workflow), limits=limits)
        self._visit(_Place(execution), [(st.StartRequested(START_MS),)])

    # -------------------------------------------------------------------------------------------

    def _visit(self, place: _Place, moves: Sequence[Move]) -> None:
        """Make each move from here, and go on from where it leads."""
        before, seq = picture(place.execution), place.execution.seq
        for move in moves:
            after = _clone(place.execution)
            decision = self._make(after, move)
            broken = [
                *violations_since(before, after),
                *violations_of(decision, seq_before=seq, seq_after=after.seq),
            ]
            assert broken == [], f"{self.parents} {move}: {broken}"
            self.steps += 1
            restarts = place.restarts + isinstance(move, frozenset)
            key = (restarts, self._key(after))
            if key in self._seen:
                assert self._seen[key], f"{self.parents} {move} leads in a circle"
                continue
            self._seen[key] = False
            self.states += 1
            told = ((numbered.index, numbered.event) for numbered in decision.events)
            self._judge(_Place(after, restarts, (*place.log, *told)), move)
            self._seen[key] = True

    def _judge(self, place: _Place, move: Move) -> None:
        broken = violations(place.execution)
        assert broken == [], f"{self.parents} {move}: {broken}"
        if place.execution.is_final:
            check_log(self.workflow, place.log, place.execution)
            self.ends.add(place.execution.head.status.value)
            return
        moves = list(self._moves(place))
        assert moves, f"{self.parents} {move}: nothing can come any more, and it has not ended"
        self._visit(place, moves)

    def _make(self, execution: Execution, move: Move) -> Decision:
        if isinstance(move, frozenset):
            _restart(execution)
            return execution.resume(START_MS, move)
        return execution.handle(*move)

    def _moves(self, place: _Place) -> Iterator[Move]:
        execution = place.execution
        live = sorted(execution.handed_out)
        reports = [report for task in live for report in self._reports(execution, task)]
        yield from ((report,) for report in reports)
        if self.moves.pairs:
            both = permutations(reports, 2)
            yield from ((one, other) for one, other in both if one.task != other.task)
        if execution._timers.heap:
            yield (st.TimerFired(START_MS),)
        if self.moves.cancel and execution.head.status is ExecutionStatus.RUNNING:
            yield (st.CancelRequested(START_MS),)
        if place.restarts < self.moves.restarts:
            attempts = [(task, execution.rows[task].attempt) for task in live]
            for count in range(len(attempts) + 1):
                yield from map(frozenset, combinations(attempts, count))

    def _reports(self, execution: Execution, task: int) -> Iterator[st.AttemptStimulus]:
        attempt = execution.rows[task].attempt
        if self.moves.starts and task not in execution._running:
            yield st.AttemptStarted(task, attempt, START_MS)
        yield st.AttemptSucceeded(task, attempt, START_MS, _OUTPUT)
        yield st.AttemptFailed(task, attempt, START_MS, failed())
        yield st.AttemptLost(task, attempt, START_MS, "its process died")
        if task in execution._stopping:
            yield st.AttemptStopped(task, attempt, START_MS)

    def _key(self, execution: Execution) -> Any:
        """The state without its history, the same for all states that differ by a swap."""
        culprit = (execution.head.error or {}).get("task")
        timers = {(task, attempt) for _, _, task, attempt in execution._timers.heap}
        tasks = [
            (
                row.status.value,
                row.attempt,
                row.failures,
                row.losses,
                index in execution.handed_out,
                execution._stopping.get(index, ""),
                (index, row.attempt) in timers,
                culprit == f"t{index}",
            )
            for index, row in enumerate(execution.rows)
        ]
        form = min(tuple(tasks[place] for place in order) for order in self._swaps)
        return execution.head.status.value, form


def _clone(execution: Execution) -> Execution:
    """A copy that can be brought further without moving the original."""
    twin = copy(execution)
    twin.head = replace(execution.head)
    twin.rows = [copy(row) for row in execution.rows]
    twin.waiting_on = list(execution.waiting_on)
    twin.handed_out = set(execution.handed_out)
    twin._running = dict(execution._running)
    twin._stopping = dict(execution._stopping)
    twin._timers = replace(execution._timers, heap=list(execution._timers.heap))
    twin._kept = dict(execution._kept)
    twin._draft = Decision()
    return twin


def _restart(execution: Execution) -> None:
    """What only the former owner's memory held is gone."""
    fresh = Execution(
        workflow=execution.workflow,
        head=execution.head,
        rows=dict(enumerate(execution.rows)),
        seq=execution.seq,
        limits=execution.limits,
    )
    execution.__dict__.update(fresh.__dict__)
