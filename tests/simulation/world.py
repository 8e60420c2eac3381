"""One installation in virtual time, put together from real and simulated parts.

Everything that decides is the real thing: services, hosts, drivers, dispatchers, task hosts, the
slot pool, the sizing, hub and broadcaster, the core, the memory store. Simulated are processes, the
network, the clocks and whatever else the machine would bring.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, cast

from harmonia_actors.core.execution import CoreLimits
from harmonia_actors.runtime.attempt_runner import AttemptRunner
from harmonia_actors.runtime.clock import SteadyClock
from harmonia_actors.runtime.dispatch import DispatchLimits
from harmonia_actors.runtime.ordering import OrderingLimits
from harmonia_actors.runtime.orders import AttemptOrder, QueueKey, Report
from harmonia_actors.runtime.ports import Clock
from harmonia_actors.runtime.service.checkpoints import CheckpointService
from harmonia_actors.runtime.service.parts import ServiceParts
from harmonia_actors.runtime.shards import shard_of
from harmonia_actors.runtime.sizing import SizingLimits
from harmonia_actors.settings import Settings
from persistence.errors import Missing, StoreError, StoreUnavailable
from persistence.store import InboxEntry, Store
from tests.simulation.audit import Auditor
from tests.simulation.chaos import Chaos
from tests.simulation.clients import Clients, ServiceReplica, SimulatedLauncher
from tests.simulation.clock_audit import ClockAuditor
from tests.simulation.faults import Faults
from tests.simulation.loss_audit import LossAuditor
from tests.simulation.machine import Machine
from tests.simulation.network import Network
from tests.simulation.owners import OwnerLimits, OwnerParts, SimulatedOwner
from tests.simulation.pool import PoolWorld, SimulatedPool
from tests.simulation.scenario import Scenario, draw_scenario
from tests.simulation.stop_audit import StopAuditor
from tests.simulation.store import DistantStore, StoreServer
from tests.simulation.subscribers import Broadcaster, Streams, Subscriber
from tests.simulation.supervisor import SimulatedSupervisor, SupervisorWorld
from tests.simulation.task_actors import REGISTRY, SimulatedTaskActor, Surroundings
from tests.simulation.virtual_loop import Process, VirtualLoop

__all__ = ["GRACE_MS", "World"]

START_MS = 1_700_000_000_000
LEASE_MS = 3_000
GRACE_MS = 500
_INLINE_BYTES_MAX = 300
#: Room for the lines of a few attempts.
_LOG_BYTES_MAX = 6_000
_BACK_S = (0.1, 1.0)
BROADCASTERS = 2
#: Clocks that were never set right, and one in three that was.
_OFFSETS_MS = (-3_600_000, 0, 3_600_000)


class Blobs:
    """The blob store: what it says it has kept, it has."""

    def __init__(self, faults: Faults) -> None:
        self.kept: dict[str, bytes] = {}
        self._faults = faults

    def put(self, name: str, body: bytes) -> str:
        self._perhaps_fail()
        self.kept[f"mem:{name}"] = body
        return f"mem:{name}"

    def get(self, url: str) -> bytes:
        self._perhaps_fail()
        try:
            return self.kept[url]
        except KeyError:
            raise Missing(f"there is no blob '{url}'") from None

    def discard(self, name: str) -> None:
        self.kept.pop(f"mem:{name}", None)

    def _perhaps_fail(self) -> None:
        if self._faults.strikes("blob store fails"):
            raise StoreUnavailable("the blob store does not answer")


class _Clock:
    """The time of day in one process."""

    def __init__(self, loop: VirtualLoop, process: Process) -> None:
        self._loop = loop
        self._process = process

    def now_ms(self) -> int:
        return START_MS + int(self._loop.time() * 1000) + self._process.ahead_ms

    def steady(self) -> SteadyClock:
        return SteadyClock(self.now_ms(), self._loop.time)


class _Sink:
    """The port EventSink: tells the broadcaster, as far as the network lets it."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    def publish(self, execution_id: str, first_seq: int, bodies: Sequence[bytes]) -> None:
        world = self._world
        if world.faults.strikes("owner dies before it publishes"):
            self._process.kill()
        if self._process.alive:
            world.auditor.published(execution_id, first_seq, bodies)
            to = world.broadcasters[shard_of(execution_id, BROADCASTERS)]
            batch = [(execution_id, first_seq, list(bodies))]
            world.network.send(
                self._process, to.process, to.broadcast.publish, batch, kind="report"
            )


class World:
    """All processes and wires of one run."""

    def __init__(self, loop: VirtualLoop, seed: int, *, tell: bool) -> None:
        self.loop = loop
        self.seed = seed
        self.scenario: Scenario = draw_scenario(str(seed))
        self.faults = Faults(str(seed))
        self.network = Network(loop, self.faults, str(seed))
        self.machine = Machine(self.network, self.faults, str(seed), grows=self.scenario.uses_files)
        self._luck = random.Random(f"{seed}/world")
        self._clocks = random.Random(f"{seed}/clocks")
        self._hash = hashlib.sha256()
        self.story: list[str] | None = [] if tell else None
        self._names: Counter[str] = Counter()
        self._singles: dict[str, Process] = {}
        self.owners: dict[str, SimulatedOwner] = {}
        self._task_actors: dict[str, Process] = {}
        self.blobs = Blobs(self.faults)
        self.limits = self._limits()
        self.machine_process = self.process("store")
        clock = _Clock(loop, self.machine_process)
        self.server = StoreServer(loop, self.network, self.faults, clock.now_ms)
        self.server.witness = self._witness
        clocks = ClockAuditor(loop.time, lambda: self.machine_process.set_forward_ms / 1000)
        self._calm_s = math.inf
        stops = StopAuditor(loop.time, lambda: self._calm_s)
        losses = LossAuditor(self.network.given_up)
        self.auditor = Auditor(self.server, self.blobs, self.limits, clocks, stops, losses)
        self.chaos = Chaos(self, self.faults, self.network, self.note)
        self.server.when_stopped = self.chaos.stopped
        self.subscribers: list[Subscriber] = []
        self.broadcasters: dict[int, Broadcaster] = {}
        for make in (
            self._make_pool,
            self._make_supervisor,
            *(partial(self._make_broadcaster, shard) for shard in range(BROADCASTERS)),
            self._make_streams,
            self._make_service,
        ):
            make()
        self.clients = Clients(
            self.process("clients"),
            self.network,
            lambda: self.replica,
            self._subscribe,
            stops.acknowledged,
            self.scenario,
        )

    def _limits(self) -> OwnerLimits:
        return OwnerLimits(
            owners_max=self.scenario.owners_max,
            lease_ms=LEASE_MS,
            crashes_max=self.scenario.crashes_max,
            attempts_in_flight_max=self.scenario.in_flight_max,
            core=CoreLimits(
                lost_attempts_max=self.scenario.lost_max,
                inline_output_bytes_max=_INLINE_BYTES_MAX,
                log_bytes_max=_LOG_BYTES_MAX,
            ),
            ordering=OrderingLimits(inline_output_bytes_max=_INLINE_BYTES_MAX),
            dispatch=DispatchLimits(cancel_grace_ms=GRACE_MS, linger_ms=50),
        )

    # Processes ---------------------------------------------------------------------------------

    def process(self, kind: str) -> Process:
        """A new process with a name that no other has."""
        self._names[kind] += 1
        return self._named_process(f"{kind}-{self._names[kind]}")

    def _named_process(self, name: str) -> Process:
        process = Process(self.loop, name)
        if self.scenario.clocks_differ:
            process.ahead_ms = self._clocks.choice(_OFFSETS_MS)
            self.faults.landed["clock is off"] += process.ahead_ms != 0
        return process

    def single(self, kind: str) -> Process:
        """The one process of this kind, as it is now."""
        return self._singles[kind]

    def broadcaster_processes(self) -> list[Process]:
        """All of them, as they are now."""
        return [self.single(f"broadcaster{shard}") for shard in range(BROADCASTERS)]

    def task_actors(self) -> list[Process]:
        """Those that live."""
        return [process for process in self._task_actors.values() if process.alive]

    def _single(self, kind: str, again: Callable[[], None]) -> Process:
        """A process that is started again when it has died."""
        process = self._singles[kind] = self.process(kind)
        process.when_dead(lambda: self.network.later(self._luck.uniform(*_BACK_S), again))
        return process

    def _make_pool(self) -> None:
        process = self._single("pool", self._make_pool)
        world = PoolWorld(
            self.network,
            self._new_task_actor_name,
            self._start_task_actor,
            self._task_actors,
            self._process_of,
            self._recall_from,
            self.machine.capacity,
        )
        clock = _Clock(self.loop, process)
        self.pool: SimulatedPool = process.make(SimulatedPool, process, clock.steady(), world)
        process.spawn(self.pool.host.begin())

    def _make_supervisor(self) -> None:
        process = self._single("supervisor", self._make_supervisor)
        limits = SizingLimits(least=1, most=self.scenario.owners_max, idle_s=5.0)
        world = SupervisorWorld(
            self.network, self._start_owner, self.owners, limits, lease_ms=LEASE_MS
        )
        self.supervisor: SimulatedSupervisor = process.make(
            SimulatedSupervisor, process, DistantStore(self.server, process), world
        )
        process.spawn(self.supervisor.begin())

    def _make_broadcaster(self, shard: int) -> None:
        process = self._single(f"broadcaster{shard}", partial(self._make_broadcaster, shard))
        self.broadcasters[shard] = process.make(Broadcaster, process)

    def _make_streams(self) -> None:
        process = self._single("streams", self._make_streams)
        store = DistantStore(self.server, process)
        broadcasters = [partial(self.broadcasters.__getitem__, at) for at in range(BROADCASTERS)]
        self.streams = Streams(process, self.network, store, broadcasters)

    def _make_service(self) -> None:
        process = self._single("service", self._make_service)
        launcher = SimulatedLauncher(
            process,
            self.network,
            self.owners,
            lambda: self.supervisor,
            self.machine.capacity(),
        )
        parts = ServiceParts(
            store=cast(Store, DistantStore(self.server, process)),
            blobs=self.blobs,
            registry=REGISTRY,
            clock=_Clock(self.loop, process),
            launcher=launcher,
            settings=_settings(self.scenario.owners_max),
        )
        self.replica = ServiceReplica(process, CheckpointService(parts))

    def _start_owner(self) -> SimulatedOwner:
        process = self.process("owner")
        parts = OwnerParts(
            network=self.network,
            faults=self.faults,
            server=self.server,
            pool=lambda: self.pool,
            blobs=self.blobs,
            sink_for=partial(_Sink, self),
            ordered=self.auditor.ordered,
            limits=self.limits,
            uses_files=self.scenario.uses_files,
        )
        clock = _Clock(self.loop, process)
        owner: SimulatedOwner = process.make(SimulatedOwner, process, clock, parts)
        self.owners[owner.name] = owner
        return owner

    def _start_task_actor(self, name: str, key: QueueKey) -> Process:
        process = self._task_actors[name] = self._named_process(name)
        surroundings = Surroundings(
            self.network,
            self.faults,
            self._make_runner,
            self._tell_owner,
            self._begun,
            self.auditor.ended,
            self.auditor.asked,
            self._keep,
        )
        clock = _Clock(self.loop, process)
        actor = process.make(SimulatedTaskActor, process, key, clock, surroundings)
        self.machine.place(process, key, partial(process.make, actor.place))
        return process

    def _make_runner(self, clock: Clock) -> AttemptRunner:
        return AttemptRunner(REGISTRY, self.blobs, clock, self.limits.ordering, _no_workspace)

    # What processes tell each other and the world ----------------------------------------------

    def _subscribe(self, execution_id: str, takes_s: float) -> None:
        process = self.process("subscriber")
        subscriber = Subscriber(execution_id, process, self.network, lambda: self.streams, takes_s)
        self.subscribers.append(subscriber)
        process.spawn(subscriber.run())

    def _tell_owner(self, sender: Process, name: str, reports: Sequence[Report]) -> None:
        owner = self.owners[name]
        take = owner.dispatcher.reported
        self.network.send(sender, owner.process, take, reports, kind="report")

    def _new_task_actor_name(self) -> str:
        self._names["task"] += 1
        return f"task-{self._names['task']}"

    def _process_of(self, owner: str) -> Process | None:
        known = self.owners.get(owner)
        return None if known is None else known.process

    def _recall_from(self, holder: Process) -> Callable[[QueueKey, int], None]:
        return self.owners[holder.name].dispatcher.recall

    def _witness(
        self, process: Process, name: str, arguments: Any, named: Any, answer: Any
    ) -> None:
        noted = self.auditor.stored(process, name, arguments, named, answer)
        if noted is not None:
            self.note(noted)

    def _begun(self, actor: SimulatedTaskActor, order: AttemptOrder) -> None:
        self.note(f"begins {order.id} epoch {order.epoch} on {actor.name}")
        self.auditor.begun(actor, order)

    async def _keep(
        self, actor: SimulatedTaskActor, order: AttemptOrder, entry: InboxEntry
    ) -> bool:
        store = DistantStore(self.server, actor.process)
        try:
            await store.append_inbox(order.execution_id, entry, epoch=order.epoch)
        except StoreError:
            return False
        self.auditor.kept(actor, order)
        return True

    def note(self, what: str) -> None:
        """One line of the trace."""
        line = f"{self.loop.time():.6f} {what}"
        self._hash.update(line.encode())
        if self.story is not None:
            self.story.append(line)

    def trace(self) -> str:
        """A hash of all that was noted."""
        return self._hash.hexdigest()

    # Faults ------------------------------------------------------------------------------------

    def begin(self) -> asyncio.Task[None]:
        """Let clients and faults loose; the task ends when all clients have done their part."""
        for kind in self.faults.intervals_s:
            strike = self.chaos.strike(kind)
            self.loop.create_task(strike, context=self.network.wires.copy())
        return self.loop.create_task(self.clients.run(), context=self.network.wires.copy())

    def end_faults(self) -> None:
        """From here on nothing goes wrong, and what was stopped goes on."""
        self.faults.over = True
        self.server.away = False
        self.server.slow_until_s = 0.0
        self.server.cut_off.clear()
        for process in self.loop.processes:
            process.resume()
        self._calm_s = self.loop.time()
        self.note("faults are over")


@cache
def _settings(owners_max: int) -> Settings:
    return Settings(
        execution_actors_min=1,
        execution_actors_max=owners_max,
        inline_output_bytes_max=_INLINE_BYTES_MAX,
    )


def _no_workspace(*_: Any) -> Any:
    """What matters is where files would be: nobody looks into them."""
    return None
