"""Hosts executions in one process: claims them, drives them, keeps the owner's lease.

An execution actor is a host with Ray around it; tests use it without. Everything is found again
from the store: what is in memory here may be lost at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harmonia_actors.components.registry import Registry
from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.definition import build_workflow
from harmonia_actors.core.execution import CoreLimits, Decision, Execution
from harmonia_actors.core.records import UnknownSchema, decode_head, decode_row
from harmonia_actors.core.resources import ResourceRequest
from harmonia_actors.core.statuses import ExecutionStatus
from harmonia_actors.runtime.driver import ExecutionDriver, Surroundings
from harmonia_actors.runtime.in_flight import InFlight
from harmonia_actors.runtime.inputs import PlannedWorkflow
from harmonia_actors.runtime.notes import decode_note
from harmonia_actors.runtime.ordering import BlobReader, Ordering, OrderingLimits
from harmonia_actors.runtime.orders import Report
from harmonia_actors.runtime.output_cache import OutputCache
from harmonia_actors.runtime.ports import Attempts, Clock, EventSink
from persistence.errors import Missing, StoreUnavailable
from persistence.store import InboxEntry, Loaded, Store

__all__ = ["Census", "ExecutionHost", "HostLimits"]

_log = logging.getLogger(__name__)

_WORKFLOWS_KEPT = 200
_ENDED_KEPT = 1_000
_OWNED_PAGE = 1_000
_ARRIVAL_S = 1.0
#: Executions taken over at one time; each asks task actors what they run of it.
_TAKEN_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class HostLimits:
    """Bounds of one host."""

    owners_max: int
    lease_ms: int
    executions_max: int = 2_000
    output_cache_bytes: int = 64_000_000
    #: Attempts of one execution handed out at a time, and bytes of all inputs that are.
    attempts_in_flight_max: int = 2_000
    in_flight_bytes_max: int = 128_000_000


@dataclass(frozen=True, slots=True)
class Census:
    """What task actors say of an execution's attempts after a change of owner."""

    #: (task, attempt) of those that run, or have ended without the former owner having taken it in.
    adopted: frozenset[tuple[int, int]] = frozenset()
    #: Outcomes of those that have ended.
    outcomes: Sequence[st.Stimulus] = ()


@dataclass
class ExecutionHost:
    """All executions of one owner."""

    owner: str
    store: Store
    blobs: BlobReader
    registry: Registry
    attempts: Attempts
    sink: EventSink
    clock: Clock
    limits: HostLimits
    core_limits: CoreLimits
    ordering_limits: OrderingLimits
    take_census: Callable[[str, int], Awaitable[Census]]
    #: Names the node for a workspace, given what the tasks that use it ask for; "" if any will do.
    choose_node: Callable[[str, Sequence[ResourceRequest]], str] = lambda _id, _requests: ""
    _drivers: dict[str, ExecutionDriver] = field(default_factory=dict)
    _running: dict[ExecutionDriver, asyncio.Task[None]] = field(default_factory=dict)
    _picking_up: set[asyncio.Task[None]] = field(default_factory=set)
    _planned: OrderedDict[str, PlannedWorkflow] = field(default_factory=OrderedDict)
    _claiming: set[str] = field(default_factory=set)
    _picking: bool = False
    _untold: set[str] = field(default_factory=set)
    #: Executions of this owner that this version of Harmonia cannot read.
    _set_aside: set[str] = field(default_factory=set)
    #: Executions that somebody waits for before they have come here.
    _arrivals: dict[str, asyncio.Event] = field(default_factory=dict)
    #: Executions that ended here lately.
    _ended: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self._cache = OutputCache(self.limits.output_cache_bytes)
        self._room = InFlight(
            attempts_max=self.limits.attempts_in_flight_max,
            bytes_max=self.limits.in_flight_bytes_max,
        )

    @property
    def load(self) -> int:
        """How many executions live here."""
        return len(self._drivers)

    # What others ask ---------------------------------------------------------------------------

    async def start(self, execution_id: str, definition: str, fields: Mapping[str, bytes]) -> None:
        """Begin an execution that was created for this owner a moment ago (epoch 1)."""
        if execution_id in self._drivers or execution_id in self._claiming:
            return
        self._claiming.add(execution_id)
        try:
            loaded = Loaded(execution_id, 1, 1, 0, definition, fields, {}, ())
            await self._drive(loaded)
        finally:
            self._claiming.discard(execution_id)

    async def claim(self, execution_id: str) -> None:
        """Take an execution over, whoever has it."""
        if execution_id in self._drivers or execution_id in self._claiming:
            return
        self._claiming.add(execution_id)
        try:
            loaded = await self.store.claim(execution_id, self.owner)
            if loaded is not None:
                await self._drive(loaded)
        finally:
            self._claiming.discard(execution_id)

    async def pick_up(self) -> int:
        """Take executions that wait for an owner, as many as this one may. Returns how many."""
        if self._picking:
            return 0
        self._picking = True
        taken: set[asyncio.Task[None]] = set()
        count = 0
        try:
            while self.load + len(taken) < self.limits.executions_max:
                owners_max = self.limits.owners_max
                loaded = await self.store.claim_next(self.owner, owners_max=owners_max)
                if loaded is None:
                    break
                count += 1
                taken.add(asyncio.get_running_loop().create_task(self._drive_quietly(loaded)))
                if len(taken) >= _TAKEN_AT_ONCE:
                    _, taken = await asyncio.wait(taken, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._picking = False
            if taken:
                await asyncio.wait(taken)
        return count

    async def nudge(self, execution_id: str) -> None:
        """Something lies in the execution's inbox."""
        driver = self._drivers.get(execution_id)
        if driver is not None:
            self._take_in(driver, await self.store.read_inbox(execution_id))

    async def wait_ended(self, execution_id: str) -> None:
        """Return when the execution has ended, or is not here.

        The call that starts it may be overtaken by this one: it gets a moment to arrive.
        """
        if execution_id not in self._drivers and execution_id not in self._ended:
            arrival = self._arrivals.setdefault(execution_id, asyncio.Event())
            try:
                async with asyncio.timeout(_ARRIVAL_S):
                    await arrival.wait()
            except TimeoutError:
                pass
            finally:
                self._arrivals.pop(execution_id, None)
        driver = self._drivers.get(execution_id)
        if driver is not None:
            await driver.ended.wait()

    def tell(self, reports: Sequence[Report]) -> None:
        """Stimuli about attempts, each to the driver of its execution."""
        by_execution: dict[str, list[st.Stimulus]] = {}
        for report in reports:
            by_execution.setdefault(report.execution_id, []).append(report.stimulus)
        for execution_id, stimuli in by_execution.items():
            driver = self._drivers.get(execution_id)
            if driver is not None:
                driver.deliver(*stimuli)

    async def keep_lease(self) -> None:
        """Renew the lease, for ever. Nothing else is done here, so that nothing can delay it."""
        while True:
            with self._survived("the lease could not be renewed"):
                await self.store.renew_owner(self.owner, lease_ms=self.limits.lease_ms)
            await asyncio.sleep(self.limits.lease_ms / 3000)

    async def look_around(self) -> None:
        """Look into inboxes and for executions without an owner, for ever."""
        while True:
            with self._survived("inboxes could not be read"):
                for execution_id in await self.store.inboxes_waiting(self.owner):
                    with self._survived(f"the inbox of {execution_id} could not be read"):
                        await self.nudge(execution_id)
            with self._survived("executions that were never told of could not be taken"):
                await self._claim_untold()
            with self._survived("executions that wait could not be taken"):
                await self.pick_up()
            await asyncio.sleep(self.limits.lease_ms / 3000)

    async def _claim_untold(self) -> None:
        """Executions that are this owner's in the store, but of which it was never told."""
        for execution_id in await self._owned():
            if execution_id in self._drivers or execution_id in self._set_aside:
                continue
            if execution_id not in self._untold:
                # The call that tells of it may be under way: it gets until the next look.
                self._untold.add(execution_id)
                continue
            self._untold.discard(execution_id)
            with self._survived(f"execution {execution_id} could not be claimed"):
                await self.claim(execution_id)
        self._untold.difference_update(list(self._drivers))

    async def _owned(self) -> list[str]:
        """All that is this owner's, in pages; one may be missed if others end meanwhile."""
        found: list[str] = []
        while True:
            page = await self.store.owned_executions(
                self.owner, limit=_OWNED_PAGE, offset=len(found)
            )
            found += page
            if len(page) < _OWNED_PAGE:
                return found

    @contextlib.contextmanager
    def _survived(self, what: str) -> Iterator[None]:
        """Whatever goes wrong with one thing, the next is still looked after."""
        try:
            yield
        except StoreUnavailable as error:
            _log.warning("%s: %s", what, error)
        except Exception:
            _log.exception("%s", what)

    async def close(self) -> None:
        """Stop driving. What is stored stays as it is; another owner can go on."""
        running = [*self._running.values(), *self._picking_up]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    # -------------------------------------------------------------------------------------------

    async def _drive_quietly(self, loaded: Loaded) -> None:
        with self._survived(f"execution {loaded.execution_id} could not be taken over"):
            await self._drive(loaded)

    async def _drive(self, loaded: Loaded) -> None:
        """Make a driver for what was claimed, and let it run.

        What cannot be read is set aside: it stays this owner's, and is tried again by the next.
        """
        execution_id = loaded.execution_id
        await self._end_former(execution_id)
        try:
            driver = await self._make_driver(loaded)
        except (Missing, UnknownSchema) as error:
            _log.error("execution %s is set aside: %s", execution_id, error)
            self._set_aside.add(execution_id)
            return
        self._drivers[execution_id] = driver
        arrival = self._arrivals.get(execution_id)
        if arrival is not None:
            arrival.set()
        try:
            first = await self._first_steps(driver, loaded)
        except BaseException:
            self._forget(driver)
            raise
        task = asyncio.get_running_loop().create_task(driver.run(first))
        self._running[driver] = task
        task.add_done_callback(lambda done: self._driver_ended(driver, done))

    async def _end_former(self, execution_id: str) -> None:
        """Stop a driver of an earlier epoch: the execution was given away, and has come back."""
        former = self._drivers.get(execution_id)
        if former is None:
            return
        task = self._running.get(former)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._forget(former)

    def _forget(self, driver: ExecutionDriver) -> None:
        if self._drivers.get(driver.execution_id) is driver:
            del self._drivers[driver.execution_id]
            self.attempts.forget(driver.execution_id)
            driver.ended.set()

    async def _make_driver(self, loaded: Loaded) -> ExecutionDriver:
        planned = await self._planned_workflow(loaded.definition)
        head = decode_head(loaded.fields["head"])
        if "node_id" not in head.labels:
            node_id = self._node_for(planned, loaded.execution_id)
            if node_id:
                head.labels["node_id"] = node_id
        execution = Execution(
            workflow=planned.workflow,
            head=head,
            rows={int(name): decode_row(body) for name, body in loaded.rows.items()},
            seq=loaded.seq,
            limits=self.core_limits,
        )
        ordering = Ordering(
            execution=execution,
            planned=planned,
            execution_input=loaded.fields["input"],
            cache=self._cache,
            store=self.store,
            blobs=self.blobs,
            limits=self.ordering_limits,
        )
        return ExecutionDriver(
            execution=execution,
            ordering=ordering,
            owner=self.owner,
            epoch=loaded.epoch,
            version=loaded.version,
            surroundings=Surroundings(self.store, self.attempts, self.sink, self.clock, self._room),
        )

    async def _first_steps(self, driver: ExecutionDriver, loaded: Loaded) -> Decision | None:
        """What the driver begins with: a start, or what is outstanding after another owner."""
        execution = driver.execution
        first = None
        if execution.head.status is not ExecutionStatus.PENDING:
            census = await self.take_census(loaded.execution_id, loaded.epoch)
            # A restored execution begins as a running one; at version 1 nobody has driven it yet.
            first = execution.resume(
                self.clock.now_ms(), census.adopted, untouched=loaded.version == 1
            )
            driver.deliver(*census.outcomes)
        else:
            driver.deliver(st.StartRequested(self.clock.now_ms()))
        self._take_in(driver, loaded.inbox)
        return first

    def _node_for(self, planned: PlannedWorkflow, execution_id: str) -> str:
        asked: dict[ResourceRequest, None] = {}
        for task in planned.workflow.tasks:
            # One that is not installed any more fails when its turn comes.
            with contextlib.suppress(ValueError):
                if self.registry.action(task.component, task.action).uses_files:
                    asked[task.resources] = None
        return self.choose_node(execution_id, list(asked)) if asked else ""

    def _take_in(self, driver: ExecutionDriver, entries: Sequence[InboxEntry]) -> None:
        for entry in entries:
            stimulus = decode_note(entry.body)
            if stimulus is None:
                _log.warning("execution %s: a note was dropped unread", driver.execution_id)
                driver.deliver(inbox_ids=[entry.entry_id])
            else:
                driver.deliver(stimulus, inbox_ids=[entry.entry_id])

    async def _planned_workflow(self, digest: str) -> PlannedWorkflow:
        known = self._planned.get(digest)
        if known is not None:
            self._planned.move_to_end(digest)
            return known
        body = await self.store.get_definition(digest)
        if body is None:
            raise Missing(f"definition {digest}")
        planned = PlannedWorkflow(build_workflow(jsontext.decode(body)), self.registry)
        self._planned[digest] = planned
        while len(self._planned) > _WORKFLOWS_KEPT:
            self._planned.popitem(last=False)
        return planned

    def _driver_ended(self, driver: ExecutionDriver, task: asyncio.Task[None]) -> None:
        self._running.pop(driver, None)
        if self._drivers.get(driver.execution_id) is driver:
            ended_well = not task.cancelled() and task.exception() is None
            if ended_well and not driver.superseded:
                del self._drivers[driver.execution_id]
            else:
                self._forget(driver)
        self._ended[driver.execution_id] = None
        while len(self._ended) > _ENDED_KEPT:
            self._ended.popitem(last=False)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            _log.error("execution %s: its driver failed", driver.execution_id, exc_info=error)
        picking = asyncio.get_running_loop().create_task(self._pick_up_quietly())
        self._picking_up.add(picking)
        picking.add_done_callback(self._picking_up.discard)

    async def _pick_up_quietly(self) -> None:
        with self._survived("executions that wait could not be taken"):
            await self.pick_up()
