"""One run: an installation in virtual time, faults from the seed, and a verdict.

Everything that decides is the real thing: services, hosts, drivers, dispatchers, task hosts, the
slot pool, the sizing, the core, the memory store. Simulated are processes, the network, the clock
and whatever else the machine would bring. While faults strike, the auditor watches; then they stop,
and every execution must end within a time that follows from the scenario.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

from harmonia_actors.core.execution import CoreLimits
from harmonia_actors.runtime.attempt_runner import AttemptRunner
from harmonia_actors.runtime.dispatch import DispatchLimits
from harmonia_actors.runtime.ordering import OrderingLimits
from harmonia_actors.runtime.orders import AttemptOrder, QueueKey, Report
from harmonia_actors.runtime.ports import Clock
from harmonia_actors.runtime.service.checkpoints import CheckpointService
from harmonia_actors.runtime.service.parts import ServiceParts
from harmonia_actors.runtime.sizing import SizingLimits
from harmonia_actors.settings import Settings
from persistence.errors import Missing
from persistence.store import Store
from tests.simulation.audit import Auditor
from tests.simulation.clients import Clients, SimulatedLauncher
from tests.simulation.faults import Faults
from tests.simulation.network import Network
from tests.simulation.owners import OwnerLimits, OwnerParts, SimulatedOwner
from tests.simulation.pool import SimulatedPool
from tests.simulation.scenario import Scenario, draw_scenario
from tests.simulation.store import DistantStore, StoreServer
from tests.simulation.supervisor import SimulatedSupervisor
from tests.simulation.task_actors import REGISTRY, SimulatedTaskActor, Surroundings
from tests.simulation.virtual_loop import Process, VirtualLoop, pass_time, run_virtually

__all__ = ["Verdict", "run_seed"]

START_MS = 1_700_000_000_000
LEASE_MS = 3_000
_GRACE_MS = 500
_SETTLE_S = 20.0
_AWAY_S = 5.0
_STOPPED_S = 12.0
_JUMP_S = 60.0
_START_S = (0.05, 0.4)


@dataclass
class Verdict:
    """What came of a run."""

    seed: int
    broken: list[str]
    trace: str
    landed: Counter[str]
    counts: Counter[str]
    virtual_s: float
    #: All that was noted, if that was asked for.
    story: list[str] = field(default_factory=list)


class Blobs:
    """The blob store. It does not fail: what it keeps is there before anything refers to it."""

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


class _Clock:
    """The time of day in one process."""

    def __init__(self, loop: VirtualLoop, process: Process) -> None:
        self._loop = loop
        self._process = process

    def now_ms(self) -> int:
        return START_MS + int(self._loop.time() * 1000) + self._process.ahead_ms


class _Sink:
    """The port EventSink."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    def publish(self, execution_id: str, first_seq: int, bodies: Sequence[bytes]) -> None:
        if self._world.faults.strikes("owner dies before it publishes"):
            self._process.kill()
        if self._process.alive:
            self._world.auditor.published(execution_id, first_seq, bodies)


class World:
    """All processes and wires of one run."""

    def __init__(self, loop: VirtualLoop, seed: int, *, tell: bool) -> None:
        self.loop = loop
        self.seed = seed
        self.scenario: Scenario = draw_scenario(str(seed))
        self.faults = Faults(str(seed))
        self.network = Network(loop, self.faults, str(seed))
        self._luck = random.Random(f"{seed}/world")
        self._hash = hashlib.sha256()
        self._story: list[str] | None = [] if tell else None
        self._names: Counter[str] = Counter()
        self.owners: dict[str, SimulatedOwner] = {}
        self.blobs = Blobs()
        self.limits = self._limits()
        machine = self.process("store")
        self.server = StoreServer(loop, self.network, self.faults, _Clock(loop, machine).now_ms)
        self.server.witness = self._witness
        self.server.when_stopped = self._wake_later
        self.auditor = Auditor(self.server, self.blobs, self.limits.core)
        self._surroundings = Surroundings(
            self.network,
            self.faults,
            self._make_runner,
            self._tell_owner,
            self._begun,
            self.auditor.asked,
        )
        self.pool = self._make_pool()
        self.supervisor = self._make_supervisor()
        self.clients = self._make_clients()

    def _limits(self) -> OwnerLimits:
        ordering = OrderingLimits(inline_output_bytes_max=300)
        return OwnerLimits(
            owners_max=self.scenario.owners_max,
            lease_ms=LEASE_MS,
            core=CoreLimits(lost_attempts_max=self.scenario.lost_max, inline_output_bytes_max=300),
            ordering=ordering,
            dispatch=DispatchLimits(cancel_grace_ms=_GRACE_MS, linger_ms=50),
        )

    # Processes ---------------------------------------------------------------------------------

    def process(self, kind: str) -> Process:
        """A new process with a name that no other has."""
        self._names[kind] += 1
        return Process(self.loop, f"{kind}-{self._names[kind]}")

    def _make_pool(self) -> SimulatedPool:
        process = self.process("pool")
        clock = _Clock(self.loop, process)
        pool = SimulatedPool(
            process, self.network, self._start_task_actor, self._recall, clock.now_ms
        )
        process.spawn(pool.tick())
        return pool

    def _make_supervisor(self) -> SimulatedSupervisor:
        process = self.process("supervisor")
        supervisor: SimulatedSupervisor = process.make(
            SimulatedSupervisor,
            process,
            self.network,
            DistantStore(self.server, process),
            self._start_owner,
            self.owners,
            SizingLimits(least=1, most=self.scenario.owners_max, idle_s=5.0),
        )
        process.spawn(supervisor.watch())
        return supervisor

    def _make_clients(self) -> Clients:
        process = self.process("service")
        launcher = SimulatedLauncher(
            process, self.network, self.owners, self.supervisor, self.pool.slots.capacity
        )
        parts = ServiceParts(
            store=cast(Store, DistantStore(self.server, process)),
            blobs=self.blobs,
            registry=REGISTRY,
            clock=_Clock(self.loop, process),
            launcher=launcher,
            settings=_settings(self.scenario.owners_max),
        )
        self.service = process
        return Clients(CheckpointService(parts), self.scenario)

    def _start_owner(self) -> SimulatedOwner:
        process = self.process("owner")
        parts = OwnerParts(
            network=self.network,
            faults=self.faults,
            server=self.server,
            pool=self.pool,
            blobs=self.blobs,
            sink_for=lambda process: _Sink(self, process),
            ordered=self.auditor.ordered,
            limits=self.limits,
        )
        owner: SimulatedOwner = process.make(
            SimulatedOwner, process, _Clock(self.loop, process), parts
        )
        self.owners[owner.name] = owner
        return owner

    def _start_task_actor(self, name: str, key: QueueKey) -> Process:
        process = Process(self.loop, name)
        clock = _Clock(self.loop, process)
        process.make(SimulatedTaskActor, process, key, clock, self._surroundings)
        delay_s = self._luck.uniform(*_START_S)
        if self.faults.strikes("task actor does not start"):
            self.network.later(delay_s, process.kill)
        else:
            self.loop.call_later(
                delay_s, self.pool.became_ready, name, context=self.pool.process.context()
            )
        return process

    def _make_runner(self, clock: Clock) -> AttemptRunner:
        return AttemptRunner(REGISTRY, self.blobs, clock, self.limits.ordering, _no_workspace)

    # What processes tell each other and the world ----------------------------------------------

    def _tell_owner(self, sender: Process, name: str, reports: Sequence[Report]) -> None:
        owner = self.owners[name]
        self.network.send(sender, owner.process, owner.dispatcher.reported, reports, kind="report")

    def _recall(self, holder: str, key: QueueKey, count: int) -> None:
        owner = self.owners[holder]
        self.network.send(
            self.pool.process, owner.process, owner.dispatcher.recall, key, count, kind="message"
        )

    def _witness(
        self, process: Process, name: str, arguments: Any, named: Any, answer: Any
    ) -> None:
        noted = self.auditor.stored(process, name, arguments, named, answer)
        if noted is not None:
            self.note(noted)

    def _begun(self, actor: SimulatedTaskActor, order: AttemptOrder) -> None:
        self.note(f"begins {order.id} epoch {order.epoch} on {actor.name}")
        self.auditor.begun(actor, order)

    def note(self, what: str) -> None:
        """One line of the trace."""
        line = f"{self.loop.time():.6f} {what}"
        self._hash.update(line.encode())
        if self._story is not None:
            self._story.append(line)

    # Faults at any time ------------------------------------------------------------------------

    async def _strike_again_and_again(self, kind: str) -> None:
        while True:
            await pass_time(self.faults.gap_s(kind))
            if self.faults.over:
                return
            if self._strike(kind):
                self.faults.landed[kind] += 1
                self.note(f"fault: {kind}")

    def _strike(self, kind: str) -> bool:
        match kind:
            case "store is away":
                return self._take_store_away()
            case "clock jumps":
                victims = [*self._living_owners(), *self.pool.actors.values(), self.service]
                victim = self._one_of(victims)
                victim.ahead_ms += int(self.faults.between(0, _JUMP_S) * 1000)
                return True
        victims = (
            self._living_owners() if kind.startswith("owner") else list(self.pool.actors.values())
        )
        victim = self._one_of(victims)
        if victim is None or not victim.runs:
            return False
        if kind.endswith("dies"):
            victim.kill()
        else:
            victim.stop()
            self._wake_later(victim)
        return True

    def _one_of(self, victims: Sequence[Process]) -> Any:
        return self.faults.one_of(list(victims)) if victims else None

    def _living_owners(self) -> list[Process]:
        return [owner.process for owner in self.owners.values() if owner.process.alive]

    def _take_store_away(self) -> bool:
        if self.server.away:
            return False
        self.server.away = True
        self.network.later(self.faults.between(0, _AWAY_S), self._bring_store_back)
        return True

    def _bring_store_back(self) -> None:
        self.server.away = False

    def _wake_later(self, process: Process) -> None:
        """A stopped process is often believed to be dead, and always wakes again."""
        self.network.later(self.faults.between(0, _STOPPED_S), process.resume)
        if process.name in self.owners and self.faults.whether(0.7):
            self.loop.call_later(
                self.faults.between(0, 1),
                self.supervisor.declared_dead,
                process.name,
                context=self.supervisor.process.context(),
            )

    def _end_faults(self) -> None:
        self.faults.over = True
        self.server.away = False
        for process in self.loop.processes:
            process.resume()
        self.note("faults are over")

    # The run -----------------------------------------------------------------------------------

    async def run(self) -> Verdict:
        """Everything, from the start to the verdict."""
        working = self.service.spawn(self.clients.run())
        for kind in self.faults.intervals_s:
            self.loop.create_task(
                self._strike_again_and_again(kind), context=self.network.wires.copy()
            )
        while self.loop.time() < self.scenario.faults_end_s and not self.auditor.broken:
            await pass_time(0.1)
        self._end_faults()
        await self._await_end(working)
        if not self.auditor.broken:
            await pass_time(_SETTLE_S)
            self.auditor.check_logs()
            self._check_rest()
        self.network.closed = True
        return self._verdict()

    async def _await_end(self, working: asyncio.Task[Any]) -> None:
        deadline_s = self.loop.time() + self._patience_s()
        while not self.auditor.broken:
            if working.done():
                working.result()
                open_ones = self.auditor.open_executions()
                if not open_ones:
                    return
            if self.loop.time() > deadline_s:
                self.auditor.broken.append(f"does not end: {self.auditor.open_executions()}")
            await pass_time(0.1)
            if not working.done():
                deadline_s = self.loop.time() + self._patience_s()

    def _patience_s(self) -> float:
        """How long all that is open may take, if each attempt there can be waits for all others."""
        ahead_s = sum(process.ahead_ms for process in self.loop.processes) / 1000
        total_s = 60.0 + ahead_s
        for execution_id in self.auditor.open_executions():
            for task in self.auditor.workflow_of(execution_id).tasks:
                retries = task.retry.max_retries if task.retry else 0
                attempt_s = task.input["plan"]["ms"] / 1000 + 2 * _GRACE_MS / 1000 + 2.0
                total_s += (retries + 2) * attempt_s
                if task.retry:
                    wait_s = task.retry.retry_interval_ms / 1000
                    total_s += 1.5 * wait_s * task.retry.backoff**retries * retries
        return total_s

    def _check_rest(self) -> None:
        """Nothing is held, waits or is owned any more."""
        broken = self.auditor.broken
        counts = self.pool.slots.counts()
        if counts["leased"] or counts["requests"]:
            broken.append(f"the pool ends with {counts}")
        for owner in self.owners.values():
            if not owner.process.alive:
                continue
            if owner.host.load or not owner.dispatcher.idle():
                broken.append(f"{owner.name} ends with {owner.host.load} executions")
            if owner.keeper is None or owner.keeper.done():
                broken.append(f"{owner.name} does not keep its lease any more")

    def _verdict(self) -> Verdict:
        counts = self.auditor.counts + self.clients.counts
        return Verdict(
            self.seed,
            list(self.auditor.broken),
            self._hash.hexdigest(),
            self.faults.landed,
            counts,
            self.loop.time(),
            self._story or [],
        )


def run_seed(seed: int, *, tell: bool = False) -> Verdict:
    """Run one seed. With `tell`, the verdict has the whole story."""

    async def main(loop: VirtualLoop) -> Verdict:
        world = World(loop, seed, tell=tell)
        loop.set_exception_handler(lambda _, context: _unexpected(world, context))
        with _logged_errors(world):
            return await world.run()

    with _seeded_ids(seed):
        verdict: Verdict = run_virtually(main)
    return verdict


def _unexpected(world: World, context: dict[str, Any]) -> None:
    """An error that nobody has caught; what ends with the run is none."""
    error = context.get("exception")
    if error is not None and not world.network.closed:
        world.auditor.broken.append(f"unexpected: {context['message']}: {error!r}")


class _Ear(logging.Handler):
    """Errors that the engine writes into its log are errors."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if not self._world.network.closed:
            error = record.exc_info[1] if record.exc_info else ""
            self._world.auditor.broken.append(f"logged: {record.getMessage()} {error!r}")


@contextlib.contextmanager
def _logged_errors(world: World) -> Iterator[None]:
    log = logging.getLogger("harmonia_actors")
    ear = _Ear(world)
    log.addHandler(ear)
    was, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.propagate = was
        log.removeHandler(ear)


@contextlib.contextmanager
def _seeded_ids(seed: int) -> Iterator[None]:
    """Ids are the one piece of luck that the engine draws itself: they come from the seed, too."""
    luck = random.Random(f"{seed}/ids")
    real = uuid.uuid4
    uuid.uuid4 = lambda: uuid.UUID(int=luck.getrandbits(128), version=4)
    try:
        yield
    finally:
        uuid.uuid4 = real


@cache
def _settings(owners_max: int) -> Settings:
    return Settings(execution_actors_max=owners_max, inline_output_bytes_max=300)


def _no_workspace(*_: str) -> Any:
    raise AssertionError("nobody uses files here")
