"""A whole installation in one process: the real service, hosts, dispatcher and task hosts.

Only Ray is left out: task actors are threads here, the broadcaster is called directly. The store is
whatever the test brings.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harmonia_actors.actors.schema_parts import make_schema_checks
from harmonia_actors.components.contract import Component
from harmonia_actors.components.registry import Registry
from harmonia_actors.core.execution import CoreLimits
from harmonia_actors.core.resources import Capacity
from harmonia_actors.core.stimuli import Stimulus
from harmonia_actors.runtime.attempt_runner import AttemptRunner
from harmonia_actors.runtime.broadcast import Batch, Broadcast
from harmonia_actors.runtime.census import Census
from harmonia_actors.runtime.clock import SystemClock
from harmonia_actors.runtime.dispatch import Dispatcher, DispatchLimits
from harmonia_actors.runtime.ending import Ending
from harmonia_actors.runtime.event_hub import EventHub
from harmonia_actors.runtime.files import FileInfo, WorkspaceFiles
from harmonia_actors.runtime.host import ExecutionHost
from harmonia_actors.runtime.host_limits import HostLimits
from harmonia_actors.runtime.nodes import AnyNode
from harmonia_actors.runtime.ordering import OrderingLimits
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder, QueueKey, Report
from harmonia_actors.runtime.ports import Nodes
from harmonia_actors.runtime.service.gateway import FilePlace, InstallationGateway
from harmonia_actors.runtime.service.parts import ServiceParts
from harmonia_actors.runtime.shared_task_host import SharedTaskHost
from harmonia_actors.runtime.start_lines import LineCut, News, Start, StartLine, StartLines
from harmonia_actors.runtime.task_host import TaskHost, TaskHostLimits
from harmonia_actors.runtime.tenure import Tenure
from harmonia_actors.settings import Settings
from persistence.blobs import FileBlobs
from persistence.errors import StoreError
from persistence.store import InboxEntry, Store

__all__ = ["LocalInstallation"]

_LEASE_MS = 3_000
_KEEP_S = 10.0


class LocalActor:
    """A task actor that is a thread, or for async actions the loop itself."""

    def __init__(self, name: str, installation: LocalInstallation, *, shared: bool) -> None:
        self.name = name
        limits = installation.task_limits
        runner, send = installation.runner, installation.send
        self.host: TaskHost | SharedTaskHost = (
            SharedTaskHost(runner, limits, send)
            if shared
            else TaskHost(runner, limits, send, keep=installation.keep)
        )
        self.turn = asyncio.Lock()
        self.calls: set[asyncio.Task[Any]] = set()

    def close(self) -> None:
        if isinstance(self.host, TaskHost):
            self.host.close()


@dataclass(frozen=True)
class LocalPort:
    """A task actor as one owner sees it."""

    actor: LocalActor
    owner: str
    node_id: str = "local"

    @property
    def name(self) -> str:
        return self.actor.name

    async def run(self, orders: Sequence[AttemptOrder]) -> tuple[Sequence[Report], float]:
        # As in Ray, a call goes on when whoever made it has died.
        call = asyncio.get_running_loop().create_task(self._run(orders))
        self.actor.calls.add(call)
        call.add_done_callback(self.actor.calls.discard)
        return await asyncio.shield(call)

    async def _run(self, orders: Sequence[AttemptOrder]) -> tuple[Sequence[Report], float]:
        host = self.actor.host
        if isinstance(host, SharedTaskHost):
            return await host.run(self.owner, orders)
        async with self.actor.turn:
            return await asyncio.to_thread(host.run, self.owner, orders)

    async def settled(self, attempts: Sequence[AttemptId]) -> Sequence[Report]:
        host = self.actor.host
        if isinstance(host, SharedTaskHost):
            return await host.settled(attempts)
        async with self.actor.turn:
            return host.settled(attempts)

    async def stop(self, attempt: AttemptId, *, only_waiting: bool) -> bool:
        return self.actor.host.stop(attempt, only_waiting=only_waiting)

    async def take_back(self) -> Sequence[AttemptId]:
        return self.actor.host.take_back()

    async def kill(self) -> None:
        raise AssertionError("a thread cannot be killed: test this with real processes")


@dataclass(frozen=True)
class LocalLease:
    actor: LocalPort


@dataclass
class LocalLeases:
    """A fixed number of threads that all owners share, and one loop for async actions."""

    owner: str
    free: asyncio.Queue[LocalActor]
    shared: LocalActor
    held: set[LocalActor] = field(default_factory=set)

    async def acquire(self, key: QueueKey, want: int) -> Sequence[LocalLease]:
        if key.shared:
            return [LocalLease(LocalPort(self.shared, self.owner))]
        found = [await self.free.get()]
        while len(found) < want and not self.free.empty():
            found.append(self.free.get_nowait())
        self.held.update(found)
        return [LocalLease(LocalPort(actor, self.owner)) for actor in found]

    def release(self, leases: Sequence[LocalLease]) -> None:
        for lease in leases:
            if lease.actor.actor in self.held:
                self.held.discard(lease.actor.actor)
                self.free.put_nowait(lease.actor.actor)

    def lost(self, lease: LocalLease) -> None:
        raise AssertionError("threads do not die")

    def abandon(self) -> None:
        """The owner has died: what it held is free, and what runs there goes on."""
        for actor in self.held:
            self.free.put_nowait(actor)
        self.held.clear()


@dataclass
class LocalOwner:
    """One execution actor, without its process."""

    host: ExecutionHost
    dispatcher: Dispatcher
    leases: LocalLeases
    loops: list[asyncio.Task[None]]
    lines: StartLines
    died: asyncio.Event = field(default_factory=asyncio.Event)

    def blind(self) -> None:
        """It does not look by itself any more: for tests of what tells it."""
        for loop in self.loops:
            loop.cancel()


class _Feed:
    """The broadcaster without a process of its own."""

    _names = itertools.count()

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        self._reader = f"reader-{next(self._names)}"

    async def follow(self, execution_ids: Sequence[str]) -> None:
        self._broadcast.follow(self._reader, execution_ids)

    async def unfollow(self, execution_ids: Sequence[str]) -> None:
        self._broadcast.unfollow(self._reader, execution_ids)

    async def pull(self, wait_s: float) -> Sequence[Batch]:
        return await self._broadcast.pull(self._reader, wait_s)


@dataclass
class _Launcher:
    """Speaks to the owners, on the lines that there are in Ray, too."""

    installation: LocalInstallation
    lines: dict[str, StartLine] = field(default_factory=dict)

    def line(self, owner: str) -> StartLine:
        if owner not in self.lines:
            self.lines[owner] = StartLine(lambda news: self._exchange(owner, news))
        return self.lines[owner]

    async def _exchange(self, owner: str, news: News) -> Sequence[str]:
        known = self.installation.running.get(owner)
        if known is None:
            raise LineCut(owner)
        loop = asyncio.get_running_loop()
        call = loop.create_task(known.lines.exchange(str(id(self)), news))
        death = loop.create_task(known.died.wait())
        await asyncio.wait([call, death], return_when=asyncio.FIRST_COMPLETED)
        if not call.done():
            call.cancel()
            raise LineCut(owner)
        death.cancel()
        return call.result()

    async def start(
        self, owner: str, execution_id: str, definition: str, fields: Mapping[str, bytes]
    ) -> None:
        self.line(owner).start(Start(execution_id, definition, dict(fields)))

    async def wanted(self) -> None:
        for host in list(self.installation.hosts.values()):
            await host.pick_up()

    async def nudge(self, owner: str, execution_id: str) -> None:
        self.line(owner).nudge(execution_id)

    async def wait_ended(self, owner: str, execution_id: str) -> Ending | None:
        return await self.line(owner).wait_ended(execution_id)

    async def capacity(self) -> Capacity:
        return self.installation.capacity

    async def counts(self) -> dict[str, float]:
        return {"execution_actors_serving": len(self.installation.hosts)}


@dataclass
class _Files:
    files: WorkspaceFiles

    async def list_files(self, place: FilePlace) -> tuple[Sequence[FileInfo], bool]:
        return self.files.list_files(place.execution_id, place.files_from)

    async def describe(self, place: FilePlace, path: str) -> FileInfo:
        return self.files.describe(place.execution_id, place.files_from, path)

    async def read(self, place: FilePlace, path: str, offset: int, size: int) -> bytes:
        return self.files.read(place.execution_id, place.files_from, path, offset, size)


class _Sink:
    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast

    def publish(self, execution_id: str, first_seq: int, bodies: Sequence[bytes]) -> None:
        self._broadcast.publish([(execution_id, first_seq, bodies)])


@dataclass
class LocalInstallation:
    """Use as an async context manager; `gateway` is the door."""

    store: Store
    directory: Path
    modules: Sequence[str] = ()
    workers: int = 4
    owners: int = 2
    settings: Settings = field(default_factory=Settings)
    task_limits: TaskHostLimits = field(default_factory=TaskHostLimits)
    host_limits: HostLimits = field(
        default_factory=lambda: HostLimits(owners_max=2, lease_ms=_LEASE_MS)
    )
    #: Components besides those of `modules` and the entry points.
    components: Sequence[Component] = ()
    running: dict[str, LocalOwner] = field(default_factory=dict)
    calls: set[asyncio.Task[None]] = field(default_factory=set)
    capacity: Capacity = field(
        default_factory=lambda: Capacity(nodes={"local": {"CPU": 4.0, "memory": 8e9}})
    )

    nodes: Nodes = field(default_factory=AnyNode)

    @property
    def hosts(self) -> dict[str, ExecutionHost]:
        """The hosts that live, by owner."""
        return {name: owner.host for name, owner in self.running.items()}

    async def __aenter__(self) -> LocalInstallation:
        self.settings = self.settings.model_copy(
            update={"execution_actors_max": max(1, self.owners)}
        )
        self.loop = asyncio.get_running_loop()
        self.loop_thread = threading.get_ident()
        registry = Registry.load(self.modules)
        self.registry = Registry([*registry.components(), *self.components])
        self.blobs = FileBlobs(self.directory / "blobs")
        files = WorkspaceFiles(self.directory / "workspaces", (Path(tempfile.gettempdir()),))
        self.clock = SystemClock()
        self.ordering_limits = OrderingLimits(
            resolved_input_bytes_max=self.settings.resolved_input_bytes_max,
            inline_output_bytes_max=self.settings.inline_output_bytes_max,
            output_bytes_max=self.settings.output_bytes_max,
        )
        self.runner = AttemptRunner(
            self.registry,
            self.blobs,
            self.clock,
            self.ordering_limits,
            files.workspace,
            make_schema_checks(self.settings),
        )
        self.broadcast = Broadcast()
        self.actors = [LocalActor(f"task-{n}", self, shared=False) for n in range(self.workers)]
        self.shared = LocalActor("task-shared", self, shared=True)
        self.free: asyncio.Queue[LocalActor] = asyncio.Queue()
        for actor in self.actors:
            self.free.put_nowait(actor)
        for number in range(self.owners):
            await self.add_owner(f"owner-{number}")
        self.hub = EventHub(
            self.store,
            [_Feed(self.broadcast)],
            recent_bytes_max=self.settings.stream_recent_bytes_max,
        )
        self.gateway = InstallationGateway(self.parts(), self.hub, _Files(files))
        self.files = files
        return self

    async def __aexit__(self, *_: Any) -> None:
        for name in list(self.running):
            await self.kill_owner(name)
        await self.hub.close()
        for actor in self.actors:
            actor.close()

    def parts(self, **changed: Any) -> ServiceParts:
        """The parts of a service; another one over the same store has the same ones."""
        parts = ServiceParts(
            self.store,
            self.blobs,
            self.registry,
            self.clock,
            _Launcher(self),
            self.settings,
            "test",
        )
        return replace(parts, **changed)

    def another_gateway(self, **changed: Any) -> InstallationGateway:
        """A second replica of the service."""
        return InstallationGateway(self.parts(**changed), self.hub, _Files(self.files))

    async def add_owner(self, name: str) -> ExecutionHost:
        """Start an execution actor, registered with the store."""
        leases = LocalLeases(name, self.free, self.shared)

        def tell(reports: Sequence[Report]) -> None:
            known = self.running.get(name)
            if known is not None:
                known.host.tell(reports)

        tenure = Tenure(self.loop.time)
        dispatcher = Dispatcher(
            leases=leases,
            tell=tell,
            clock=self.clock,
            limits=DispatchLimits(linger_ms=5),
            may_give=lambda: tenure.is_certain,
        )

        async def take_census(execution_id: str, epoch: int) -> Census:
            return self._census(name, dispatcher, execution_id, epoch)

        host = ExecutionHost(
            owner=name,
            store=self.store,
            blobs=self.blobs,
            registry=self.registry,
            attempts=dispatcher,
            sink=_Sink(self.broadcast),
            clock=self.clock,
            limits=replace(
                self.host_limits,
                owners_max=self.settings.execution_actors_max,
                executions_max=self.settings.executions_per_actor_max,
            ),
            core_limits=CoreLimits(
                checkpoints_kept=self.settings.automatic_checkpoints_kept,
                stretch_tasks_max=self.settings.stretch_tasks_max,
            ),
            ordering_limits=self.ordering_limits,
            take_census=take_census,
            nodes=self.nodes,
            call_others=lambda: self._pick_up(name),
            tenure=tenure,
        )
        await host.register()
        loops = [
            self.loop.create_task(host.keep_lease()),
            self.loop.create_task(host.look_around()),
        ]

        async def begin(start: Start) -> None:
            if start.fields:
                await host.start(start.execution_id, start.definition, start.fields)
            else:
                await host.claim(start.execution_id)

        lines = StartLines(begin, host.wait_ended, host.nudge)
        self.running[name] = LocalOwner(host, dispatcher, leases, loops, lines)
        return host

    async def _pick_up(self, caller: str) -> None:
        """What a supervisor does, which knows all owners."""
        for name, owner in self.running.items():
            if name != caller:
                self.calls.add(call := self.loop.create_task(owner.host.pick_up()))
                call.add_done_callback(self.calls.discard)

    async def kill_owner(self, name: str) -> None:
        """Its process is gone, with all that it knew; what it gave to task actors goes on."""
        owner = self.running.pop(name)
        owner.blind()
        owner.died.set()
        await owner.lines.close()
        await owner.dispatcher.close()
        await owner.host.close()
        await asyncio.gather(*owner.loops, return_exceptions=True)
        owner.leases.abandon()

    def keep(self, order: AttemptOrder, entry: InboxEntry) -> bool:
        """A task host, in its thread, leaves an outcome."""
        leaving = self.store.append_inbox(order.execution_id, entry, epoch=order.epoch)
        try:
            asyncio.run_coroutine_threadsafe(leaving, self.loop).result(_KEEP_S)
        except (StoreError, TimeoutError):
            return False
        return True

    def send(self, owner: str, reports: Sequence[Report]) -> None:
        """Reports from task hosts, which may be in other threads."""
        if threading.get_ident() == self.loop_thread:
            self._deliver(owner, reports)
        else:
            self.loop.call_soon_threadsafe(self._deliver, owner, reports)

    def _deliver(self, owner: str, reports: Sequence[Report]) -> None:
        known = self.running.get(owner)
        if known is not None:
            known.dispatcher.reported(reports)

    def _census(self, owner: str, dispatcher: Dispatcher, execution_id: str, epoch: int) -> Census:
        adopted: set[tuple[int, int]] = set()
        outcomes: list[Stimulus] = []
        for actor in [*self.actors, self.shared]:
            live, ended = actor.host.census(execution_id, epoch, owner)
            for report in ended:
                adopted.add((report.stimulus.task, report.stimulus.attempt))
                outcomes.append(report.stimulus)
            if live:
                adopted.update((task, attempt) for _, task, attempt in live)
                dispatcher.adopt(LocalLease(LocalPort(actor, owner)), live)
        return Census(frozenset(adopted), outcomes)
