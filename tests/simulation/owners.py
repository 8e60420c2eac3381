"""Execution actors: the real host, driver and dispatcher in a simulated process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from harmonia_actors.core.commands import StopReason
from harmonia_actors.core.execution import CoreLimits
from harmonia_actors.core.resources import Capacity
from harmonia_actors.core.stimuli import Stimulus
from harmonia_actors.runtime.census import Census, CensusTaker, CensusTimes
from harmonia_actors.runtime.clock import SteadyClock, StoreClock
from harmonia_actors.runtime.dispatch import Dispatcher, DispatchLimits
from harmonia_actors.runtime.host import ExecutionHost
from harmonia_actors.runtime.host_limits import HostLimits
from harmonia_actors.runtime.nodes import WorkspaceNodes
from harmonia_actors.runtime.ordering import BlobReader, OrderingLimits
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder, Found, QueueKey, Report
from harmonia_actors.runtime.pool_host import HolderLost
from harmonia_actors.runtime.ports import Clock, EventSink, TaskActorDied
from harmonia_actors.runtime.silence import Gone, Patience, Silent
from harmonia_actors.runtime.start_lines import News, Start, StartLines
from harmonia_actors.runtime.tenure import NotOwner, Tenure
from persistence.errors import StoreError
from persistence.store import Store
from tests.simulation.faults import Faults
from tests.simulation.network import Network, asking
from tests.simulation.pool import SimulatedPool
from tests.simulation.store import DistantStore, StoreServer
from tests.simulation.task_actors import (
    REGISTRY,
    SimulatedLease,
    SimulatedPort,
    SimulatedTaskActor,
)
from tests.simulation.virtual_loop import Process, pass_time

__all__ = ["OwnerLimits", "OwnerParts", "SimulatedOwner"]

_CENSUS_S = 4.0
#: Whoever tells of starts and nudges: each message counts for itself, so the name is of no account.
_REPLICA = "service"
_AGAIN_S = 0.2
_TELLS_MAX = 50


@dataclass(frozen=True)
class OwnerLimits:
    """Sizes of one run."""

    owners_max: int
    lease_ms: int
    crashes_max: int
    attempts_in_flight_max: int
    core: CoreLimits
    ordering: OrderingLimits
    dispatch: DispatchLimits


@dataclass
class OwnerParts:
    """What all owners share."""

    network: Network
    faults: Faults
    server: StoreServer
    #: The pool as it is now.
    pool: Callable[[], SimulatedPool]
    blobs: BlobReader
    sink_for: Callable[[Process], EventSink]
    #: Orders leave a driver; told before they are performed.
    ordered: Callable[[Process, Sequence[AttemptOrder]], None]
    limits: OwnerLimits
    #: Whether nodes have to be known, because executions have files on one of them.
    uses_files: bool


class SimulatedOwner:
    """One execution actor. Its methods are called in its process."""

    def __init__(self, process: Process, clock: Clock, parts: OwnerParts) -> None:
        self.process = process
        self.name = process.name
        self._parts = parts
        self.store = DistantStore(parts.server, process)
        limits = parts.limits
        leases = _Leases(self)
        loop_s = asyncio.get_running_loop().time
        store_clock = StoreClock(
            clock, self.store.time_ms, lambda at_ms: SteadyClock(at_ms, loop_s)
        )
        self._nodes = WorkspaceNodes(leases, self._read_capacity)
        tenure = Tenure(loop_s)
        self.dispatcher = Dispatcher(
            leases=leases,
            tell=self._tell,
            clock=clock.steady(),
            limits=limits.dispatch,
            may_give=lambda: tenure.is_certain,
        )
        self.host = ExecutionHost(
            owner=self.name,
            store=cast(Store, self.store),
            blobs=parts.blobs,
            registry=REGISTRY,
            attempts=_Hands(self),
            sink=parts.sink_for(process),
            clock=store_clock,
            limits=HostLimits(
                owners_max=limits.owners_max,
                lease_ms=limits.lease_ms,
                crashes_max=limits.crashes_max,
                attempts_in_flight_max=limits.attempts_in_flight_max,
            ),
            core_limits=limits.core,
            ordering_limits=limits.ordering,
            take_census=self._take_census,
            nodes=self._nodes,
            learn_time=store_clock.learn,
            tenure=tenure,
        )
        times = CensusTimes(Patience(), _CENSUS_S)
        self._lines = StartLines(self._begin, self.host.wait_ended, self._nudge)
        self._taker = CensusTaker(_CensusCluster(self), self.name, times)
        self.keeper: asyncio.Task[None] | None = None
        self.looker: asyncio.Task[None] | None = None
        self.watcher: asyncio.Task[None] | None = None
        process.inhabitant = self

    @property
    def parts(self) -> OwnerParts:
        return self._parts

    async def ready(self) -> None:
        """Register, and begin to serve."""
        if self._parts.uses_files:
            await self._nodes.known()
        loop = asyncio.get_running_loop()
        if self.keeper is None:
            self.keeper = loop.create_task(self._serve_as_owner())
        try:
            await self.host.register()
        except NotOwner:
            self.process.kill()
            return
        if self.looker is None:
            self.looker = loop.create_task(self.host.look_around())
            if self._parts.uses_files:
                self.watcher = loop.create_task(self._nodes.watch())

    async def _serve_as_owner(self) -> None:
        await self.host.keep_lease()
        self.process.kill()

    def started(self, execution_id: str, definition: str, fields: Mapping[str, bytes]) -> None:
        """An execution was created for this owner."""
        start = Start(execution_id, definition, fields)
        self._try(self._lines.exchange, _REPLICA, News(starts=[start]))

    def nudged(self, execution_id: str) -> None:
        """Something lies in an inbox; it may be told before the start, which is then waited for."""
        self._try(self._lines.exchange, _REPLICA, News(nudges=[execution_id]))

    async def _begin(self, start: Start) -> None:
        with _defects_told():
            if start.fields:
                await self.host.start(start.execution_id, start.definition, start.fields)
            else:
                await self.host.claim(start.execution_id)

    async def _nudge(self, execution_id: str) -> None:
        with _defects_told():
            await self.host.nudge(execution_id)

    def pick_up(self) -> None:
        """Executions wait for an owner."""
        self._try(self.host.pick_up)

    def _try(self, method: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        asyncio.get_running_loop().create_task(_unheard(method, arguments))

    def _tell(self, reports: Sequence[Report]) -> None:
        self.host.tell(reports)

    async def _read_capacity(self) -> Capacity | None:
        pool = self._parts.pool()
        call = self._parts.network.call
        try:
            found: Capacity = await call(self.process, pool.process, "capacity", pool.host.capacity)
        except TaskActorDied:
            return None
        return found

    async def _take_census(self, execution_id: str, epoch: int) -> Census:
        """As the Ray one: what runs is handed to the dispatcher."""
        adopted: set[tuple[int, int]] = set()
        outcomes: list[Stimulus] = []
        for asked, running, ended in await self._taker.take(execution_id, epoch):
            for report in ended:
                adopted.add((report.stimulus.task, report.stimulus.attempt))
                outcomes.append(report.stimulus)
            if running:
                adopted.update((task, attempt) for _, task, attempt in running)
                self.dispatcher.adopt(_lease_on(self, asked.process), running)
        return Census(frozenset(adopted), outcomes)


@dataclass(frozen=True)
class _Asked:
    """A task actor, as the census sees it."""

    owner: SimulatedOwner
    process: Process

    @property
    def name(self) -> str:
        return self.process.name

    async def census(self, asked: Sequence[tuple[str, int]], owner: str) -> Found:
        actor: SimulatedTaskActor = self.process.inhabitant
        call = self.owner.parts.network.call
        with asking():
            found: Found = await call(
                self.owner.process, self.process, "census", actor.census, asked, owner
            )
            return found


@dataclass(frozen=True)
class _CensusCluster:
    """The pool, which comes back whenever it dies."""

    owner: SimulatedOwner

    async def actors(self) -> Sequence[_Asked]:
        found = await self._call(lambda pool: pool.host.actors)
        return [_Asked(self.owner, process) for _, _, process in found]

    async def lost(self, name: str) -> None:
        self.owner.parts.network.given_up.add(name)
        await self._call(lambda pool: pool.host.lost, name)

    async def _call(self, method: Callable[[SimulatedPool], Any], *arguments: Any) -> Any:
        owner = self.owner
        pool = owner.parts.pool()
        try:
            with asking():
                return await owner.parts.network.call(
                    owner.process, pool.process, "census", method(pool), *arguments
                )
        except Gone as error:
            raise Silent(str(error)) from error


async def _unheard(method: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...]) -> None:
    """The caller, in another process, learns of a failure and does nothing about it."""
    try:
        await method(*arguments)
    except StoreError:
        return


@contextlib.contextmanager
def _defects_told() -> Iterator[None]:
    """Any other error than the store's is a defect, though the engine survives it."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        what = {"message": "an owner was told of something", "exception": error}
        asyncio.get_running_loop().call_exception_handler(what)
        raise


def _lease_on(owner: SimulatedOwner, process: Process, granted_to: str = "") -> SimulatedLease:
    port = SimulatedPort(process.inhabitant, owner.parts.network, owner.process)
    return SimulatedLease(port, granted_to)


class _Hands:
    """The port Attempts: the dispatcher, in a process that may die while it performs."""

    def __init__(self, owner: SimulatedOwner) -> None:
        self._owner = owner

    def start(self, orders: Sequence[AttemptOrder]) -> None:
        process, parts = self._owner.process, self._owner.parts
        parts.ordered(process, orders)
        if parts.faults.strikes("owner dies while it performs"):
            # Some calls have left by then, others have not.
            rounds = int(parts.faults.between(0, 4))
            _kill_after(process, rounds)
        self._owner.dispatcher.start(orders)

    def stop(self, attempt: AttemptId, reason: StopReason) -> None:
        self._owner.dispatcher.stop(attempt, reason)

    def forget(self, execution_id: str) -> None:
        self._owner.dispatcher.forget(execution_id)


def _kill_after(process: Process, rounds: int) -> None:
    if rounds <= 0:
        process.kill()
    else:
        loop = asyncio.get_running_loop()
        loop.call_soon(_kill_after, process, rounds - 1, context=process.context())


class _Leases:
    """The port LeaseSource: asks the pool."""

    def __init__(self, owner: SimulatedOwner) -> None:
        self._owner = owner
        self._requests = itertools.count(1)

    async def acquire(self, key: QueueKey, want: int) -> Sequence[SimulatedLease]:
        owner = self._owner
        request = str(next(self._requests))
        try:
            return await self._acquire(key, want, request)
        except asyncio.CancelledError:
            self._tell(lambda pool: pool.host.withdraw, owner.name, request)
            raise

    async def _acquire(self, key: QueueKey, want: int, request: str) -> Sequence[SimulatedLease]:
        owner = self._owner
        while True:
            pool = owner.parts.pool()
            ask = partial(pool.host.acquire, owner.name, key, want, request)
            try:
                granted, reason = await owner.parts.network.call(
                    owner.process, pool.process, "pool", ask
                )
            except (TaskActorDied, HolderLost):
                await pass_time(_AGAIN_S)
            else:
                assert not reason, f"{key} was refused: {reason}"
                return [_lease_on(owner, process, request) for _, _, process in granted]

    def release(self, leases: Sequence[SimulatedLease]) -> None:
        given = [(lease.actor.name, lease.granted_to) for lease in leases]
        self._tell(lambda pool: pool.host.release, self._owner.name, given)

    def lost(self, lease: SimulatedLease) -> None:
        self._owner.parts.network.given_up.add(lease.actor.name)
        self._tell(lambda pool: pool.host.lost, lease.actor.name)

    def _tell(self, method: Callable[[SimulatedPool], Any], *arguments: Any) -> None:
        asyncio.get_running_loop().create_task(self._tell_patiently(method, arguments))

    async def _tell_patiently(
        self, method: Callable[[SimulatedPool], Any], arguments: tuple[Any, ...]
    ) -> None:
        owner = self._owner
        for _ in range(_TELLS_MAX):
            pool = owner.parts.pool()
            try:
                await owner.parts.network.call(
                    owner.process, pool.process, "pool", method(pool), *arguments
                )
            except (TaskActorDied, Silent):
                await pass_time(_AGAIN_S)
            else:
                return
