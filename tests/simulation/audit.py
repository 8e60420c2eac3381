"""Judges a run by what reaches the store and by what begins to run, never by what is believed.

After each request that the store has carried out, what is stored is read back and asked: do all
named invariants hold, has nothing changed that is final, did only the owner of the epoch write, is
each outcome the one that this very attempt has given? Each attempt that begins is asked whether it
may: is it the first under its number, is all it depends on durable, was it ordered by the owner?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core.audit import Auditor as HistoryAuditor
from harmonia_actors.core.audit_state import disagreements, inherited_tasks
from harmonia_actors.core.definition import build_workflow
from harmonia_actors.core.events import CheckpointCreated, TaskLog
from harmonia_actors.core.execution import Execution
from harmonia_actors.core.invariants import Picture, picture, violations, violations_since
from harmonia_actors.core.quarantine import QUARANTINED
from harmonia_actors.core.records import OutputReference, TaskRow, decode_head, decode_row
from harmonia_actors.core.statuses import ExecutionStatus, TaskStatus
from harmonia_actors.core.stimuli import AttemptSucceeded
from harmonia_actors.core.workflow import Workflow
from harmonia_actors.runtime.event_hub import parse_event
from harmonia_actors.runtime.host_limits import HostLimits
from harmonia_actors.runtime.notes import outcomes_in
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder
from persistence.errors import StoreError
from persistence.store import Commit, Loaded, NewExecution, OwnCheckpoint, Snapshot
from tests.simulation.checkpoint_audit import CheckpointAuditor
from tests.simulation.clock_audit import ClockAuditor
from tests.simulation.line_judge import LineJudge
from tests.simulation.loss_audit import LossAuditor
from tests.simulation.output_audit import check_output, expected_values
from tests.simulation.owners import OwnerLimits
from tests.simulation.stop_audit import StopAuditor
from tests.simulation.store import StoreServer, at_once
from tests.simulation.stored_events import read_event
from tests.simulation.task_actors import SimulatedTaskActor
from tests.simulation.virtual_loop import Process

__all__ = ["Auditor"]

#: Requests that are noted, besides those that are looked into.
_TOLD = ("orphan", "create_checkpoint", "append_inbox", "retire_owner", "give_on", "calm")


@dataclass
class _Known:
    """What the auditor knows of one execution."""

    workflow: Workflow
    expected: dict[int, int]
    version: int
    seq: int
    epoch: int
    picture: Picture
    lines: LineJudge
    #: In a row, and ever, as its last owner was told.
    crashes: int = 0
    crashes_lately: int = 0
    owners: dict[int, str] = field(default_factory=dict)
    #: Epochs under which something was committed.
    written: set[int] = field(default_factory=set)
    outputs: dict[int, tuple[OutputReference, bytes]] = field(default_factory=dict)
    #: The engine's own auditor, which has read the log so far; of what it found, this is known.
    history: HistoryAuditor | None = None
    found: int = 0


class Auditor:
    """Sees all; `broken` holds what is wrong."""

    def __init__(
        self,
        server: StoreServer,
        blobs: Any,
        limits: OwnerLimits,
        clocks: ClockAuditor,
        stops: StopAuditor,
        losses: LossAuditor,
    ) -> None:
        self._server = server
        self._clocks = clocks
        self._stops = stops
        self._losses = losses
        self._blobs = blobs
        self._limits = limits.core
        self._crashes_max = limits.crashes_max
        self._known: dict[str, _Known] = {}
        self._begun: set[AttemptId] = set()
        #: Per actor and execution the highest epoch that it was told of.
        self._told: dict[tuple[SimulatedTaskActor, str], int] = {}
        #: Whose outcomes each actor has left in the inbox, by epoch. It may go on upon them for a
        #: moment after it was given up, and they with it: what it runs then is lost like they are.
        self._kept: set[tuple[SimulatedTaskActor, str, int, int]] = set()
        self._checkpoints = CheckpointAuditor(server.memory)
        self.broken: list[str] = []
        self.counts: Counter[str] = Counter()

    # What is seen ------------------------------------------------------------------------------

    def stored(
        self, process: Process, name: str, arguments: Any, named: Any, answer: Any
    ) -> str | None:
        """The store has carried out a request. Returns what is worth noting of it."""
        if name == "create_execution":
            return None if isinstance(answer, Exception) else self._created(arguments[0])
        if name == "commit":
            return self._committed(process, arguments[0], answer)
        if name in ("claim", "claim_next") and not isinstance(answer, Exception) and answer:
            return self._claimed(process, answer)
        if name == "take_checkpoint":
            return self._took_checkpoint(arguments[0], answer)
        if name in _TOLD:
            return f"{name} {arguments[0]} {type(answer).__name__}"
        return None

    def ordered(self, process: Process, orders: Sequence[AttemptOrder]) -> None:
        """Orders leave a driver: what they follow from must be durable by now."""
        for order in orders:
            known = self._known[order.execution_id]
            if order.epoch not in known.written:
                self._report(order.execution_id, f"{order.id} is ordered before any commit")
            if process.alive and known.owners.get(order.epoch) != process.name:
                self._report(order.execution_id, f"{order.id} is ordered by {process.name}")
            self._must_be_due(order, "is ordered")
            if order.key.node_id != self._node_of(order):
                self._report(order.execution_id, f"{order.id} is ordered beside its files")

    def asked(self, actor: SimulatedTaskActor, execution_id: str, epoch: int) -> None:
        """A new owner takes its census at an actor."""
        key = (actor, execution_id)
        self._told[key] = max(epoch, self._told.get(key, 0))

    def begun(self, actor: SimulatedTaskActor, order: AttemptOrder) -> None:
        """An attempt begins to run."""
        if order.id in self._begun:
            self._report(order.execution_id, f"{order.id} begins to run twice")
        self._begun.add(order.id)
        for problem in (
            *self._clocks.begun(order.id, order.epoch),
            *self._stops.begun(order, self.suspicion_s()),
            *self._losses.begun(actor, order, self._known[order.execution_id].epoch),
        ):
            self._report(order.execution_id, problem)
        self.counts["attempts begun"] += 1
        key = (actor, order.execution_id)
        told = self._told.get(key, 0)
        if order.epoch < told:
            self._report(
                order.execution_id,
                f"{order.id} of epoch {order.epoch} begins on {actor.name}, which knows {told}",
            )
        self._told[key] = max(told, order.epoch)
        self._must_be_due(order, "begins", actor)
        if (node_id := self._node_of(order)) not in ("", actor.node_id):
            self._report(order.execution_id, f"{order.id} begins on {actor.node_id}, not {node_id}")
        self.counts["attempts begun with files"] += bool(node_id)

    def ended(self, order: AttemptOrder) -> None:
        """An attempt does not run any more, in a process that lives."""
        self._losses.ended(order)
        for problem in self._stops.ended(order, self.workflow_of(order.execution_id)):
            self._report(order.execution_id, problem)

    def kept(self, actor: SimulatedTaskActor, order: AttemptOrder) -> None:
        """A task actor has left an outcome in the inbox, and goes on with what follows."""
        self._kept.add((actor, order.execution_id, order.epoch, order.task))
        self.counts["outcomes kept by task actors"] += 1

    def published(self, execution_id: str, first_seq: int, bodies: Sequence[bytes]) -> None:
        """Events are told to subscribers: they must be in the log."""
        memory = self._server.memory
        stored = at_once(memory.read_events(execution_id, after=first_seq - 1, limit=len(bodies)))
        if [event.body for event in stored] != list(bodies):
            self._report(execution_id, f"events from {first_seq} on are told, but not stored")

    # The end -----------------------------------------------------------------------------------

    def open_executions(self) -> list[str]:
        """Executions that have not ended."""
        return [name for name, known in self._known.items() if not known.picture.status.is_final]

    def suspicion_s(self) -> float:
        """How long suspects may be alone in all, one after the other."""
        limits = HostLimits(owners_max=1, lease_ms=1)
        return sum(
            limits.calm_s * 4 ** (known.crashes_lately - 1)
            for known in self._known.values()
            if known.crashes_lately
        )

    def executions(self) -> list[str]:
        """All there ever were."""
        return list(self._known)

    def workflow_of(self, execution_id: str) -> Workflow:
        """What an execution runs."""
        return self._known[execution_id].workflow

    def check_ends(self) -> None:
        """Whether each execution has ended for a reason that the scenario has."""
        for execution_id in self._known:
            execution = self._rebuilt(execution_id, self._snapshot(execution_id))
            self.counts[f"executions {execution.head.status}"] += 1
            self._check_reason(execution_id, execution)
            head = execution.head
            body = None if head.output is None else self._body(head.output)
            given = {at: one for at, (_, one) in self._known[execution_id].outputs.items()}
            for problem in (
                *self._stops.check_end(execution_id, head, self.suspicion_s()),
                *check_output(execution, body, given, self._limits.inline_output_bytes_max),
            ):
                self._report(execution_id, problem)

    def _check_reason(self, execution_id: str, execution: Execution) -> None:
        """An execution that failed needs a reason that the scenario has."""
        error = execution.head.error
        if error is None or error["code"] == "timeout":
            return
        if error["code"] == QUARANTINED:
            self.counts["executions quarantined"] += 1
            if error["details"]["crashes"] < self._crashes_max:
                self._report(execution_id, f"was given up too early: {error}")
            return
        task = execution.workflow.by_name[error["task"]]
        row = execution.rows[task.index]
        plan = task.input["plan"]
        failure = row.failure
        no_more = row.failures > execution.retry_policy(task.index).max_retries
        allowed = {
            "WORKER_LOST": row.losses > self._limits.lost_attempts_max,
            "PLANNED": plan["fails"] > 0 and (plan["fatal"] or no_more),
            "BLOB_STORE": no_more,
            "TIMEOUT": task.timeout_ms is not None and no_more,
        }
        if failure is None or not allowed.get(failure.code, False):
            self._report(execution_id, f"'{task.name}' failed without reason: {failure}")

    # -------------------------------------------------------------------------------------------

    def _report(self, execution_id: str, what: str) -> None:
        self.broken.append(f"{execution_id}: {what}")

    def _snapshot(self, execution_id: str) -> Snapshot:
        snapshot: Snapshot = at_once(self._server.memory.read_execution(execution_id))
        return snapshot

    def _rebuilt(self, execution_id: str, snapshot: Snapshot) -> Execution:
        return Execution(
            workflow=self._known[execution_id].workflow
            if execution_id in self._known
            else self._parsed(snapshot.definition),
            head=decode_head(snapshot.fields["head"]),
            rows={int(name): decode_row(body) for name, body in snapshot.rows.items()},
            seq=snapshot.seq,
            limits=self._limits,
        )

    def _parsed(self, digest: str) -> Workflow:
        body = at_once(self._server.memory.get_definition(digest))
        return build_workflow(jsontext.decode(body))

    def _created(self, new: NewExecution) -> str | None:
        execution_id = new.execution_id
        if execution_id in self._known:
            return None
        snapshot = self._snapshot(execution_id)
        execution = self._rebuilt(execution_id, snapshot)
        self._known[execution_id] = _Known(
            workflow=execution.workflow,
            expected=expected_values(execution.workflow),
            version=snapshot.version,
            seq=snapshot.seq,
            epoch=snapshot.epoch,
            picture=picture(execution),
            lines=LineJudge(execution.workflow),
            owners={1: snapshot.owner} if snapshot.owner else {},
        )
        self._clocks.created(execution_id)
        self._check_outputs(execution_id, execution)
        self._check_history(execution_id, execution, new.events)
        return f"created {execution_id} for {snapshot.owner} at {snapshot.seq}"

    def _claimed(self, process: Process, loaded: Loaded) -> str:
        execution_id, epoch = loaded.execution_id, loaded.epoch
        known = self._known[execution_id]
        known.crashes, known.crashes_lately = loaded.crashes, loaded.crashes_lately
        if epoch <= known.epoch or epoch in known.owners:
            self._report(execution_id, f"epoch {epoch} is claimed again")
        known.epoch = epoch
        known.owners[epoch] = process.name
        self._stops.claimed(execution_id)
        self.counts["claims"] += 1
        return f"claimed {execution_id} by {process.name} as {epoch}"

    def _took_checkpoint(self, asked: OwnCheckpoint, answer: Any) -> str:
        snapshot = self._snapshot(asked.execution_id)
        head = decode_head(snapshot.fields["head"])
        for problem in self._checkpoints.asked(asked, head, snapshot, answer):
            self._report(asked.execution_id, problem)
        self.counts["automatic checkpoints"] += answer is None
        return f"take_checkpoint {asked.execution_id} {asked.number} {type(answer).__name__}"

    def _committed(self, process: Process, commit: Commit, answer: Any) -> str:
        execution_id = commit.execution_id
        known = self._known[execution_id]
        snapshot = self._snapshot(execution_id)
        told = f"commit {execution_id} {process.name} {commit.epoch}/{commit.version}"
        if isinstance(answer, StoreError):
            self.counts["commits refused"] += 1
            if snapshot.version != known.version or snapshot.seq != known.seq:
                self._report(execution_id, f"{told} was refused, but has written")
            return f"{told} {type(answer).__name__}"
        if snapshot.version == known.version:
            self.counts["commits repeated"] += 1
            if commit.version != known.version:
                self._report(execution_id, f"{told} was taken for one that was there")
            return f"{told} again"
        self.counts["commits"] += 1
        self._check_fence(known, commit, snapshot, told)
        execution = self._rebuilt(execution_id, snapshot)
        for rule in (
            *violations_since(known.picture, execution),
            *self._stops.committed(commit, execution),
        ):
            self._report(execution_id, f"{told}: {rule}")
        if known.picture.node_id is None and "node" in execution.head.labels and known.written:
            self.counts["nodes waited for"] += 1
        known.picture = picture(execution)
        known.version, known.seq = snapshot.version, snapshot.seq
        known.written.add(commit.epoch)
        self._check_outputs(execution_id, execution)
        self._check_history(execution_id, execution, commit.events)
        self._check_invariants(execution_id, execution, told)
        kinds = ",".join(
            parse_event(commit.first_seq + at, body).type for at, body in enumerate(commit.events)
        )
        return f"{told} {execution.head.status} {kinds}"

    def _check_fence(self, known: _Known, commit: Commit, snapshot: Snapshot, told: str) -> None:
        execution_id = commit.execution_id
        if commit.epoch != known.epoch:
            self._report(execution_id, f"{told} was accepted, but the epoch is {known.epoch}")
        owner = known.owners.setdefault(commit.epoch, commit.owner)
        if owner != commit.owner:
            self._report(execution_id, f"{told} was accepted, but {owner} has that epoch")
        if commit.version != known.version + 1 or snapshot.version != commit.version:
            self._report(execution_id, f"{told} was accepted behind {known.version}")
        if snapshot.seq != known.seq + len(commit.events):
            self._report(execution_id, f"{told} has taken seq from {known.seq} to {snapshot.seq}")
        if commit.events and commit.first_seq != known.seq + 1:
            self._report(execution_id, f"{told} begins its events with {commit.first_seq}")
        if known.picture.status.is_final:
            self._report(execution_id, f"{told} was accepted after the end")

    def _check_invariants(self, execution_id: str, execution: Execution, told: str) -> None:
        """As a successor would find it, if he came now and found all that runs."""
        status = execution.head.status
        if self._failed_by_head(execution):
            return
        if not status.is_final and status is not ExecutionStatus.PENDING:
            running = {
                (index, row.attempt)
                for index, row in enumerate(execution.rows)
                if row.status is TaskStatus.RUNNING
            }
            execution.resume(execution.head.updated_ms, running)
        for rule in violations(execution):
            self._report(execution_id, f"{told}: {rule}")

    def _failed_by_head(self, execution: Execution) -> bool:
        """Given up in such a way that its tasks stand where they stood."""
        is_left = execution.is_final and execution.open_count > 0
        return is_left and self._known[execution.head.execution_id].crashes > self._crashes_max

    def _check_history(
        self, execution_id: str, execution: Execution, bodies: Sequence[bytes]
    ) -> None:
        """What the engine's own auditor says of the log, and of the state that goes with it."""
        known = self._known[execution_id]
        rows = dict(enumerate(execution.rows))
        if known.history is None:
            inherited = inherited_tasks(execution.head, rows)
            known.history = HistoryAuditor(known.workflow, execution.head, inherited=inherited)
        for seq, body in enumerate(bodies, known.seq - len(bodies) + 1):
            known.history.feed(seq, body)
            raw = jsontext.decode(body)
            self._stops.told(execution_id, raw)
            for problem in (
                *self._clocks.told(execution, body, known.epoch),
                *self._losses.told(execution_id, raw),
            ):
                self._report(execution_id, problem)
            event = read_event(body)
            if isinstance(event, CheckpointCreated):
                told = self._checkpoints.told(event.checkpoint_id, event.name, execution_id)
                self.broken.extend(f"{execution_id}: {problem}" for problem in told)
            for problem in known.lines.take(event):
                self._report(execution_id, problem)
            self.counts["log lines"] += len(event.lines) if isinstance(event, TaskLog) else 0
        found = known.history.findings.violations
        disagreeing = disagreements(
            *(known.history, execution.head, rows, known.seq),
            lost_attempts_max=execution.limits.lost_attempts_max,
        )
        for violation in [*found[known.found :], *disagreeing]:
            self._report(execution_id, f"its history: {violation}")
        known.found = len(found)

    def _check_outputs(self, execution_id: str, execution: Execution) -> None:
        known = self._known[execution_id]
        for index, row in enumerate(execution.rows):
            reference = row.output
            if reference is None:
                continue
            body = self._body(reference)
            recorded = known.outputs.setdefault(index, (reference, body or b""))
            if recorded != (reference, body):
                self._report(execution_id, f"the outcome of task {index} has changed")
            elif body is None:
                self._report(execution_id, f"the output of task {index} is not stored")
            else:
                self._check_value(execution_id, index, reference, jsontext.decode(body))

    def _check_value(
        self, execution_id: str, index: int, reference: OutputReference, output: Any
    ) -> None:
        expected = self._known[execution_id].expected[index]
        if output["value"] != expected:
            self._report(execution_id, f"task {index} gave {output['value']}, not {expected}")
        if not reference.key.endswith(f":{output['attempt']}"):
            self._report(
                execution_id, f"{reference.key} holds the outcome of attempt {output['attempt']}"
            )

    def _body(self, reference: OutputReference) -> bytes | None:
        if reference.url is not None:
            found: bytes | None = self._blobs.kept.get(reference.url)
            return found
        key = (reference.execution_id, reference.key)
        body: bytes | None = at_once(self._server.memory.read_outputs([key]))[0]
        return body

    def _node_of(self, order: AttemptOrder) -> str:
        """The node of the execution's files, by what is stored; "" if the task uses none."""
        if not order.action.endswith("_with_files"):
            return ""
        head = decode_head(self._snapshot(order.execution_id).fields["head"])
        return str(head.labels.get("node", "no node"))

    def _kept_outcomes(self, execution_id: str) -> set[tuple[int, int]]:
        """Attempts that have succeeded by what task actors have left in the inbox."""
        entries = at_once(self._server.memory.read_inbox(execution_id))
        reports = [report for of in outcomes_in(entries).values() for report in of]
        return {
            (report.task, report.attempt)
            for report in reports
            if isinstance(report, AttemptSucceeded)
        }

    def _must_be_due(
        self, order: AttemptOrder, what: str, actor: SimulatedTaskActor | None = None
    ) -> None:
        """All that the task depends on is in the store, and so is its attempt."""
        execution_id = order.execution_id
        workflow = self._known[execution_id].workflow
        parents = workflow.graph.parents[order.task]
        names = [str(index) for index in (*parents, order.task)]
        bodies = at_once(self._server.memory.read_rows(execution_id, names))
        kept = set() if actor is None else self._kept_outcomes(execution_id)
        for parent in parents:
            body = bodies.get(str(parent))
            row = TaskRow() if body is None else decode_row(body)
            by_itself = (actor, execution_id, order.epoch, parent) in self._kept
            was_kept = by_itself or (parent, row.attempt) in kept
            if row.status is not TaskStatus.COMPLETED and not was_kept:
                self._report(
                    execution_id, f"{order.id} {what} before task {parent} is durably completed"
                )
        own = bodies.get(str(order.task))
        if order.attempt > 1 and (own is None or decode_row(own).attempt < order.attempt):
            self._report(execution_id, f"{order.id} {what}, but is not in the store")
