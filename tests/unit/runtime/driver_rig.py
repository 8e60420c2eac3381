"""A driver over a store that a test can watch, hold up and take away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from harmonia_actors.components.contract import Component
from harmonia_actors.components.registry import Registry
from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.commands import StopReason
from harmonia_actors.core.execution import Execution
from harmonia_actors.core.records import decode_head, encode_head
from harmonia_actors.runtime.driver import ExecutionDriver, Surroundings
from harmonia_actors.runtime.ending import Written
from harmonia_actors.runtime.event_hub import parse_event
from harmonia_actors.runtime.in_flight import InFlight
from harmonia_actors.runtime.inputs import PlannedWorkflow
from harmonia_actors.runtime.node_wait import NodeNeed
from harmonia_actors.runtime.nodes import AnyNode
from harmonia_actors.runtime.ordering import Ordering, OrderingLimits
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder
from harmonia_actors.runtime.output_cache import OutputCache
from harmonia_actors.runtime.ports import Nodes
from harmonia_actors.runtime.stale import Stale
from persistence.errors import Missing, StoreUnavailable
from persistence.memory_store import MemoryStore
from persistence.store import Commit, NewExecution
from tests.support.executions import EXECUTION_ID, START_MS, new_head, output, workflow_of
from tests.support.scripted_actors import ManualClock

__all__ = ["Blobs", "Rig", "WatchedStore", "a_rig"]

component = Component("harmonia")


@component.action
def echo(value: Any = None) -> Any:
    return value


@component.action(uses_files=True)
def write(value: Any = None) -> Any:
    return value


@component.action
async def wait_for(value: Any = None) -> Any:
    return value


class WatchedStore(MemoryStore):
    """A real store of which a test sees every commit, and which it can hold up or take away."""

    def __init__(self, story: list[str]) -> None:
        super().__init__()
        self.story = story
        self.commits: list[Commit] = []
        self.open = asyncio.Event()
        self.open.set()
        self.reading = asyncio.Event()
        self.reading.set()
        self.away = False
        self.loses_replies = 0
        self.breaks_reads: Exception | None = None
        self.tries = 0

    async def commit(self, commit: Commit) -> None:
        self.tries += 1
        await self.open.wait()
        if self.away:
            raise StoreUnavailable("away")
        await super().commit(commit)
        if self.loses_replies:
            self.loses_replies -= 1
            raise StoreUnavailable("the reply was lost")
        self.commits.append(commit)
        self.story.append(f"commit {commit.version}")

    async def read_outputs(self, references: Sequence[tuple[str, str]]) -> list[bytes | None]:
        await self.reading.wait()
        if self.breaks_reads is not None:
            raise self.breaks_reads
        return await super().read_outputs(references)


class Blobs:
    """Blobs in memory; what is not there is missing, as in the real ones."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def put(self, name: str, body: bytes) -> str:
        self.kept[f"mem:{name}"] = body
        return f"mem:{name}"

    def get(self, url: str) -> bytes:
        try:
            return self.kept[url]
        except KeyError:
            raise Missing(f"there is no blob '{url}'") from None

    def discard(self, name: str) -> None:
        self.kept.pop(f"mem:{name}", None)


class Rig:
    """A driver over one execution, with ears everywhere."""

    def __init__(self, tasks: dict[str, Any], *, joined: bool = False, **fields: Any) -> None:
        self.story: list[str] = []
        self.store = WatchedStore(self.story)
        self.clock = ManualClock(START_MS)
        self.blobs = Blobs()
        self.room = InFlight(attempts_max=2_000, bytes_max=10_000_000)
        self.orders: dict[str, AttemptOrder] = {}
        self.stops: list[tuple[str, StopReason]] = []
        self.forgotten: list[str] = []
        self.stale: Counter[Stale] = Counter()
        self.workflow = workflow_of(tasks, **fields)
        self.joined = frozenset(range(len(self.workflow.tasks)) if joined else ())
        self.given = {"n": 7}
        self.nodes: Nodes = AnyNode()
        self.node_need: NodeNeed | None = None

    # The ports of a driver ---------------------------------------------------------------------

    def start(self, orders: Sequence[AttemptOrder]) -> None:
        for order in orders:
            self.orders[order.task_name] = order
            self.story.append(f"start {order.task_name} {order.attempt}")

    def stop(self, attempt: AttemptId, reason: StopReason) -> None:
        name = self.workflow.tasks[attempt[1]].name
        self.stops.append((name, reason))
        self.story.append(f"stop {name}")

    def forget(self, execution_id: str) -> None:
        self.forgotten.append(execution_id)

    def publish(self, execution_id: str, first_seq: int, bodies: Sequence[bytes]) -> None:
        kinds = [parse_event(first_seq + i, body).type for i, body in enumerate(bodies)]
        self.story.append(f"publish {first_seq} {','.join(kinds)}")

    # Driving -----------------------------------------------------------------------------------

    async def create(self) -> None:
        await self.store.renew_owner("me", lease_ms=10**9)
        await self.store.put_definition("d", b"{}")
        head = encode_head(new_head(self.workflow))
        fields = {"head": head, "input": jsontext.encode(self.given), "options": b"{}"}
        new = NewExecution(EXECUTION_ID, "d", fields)
        assert await self.store.create_execution(new, owners_max=1) == "me"
        self.execution = Execution(
            workflow=self.workflow, head=decode_head(head), joined=self.joined
        )
        self.driver = self.make_driver(self.execution)
        self.running = asyncio.ensure_future(self.driver.run())

    def make_driver(
        self, execution: Execution, *, owner: str = "me", epoch: int = 1, version: int = 1
    ) -> ExecutionDriver:
        ordering = Ordering(
            execution=execution,
            planned=PlannedWorkflow(self.workflow, Registry([component])),
            execution_input=jsontext.encode(self.given),
            cache=OutputCache(10_000_000),
            store=self.store,
            blobs=self.blobs,
            nodes=self.nodes,
            limits=OrderingLimits(inline_output_bytes_max=200),
        )
        return ExecutionDriver(
            execution=execution,
            ordering=ordering,
            owner=owner,
            epoch=epoch,
            version=version,
            surroundings=Surroundings(
                *(self.store, self, self, self.clock, self.room, self.nodes),
                note_stale=lambda what, count: self.stale.update({what: count}),
            ),
            node_need=self.node_need,
            written=Written(is_all=(epoch, version) == (1, 1)),
        )

    def begin(self) -> None:
        self.driver.deliver(st.StartRequested(self.clock.now_ms()))

    def done(self, name: str, value: Any = None) -> None:
        """The task has been run and gave this."""
        self.driver.deliver(self.success(name, output(value)))

    def success(self, name: str, result: st.Output) -> st.AttemptSucceeded:
        task = self.workflow.by_name[name].index
        attempt = self.orders[name].attempt
        return st.AttemptSucceeded(task, attempt, self.clock.now_ms(), result)

    def input_of(self, name: str) -> Any:
        return jsontext.decode(self.orders[name].input)

    async def close(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)


async def a_rig(rigs: list[Rig], tasks: dict[str, Any], **fields: Any) -> Rig:
    rig = Rig(tasks, **fields)
    rigs.append(rig)
    await rig.create()
    return rig


# The law -----------------------------------------------------------------------------------------
