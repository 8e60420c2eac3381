"""Random workflows, outcomes, orders and restarts: the execution obeys every rule and always ends.

After every step all invariants hold, the state equals that of a naive model, and the audit of the
event log finds nothing, neither in the log nor between it and the state. At the end all that is
outstanding is answered until the execution has ended, and the same stimuli, told again, give the
same decisions byte for byte.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from harmonia_actors.core import commands as cmd
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.execution import CoreLimits, Decision, Execution
from harmonia_actors.core.invariants import (
    picture,
    violations,
    violations_of,
    violations_since,
)
from harmonia_actors.core.log_lines import LogLine
from harmonia_actors.core.options import CheckpointPolicy, ExecutionOptions
from harmonia_actors.core.records import decode_head, decode_row, encode_head, encode_row
from harmonia_actors.core.workflow import Workflow
from tests.property.naive_checkpoints import NaiveCheckpoints
from tests.property.naive_execution import NaiveExecution
from tests.support.auditing import AuditedLog, bodies_of
from tests.support.executions import EXECUTION_ID, START_MS, new_head, output, workflow_of

_TASKS_MAX = 8
_ROUNDS_MAX = 200

Told = tuple[str, Any]


@some.composite
def workflows(draw: some.DrawFn) -> Workflow:
    count = draw(some.integers(1, _TASKS_MAX))
    tasks: dict[str, Any] = {}
    for index in range(count):
        parents = draw(some.sets(some.integers(0, index - 1), max_size=3)) if index else set()
        task: dict[str, Any] = {"depends_on": [f"t{parent}" for parent in sorted(parents)]}
        if draw(some.booleans()):
            task["retry_policy"] = {
                "max_retries": draw(some.integers(0, 3)),
                "retry_interval": draw(some.sampled_from([0, 1, 5])),
                "backoff": draw(some.sampled_from([1, 2])),
                "jitter": draw(some.sampled_from([0, 0.5])),
            }
        if draw(some.booleans()):
            task["timeout"] = draw(some.sampled_from([1, 3, 10]))
        tasks[f"t{index}"] = task
    more = draw(some.sampled_from([{}, {}, {"output": {"first": "${tasks.t0.output.n}"}}]))
    return workflow_of(tasks, **more)


def body_of(decision: Decision) -> bytes:
    """A decision as bytes, so that two can be compared exactly."""
    events = bodies_of(decision.events, EXECUTION_ID)
    rest = (decision.commands, list(decision.changed), decision.head_changed, decision.outputs)
    return b"\n".join([*events, repr(rest).encode()])


class Replayer:
    """An execution that can be told the same things twice."""

    def __init__(
        self,
        workflow: Workflow,
        timeout_ms: int | None,
        policy: CheckpointPolicy | None,
        limits: CoreLimits,
    ) -> None:
        self.workflow = workflow
        self.limits = limits
        options = ExecutionOptions(timeout_ms=timeout_ms, checkpoint=policy)
        self.execution = Execution(
            workflow=workflow, head=new_head(workflow, options), limits=limits
        )
        #: What is stored: rows by index and the head, as of the last decision.
        self.rows: dict[int, bytes] = {}
        self.head = encode_head(self.execution.head_record())

    def tell(self, kind: str, what: Any) -> Decision:
        if kind == "handle":
            return self._write(self.execution.handle(*what))
        at_ms, adopted = what
        self.execution = Execution(
            workflow=self.workflow,
            head=decode_head(self.head),
            rows={index: decode_row(body) for index, body in self.rows.items()},
            seq=self.execution.seq,
            limits=self.limits,
        )
        return self._write(self.execution.resume(at_ms, adopted))

    def _write(self, decision: Decision) -> Decision:
        if decision.head_changed:
            self.head = encode_head(self.execution.head_record())
        for index in decision.changed:
            self.rows[index] = encode_row(self.execution.rows[index])
        return decision


class ExecutionMachine(RuleBasedStateMachine):
    """Feeds stimuli as task actors, clients, timers and crashes would."""

    @initialize(
        workflow=workflows(),
        timeout_ms=some.sampled_from([None, None, 20_000]),
        lost_max=some.integers(0, 2),
        policy=some.none()
        | some.builds(
            CheckpointPolicy,
            every_completions=some.sampled_from([1, 1, 2, 3]),
            every_ms=some.sampled_from([None, 1_000]),
        )
        | some.builds(CheckpointPolicy, every_ms=some.sampled_from([1, 1_000, 5_000])),
    )
    def begin(
        self,
        workflow: Workflow,
        timeout_ms: int | None,
        lost_max: int,
        policy: CheckpointPolicy | None,
    ) -> None:
        limits = CoreLimits(
            lost_attempts_max=lost_max, inline_output_bytes_max=150, log_bytes_max=1_000
        )
        self.given = (workflow, timeout_ms, policy, limits)
        self.automatic = NaiveCheckpoints(policy)
        self.replayer = Replayer(*self.given)
        self.model = NaiveExecution(workflow, EXECUTION_ID, lost_max, timeout_ms)
        self.at_ms = START_MS
        #: All that was told, for the replay, and the decisions that followed.
        self.told: list[Told] = []
        self.decisions: list[bytes] = []
        self.audited = AuditedLog(workflow, self.replayer.execution.head)
        #: Attempts that task actors have, as far as commands say; each told to stop or not.
        self.live: dict[tuple[int, int], str] = {}
        self.begun: set[tuple[int, int]] = set()
        self.ever: set[tuple[int, int]] = set()
        self.due_ms: int | None = None
        self.composing = False
        self.checkpoints = 0

    # Rules -------------------------------------------------------------------------------------

    @rule()
    def start(self) -> None:
        self.tell(st.StartRequested(self.at_ms))

    @precondition(lambda self: self.live)
    @rule(data=some.data(), count=some.integers(1, 4))
    def reports(self, data: some.DataObject, count: int) -> None:
        """Several reports come in together, about attempts that exist, honestly."""
        stimuli: list[st.Stimulus] = []
        left = sorted(self.live)
        for _ in range(min(count, len(left))):
            attempt = data.draw(some.sampled_from(left))
            left.remove(attempt)
            kind = data.draw(
                some.sampled_from(
                    [
                        *("start", "start", "success", "success", "failure", "fatal", "lost"),
                        *("progress", "lines", "lines"),
                    ]
                )
            )
            if kind == "lines":
                stimuli.append(self.lines(attempt, data))
            else:
                stimuli.append(self.report(kind, attempt))
        self.tell(*stimuli)

    @precondition(lambda self: any(self.live.values()))
    @rule(data=some.data())
    def stopped(self, data: some.DataObject) -> None:
        stopping = sorted(attempt for attempt, told in self.live.items() if told)
        attempt = data.draw(some.sampled_from(stopping))
        self.tell(self.report("stopped", attempt))

    @precondition(lambda self: self.ever)
    @rule(data=some.data())
    def duplicate_or_late(self, data: some.DataObject) -> None:
        """A report of an attempt that has ended comes again, or of one that never was."""
        task, attempt = data.draw(some.sampled_from(sorted(self.ever)))
        number = attempt + data.draw(some.sampled_from([0, 0, 1, 7]))
        kind = data.draw(some.sampled_from(["start", "success", "failure", "lost", "stopped"]))
        if (task, number) not in self.live:
            self.tell(self.report(kind, (task, number)))

    @rule(data=some.data())
    def forged(self, data: some.DataObject) -> None:
        task = data.draw(some.integers(0, len(self.model.tasks) - 1))
        if (task, 1) not in self.ever:
            kind = data.draw(some.sampled_from(["start", "success", "failure", "lost", "stopped"]))
            self.tell(self.report(kind, (task, 1)))

    @precondition(lambda self: self.due_ms is not None)
    @rule(late_ms=some.sampled_from([0, 0, 1, 900, 30_000]))
    def timer(self, late_ms: int) -> None:
        assert self.due_ms is not None
        self.at_ms = max(self.at_ms, self.due_ms) + late_ms
        self.due_ms = None
        self.tell(st.TimerFired(self.at_ms))

    @rule(ms=some.sampled_from([1, 500, 4_000]))
    def time_passes(self, ms: int) -> None:
        self.at_ms += ms

    @precondition(lambda self: len(self.told) > 4)
    @rule()
    def cancel(self) -> None:
        self.tell(st.CancelRequested(self.at_ms))

    @rule()
    def checkpoint(self) -> None:
        if self.checkpoints < 2 and self.replayer.execution.seq:
            self.checkpoints += 1
            self.tell(st.CheckpointTaken(self.at_ms, f"cp-{self.checkpoints}", "here"))

    @precondition(lambda self: self.automatic.outstanding is not None)
    @rule()
    def checkpoint_taken(self) -> None:
        seq = self.automatic.outstanding
        assert seq is not None
        self.automatic.outstanding = None
        self.tell(st.AutomaticCheckpointTaken(self.at_ms, seq, f"cp-auto-{seq}"))

    @rule(seq=some.sampled_from([0, 2, 3, 5]))
    def checkpoint_told_twice(self, seq: int) -> None:
        if seq != self.automatic.outstanding:
            self.tell(st.AutomaticCheckpointTaken(self.at_ms, seq, f"cp-auto-{seq}"))

    @rule(node_id=some.sampled_from(["a", "b"]))
    def node_chosen(self, node_id: str) -> None:
        self.tell(st.NodeChosen(self.at_ms, node_id))

    @precondition(lambda self: self.composing)
    @rule(works=some.booleans())
    def composed(self, works: bool) -> None:
        self.composing = False
        if works:
            self.tell(st.OutputComposed(self.at_ms, output({"made": True})))
        else:
            self.tell(st.OutputRefused(self.at_ms, st.Failure("no", "MISSING_VALUE", {}, "engine")))

    @rule(data=some.data())
    def restart(self, data: some.DataObject) -> None:
        """The owner dies. Some of what lived is found again, the rest is gone or unreachable."""
        found = set()
        if self.live:
            found = data.draw(some.sets(some.sampled_from(sorted(self.live))))
        self.restart_with(found)

    # Telling -----------------------------------------------------------------------------------

    def report(self, kind: str, attempt: tuple[int, int]) -> st.AttemptStimulus:
        task, number = attempt
        at_ms = self.at_ms
        if kind == "start":
            self.begun.add(attempt)
        broke = st.Failure("broke", "BROKE", {}, "component", kind == "failure")
        reports: dict[str, st.AttemptStimulus] = {
            "start": st.AttemptStarted(task, number, at_ms),
            "success": st.AttemptSucceeded(task, number, at_ms, output({"n": task})),
            "failure": st.AttemptFailed(task, number, at_ms, broke),
            "fatal": st.AttemptFailed(task, number, at_ms, broke),
            "lost": st.AttemptLost(task, number, at_ms, "its node died"),
            "stopped": st.AttemptStopped(task, number, at_ms),
            "progress": st.ProgressReported(task, number, at_ms, 0.5, "half way"),
            "waiting": st.AttemptWaiting(task, number, at_ms, "no room"),
        }
        if kind == "progress" and attempt not in self.begun:
            kind = "waiting"
        return reports[kind]

    def lines(self, attempt: tuple[int, int], data: some.DataObject) -> st.LinesReported:
        """Some lines of an attempt, perhaps told before, perhaps with a gap before them."""
        first, count = data.draw(some.integers(0, 6)), data.draw(some.integers(0, 3))
        lines = tuple(LogLine("stdout", "x" * number, self.at_ms) for number in range(count))
        return st.LinesReported(*attempt, self.at_ms, first, lines, data.draw(some.booleans()))

    def tell(self, *stimuli: st.Stimulus) -> None:
        self.model.take(list(stimuli))
        ended = (st.AttemptSucceeded, st.AttemptFailed, st.AttemptLost, st.AttemptStopped)
        for stimulus in stimuli:
            if isinstance(stimulus, ended):
                self.live.pop((stimulus.task, stimulus.attempt), None)
        self.decide("handle", stimuli)

    def restart_with(self, found: set[tuple[int, int]]) -> None:
        self.model.resume(self.at_ms, found)
        self.live = dict.fromkeys(sorted(found), "")
        self.begun |= found
        self.due_ms = None
        self.composing = False
        self.decide("resume", (self.at_ms, found))

    def decide(self, kind: str, what: Any) -> None:
        execution = self.replayer.execution
        before, seq = picture(execution), execution.seq
        note(f"{kind} {what}")
        decision = self.replayer.tell(kind, what)
        note(f"  -> {decision.commands} {[n.event.type for n in decision.events]}")
        self.told.append((kind, what))
        self.decisions.append(body_of(decision))
        execution = self.replayer.execution
        self.perform(decision)
        at_ms = what[-1].at_ms if kind == "handle" else what[0]
        assert [
            command.seq for command in decision.commands if isinstance(command, cmd.TakeCheckpoint)
        ] == self.automatic.expected(execution, at_ms, resumed=kind == "resume")
        broken = [
            *violations(execution),
            *violations_since(before, execution),
            *violations_of(decision, seq_before=seq, seq_after=execution.seq),
            *self.audited.take(decision, execution),
        ]
        assert broken == []
        self.check_model()

    def perform(self, decision: Decision) -> None:
        for command in decision.commands:
            match command:
                case cmd.StartAttempt(task, attempt):
                    assert (task, attempt) not in self.ever, "a number was given out twice"
                    self.ever.add((task, attempt))
                    self.live[(task, attempt)] = ""
                case cmd.StopAttempt(task, attempt, reason):
                    # It may have ended by a later report of the same batch.
                    assert (task, attempt) in self.ever, "stops what never lived"
                    if (task, attempt) in self.live:
                        self.live[(task, attempt)] = reason.value
                case cmd.ArmTimer(due_ms):
                    self.due_ms = due_ms
                case cmd.ComposeOutput():
                    self.composing = True
                case cmd.TakeCheckpoint():
                    pass  # Compared with what the model expects.

    def check_model(self) -> None:
        execution, model = self.replayer.execution, self.model
        rows = execution.rows
        assert [row.status.value for row in rows] == [task.status for task in model.tasks]
        for row, task in zip(rows, model.tasks, strict=True):
            assert (row.attempt, row.failures, row.losses) == (
                task.attempt,
                task.failures,
                task.losses,
            )
            assert (row.started_ms, row.progress) == (task.started_ms, task.progress)
        expected = {(i, task.attempt) for i, task in enumerate(model.tasks) if task.live}
        assert set(self.live) == expected, "what task actors have is not what the model expects"
        told = {attempt: reason for attempt, reason in self.live.items() if reason}
        stops = {(i, task.attempt): task.stop for i, task in enumerate(model.tasks) if task.live}
        assert told == {attempt: reason for attempt, reason in stops.items() if reason}
        phase = execution.head.status.value
        if phase == "completed" and model.phase == "running":
            # Small outputs are put together at once.
            assert model.all_done
            model.phase = "ended completed"
        assert model.phase == (f"ended {phase}" if execution.is_final else phase)
        assert not self.composing or model.all_done

    # The end -----------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "replayer"):
            return
        self.finish()
        execution = self.replayer.execution
        assert execution.is_final
        assert self.live == {}
        assert self.audited.auditor.final is not None
        again = Replayer(*self.given)
        assert [body_of(again.tell(kind, what)) for kind, what in self.told] == self.decisions

    def finish(self) -> None:
        """Faults stop: whatever is outstanding is answered, and nothing else happens."""
        self.tell(st.StartRequested(self.at_ms))
        for _ in range(_ROUNDS_MAX):
            if self.replayer.execution.is_final:
                return
            self.at_ms += 1
            if self.live:
                attempt, told = min(self.live.items())
                self.tell(self.report("stopped" if told else "success", attempt))
            elif self.composing:
                self.composed(True)
            else:
                assert self.due_ms is not None, "nothing is outstanding, and it has not ended"
                self.timer(0)
        raise AssertionError("the execution does not end")


TestExecutionMachine = ExecutionMachine.TestCase
TestExecutionMachine.settings = settings(
    max_examples=120,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
