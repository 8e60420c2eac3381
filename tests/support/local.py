"""A whole installation in one process: the real service, hosts, dispatcher and task hosts.

Only Ray is left out: task actors are threads here, the broadcaster is called directly. The store is
whatever the test brings.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harmonia_actors.components.registry import Registry
from harmonia_actors.core.execution import CoreLimits
from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.attempt_runner import AttemptRunner
from harmonia_actors.runtime.broadcast import Batch, Broadcast
from harmonia_actors.runtime.clock import SystemClock
from harmonia_actors.runtime.dispatch import Dispatcher, DispatchLimits
from harmonia_actors.runtime.event_hub import EventHub
from harmonia_actors.runtime.files import FileInfo, WorkspaceFiles
from harmonia_actors.runtime.host import Census, ExecutionHost, HostLimits
from harmonia_actors.runtime.ordering import OrderingLimits
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder, QueueKey, Report
from harmonia_actors.runtime.service.gateway import InstallationGateway
from harmonia_actors.runtime.service.parts import ServiceParts
from harmonia_actors.runtime.shared_task_host import SharedTaskHost
from harmonia_actors.runtime.task_host import TaskHost, TaskHostLimits
from harmonia_actors.settings import Settings
from persistence.blobs import FileBlobs
from persistence.store import Store

__all__ = ["LocalInstallation"]


class LocalActor:
    """A task actor that is a thread."""

    def __init__(self, name: str, owner: LocalInstallation, *, shared: bool) -> None:
        self.name = name
        self.node_id = "local"
        self._owner = owner
        limits = TaskHostLimits()
        self._shared = SharedTaskHost(owner.runner, limits, owner.send) if shared else None
        self._host = None if shared else TaskHost(owner.runner, limits, owner.send)
        self._turn = asyncio.Lock()

    async def run(self, orders: Sequence[AttemptOrder]) -> tuple[Sequence[Report], float]:
        if self._shared is not None:
            return await self._shared.run("local", orders)
        assert self._host is not None
        async with self._turn:
            return await asyncio.to_thread(self._host.run, "local", orders)

    async def settled(self, attempts: Sequence[AttemptId]) -> Sequence[Report]:
        if self._shared is not None:
            return await self._shared.settled(attempts)
        assert self._host is not None
        async with self._turn:
            return self._host.settled(attempts)

    async def stop(self, attempt: AttemptId, *, only_waiting: bool) -> bool:
        host = self._shared or self._host
        assert host is not None
        return host.stop(attempt, only_waiting=only_waiting)

    async def take_back(self) -> Sequence[AttemptId]:
        host = self._shared or self._host
        assert host is not None
        return host.take_back()

    async def kill(self) -> None:
        raise AssertionError("a thread cannot be killed: test this with real processes")


@dataclass(frozen=True)
class LocalLease:
    actor: LocalActor


@dataclass
class LocalLeases:
    """A fixed number of threads, and one shared loop."""

    installation: LocalInstallation
    free: asyncio.Queue[LocalLease]
    shared: LocalLease

    async def acquire(self, key: QueueKey, want: int) -> Sequence[LocalLease]:
        if key.shared:
            return [self.shared]
        found = [await self.free.get()]
        while len(found) < want and not self.free.empty():
            found.append(self.free.get_nowait())
        return found

    def release(self, leases: Sequence[LocalLease]) -> None:
        for lease in leases:
            if lease is not self.shared:
                self.free.put_nowait(lease)

    def lost(self, lease: LocalLease) -> None:
        raise AssertionError("threads do not die")


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
    """Speaks to the one host."""

    installation: LocalInstallation

    async def start(
        self, owner: str, execution_id: str, definition: str, fields: Mapping[str, bytes]
    ) -> None:
        host = self.installation.hosts[owner]
        if fields:
            await host.start(execution_id, definition, fields)
        else:
            await host.claim(execution_id)

    async def wanted(self) -> None:
        for host in self.installation.hosts.values():
            await host.pick_up()

    async def nudge(self, owner: str, execution_id: str) -> None:
        await self.installation.hosts[owner].nudge(execution_id)

    async def wait_ended(self, owner: str, execution_id: str) -> None:
        await self.installation.hosts[owner].wait_ended(execution_id)

    async def capacity(self) -> Capacity:
        return self.installation.capacity

    async def counts(self) -> dict[str, float]:
        return {"execution_actors_serving": len(self.installation.hosts)}


@dataclass
class _Files:
    files: WorkspaceFiles

    async def list_files(self, node_id: str, execution_id: str) -> tuple[Sequence[FileInfo], bool]:
        return self.files.list_files(execution_id)

    async def describe(self, node_id: str, execution_id: str, path: str) -> FileInfo:
        return self.files.describe(execution_id, path)

    async def read(
        self, node_id: str, execution_id: str, path: str, offset: int, size: int
    ) -> bytes:
        return self.files.read(execution_id, path, offset, size)


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
    hosts: dict[str, ExecutionHost] = field(default_factory=dict)
    capacity: Capacity = field(
        default_factory=lambda: Capacity(
            nodes=({"CPU": 4.0, "memory": 8e9},), node_ids=frozenset({"local"})
        )
    )

    async def __aenter__(self) -> LocalInstallation:
        self.loop = asyncio.get_running_loop()
        self.loop_thread = threading.get_ident()
        registry = Registry.load(self.modules)
        blobs = FileBlobs(self.directory / "blobs")
        files = WorkspaceFiles(self.directory / "workspaces", (self.directory / "allowed",))
        clock = SystemClock()
        ordering = OrderingLimits(
            resolved_input_bytes_max=self.settings.resolved_input_bytes_max,
            inline_output_bytes_max=self.settings.inline_output_bytes_max,
            output_bytes_max=self.settings.output_bytes_max,
        )
        self.runner = AttemptRunner(registry, blobs, clock, ordering, files.workspace)
        self.broadcast = Broadcast()
        free: asyncio.Queue[LocalLease] = asyncio.Queue()
        for number in range(self.workers):
            free.put_nowait(LocalLease(LocalActor(f"task-{number}", self, shared=False)))
        shared = LocalLease(LocalActor("task-shared", self, shared=True))
        leases = LocalLeases(self, free, shared)
        self._background = []
        for number in range(self.owners):
            name = f"owner-{number}"
            dispatcher = Dispatcher(
                leases=leases,
                tell=lambda reports, name=name: self.hosts[name].tell(reports),
                clock=clock,
                limits=DispatchLimits(),
            )
            host = ExecutionHost(
                owner=name,
                store=self.store,
                blobs=blobs,
                registry=registry,
                attempts=dispatcher,
                sink=_Sink(self.broadcast),
                clock=clock,
                limits=HostLimits(owners_max=self.owners, lease_ms=3_000),
                core_limits=CoreLimits(),
                ordering_limits=ordering,
                take_census=self._census,
            )
            host.dispatcher = dispatcher  # type: ignore[attr-defined]
            self.hosts[name] = host
            await self.store.renew_owner(name, lease_ms=3_000)
            self._background.append(self.loop.create_task(host.keep_lease()))
        parts = ServiceParts(
            self.store, blobs, registry, clock, _Launcher(self), self.settings, "test"
        )
        self.hub = EventHub(self.store, _Feed(self.broadcast))
        self.gateway = InstallationGateway(parts, self.hub, _Files(files))
        return self

    async def __aexit__(self, *_: Any) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for host in self.hosts.values():
            await host.close()
        await self.hub.close()

    def send(self, owner: str, reports: Sequence[Report]) -> None:
        """Reports from task hosts, which may be in other threads."""
        if threading.get_ident() == self.loop_thread:
            self._deliver(reports)
        else:
            self.loop.call_soon_threadsafe(self._deliver, reports)

    def _deliver(self, reports: Sequence[Report]) -> None:
        for host in self.hosts.values():
            host.dispatcher.reported(reports)  # type: ignore[attr-defined]

    async def _census(self, execution_id: str, epoch: int) -> Census:
        return Census()
