"""Hosts executions in one process: claims them, drives them, keeps the owner's lease.

An execution actor is a host with Ray around it; tests use it without. Everything is found again
from the store: what is in memory here may be lost at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from harmonia_actors.components.registry import Registry
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.commands import StopReason
from harmonia_actors.core.execution import CoreLimits, Decision
from harmonia_actors.core.quarantine import quarantine_error
from harmonia_actors.core.records import UnknownSchema
from harmonia_actors.core.statuses import ExecutionStatus
from harmonia_actors.runtime.background import BackgroundTasks, survived
from harmonia_actors.runtime.census import Census
from harmonia_actors.runtime.driver import ExecutionDriver, Surroundings
from harmonia_actors.runtime.driver_maker import DriverMaker
from harmonia_actors.runtime.ending import Ending, LatelyEnded
from harmonia_actors.runtime.failing_by_head import fail_by_head
from harmonia_actors.runtime.host_limits import HostLimits
from harmonia_actors.runtime.in_flight import InFlight
from harmonia_actors.runtime.mailbox import LinesRoom
from harmonia_actors.runtime.nodes import AnyNode
from harmonia_actors.runtime.notes import outcomes_in
from harmonia_actors.runtime.ordering import BlobReader, OrderingLimits
from harmonia_actors.runtime.orders import Report
from harmonia_actors.runtime.output_cache import OutputCache
from harmonia_actors.runtime.patience import patiently
from harmonia_actors.runtime.pauses import Pauses
from harmonia_actors.runtime.ports import Attempts, Clock, EventSink, Nodes
from harmonia_actors.runtime.stale import NoteStale, unnoted
from harmonia_actors.runtime.tenure import NotOwner, Tenure
from persistence.errors import Missing, StaleOwner, StoreUnavailable
from persistence.store import Loaded, Store

__all__ = ["ExecutionHost"]

_log = logging.getLogger(__name__)

_OWNED_PAGE = 1_000
_ARRIVAL_S = 1.0
#: Longest pause after a renewal that failed: nothing is given out until one has not.
_AGAIN_S = 1.0
#: A suspect of many crashes is alone for half an hour at most.
_CALM_STEPS_MAX = 6
#: Executions taken over at one time; each asks task actors what they run of it.
_TAKEN_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class _Given:
    """An execution as this owner was given it."""

    execution_id: str
    epoch: int
    crashes: int


async def _nobody() -> None:
    """There is nobody to ask or to tell."""


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
    nodes: Nodes = field(default_factory=AnyNode)
    #: Tells other owners that an execution waits; lost calls are made up for by looking around.
    call_others: Callable[[], Awaitable[None]] = _nobody
    #: Sets `clock` by the store's. Executions that are here already keep the time that they have.
    learn_time: Callable[[], Awaitable[None]] = _nobody
    note_stale: NoteStale = unnoted
    tenure: Tenure = field(default_factory=Tenure)
    _drivers: dict[str, ExecutionDriver] = field(default_factory=dict)
    _running: dict[ExecutionDriver, asyncio.Task[None]] = field(default_factory=dict)
    _claiming: set[str] = field(default_factory=set)
    _picking: bool = False
    #: Whether it was asked to take what waits since it last asked the store for it.
    _asked_to_pick: bool = False
    _untold: set[str] = field(default_factory=set)
    #: Executions that are about to be given on.
    _giving_on: set[str] = field(default_factory=set)
    #: Executions that somebody waits for before they have come here.
    _arrivals: dict[str, asyncio.Event] = field(default_factory=dict)
    #: Executions that ended here lately, and how, as far as that is small.
    _ended: LatelyEnded = field(default_factory=LatelyEnded)

    def __post_init__(self) -> None:
        limits = self.limits
        self._background = BackgroundTasks(_log_unexpected)
        # A third of the lease at most: a renewal may fail, and be late, and there is another one.
        self._renewals = Pauses(f"{self.owner}/lease", limits.lease_ms / 3000)
        self._retries = Pauses(f"{self.owner}/again", min(limits.lease_ms / 3000, _AGAIN_S))
        self._looks = Pauses(f"{self.owner}/look", limits.lease_ms / 3000)
        room = InFlight(
            attempts_max=limits.attempts_in_flight_max, bytes_max=limits.in_flight_bytes_max
        )
        self._maker = DriverMaker(
            owner=self.owner,
            surroundings=Surroundings(
                self.store,
                self.attempts,
                self.sink,
                self.clock,
                room,
                self.nodes,
                limits.lines_wait_ms / 1000,
                LinesRoom(limits.lines_waiting_bytes_max),
                self.note_stale,
            ),
            blobs=self.blobs,
            registry=self.registry,
            cache=OutputCache(limits.output_cache_bytes),
            core_limits=self.core_limits,
            ordering_limits=self.ordering_limits,
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
            await self._drive(loaded, is_new=True)
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
        self._asked_to_pick = True
        if self._picking:
            return 0
        self._picking = True
        taken: set[asyncio.Task[None]] = set()
        count = 0
        try:
            while self.load + len(taken) < self.limits.executions_max:
                self._asked_to_pick = False
                loaded = await self.store.claim_next(self.owner, owners_max=self.limits.owners_max)
                if loaded is None:
                    if self._asked_to_pick:
                        # The answer may be older than what this one was told of.
                        continue
                    break
                count += 1
                self._claiming.add(loaded.execution_id)
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
        if (driver := self._drivers.get(execution_id)) is not None:
            driver.take_in(await self.store.read_inbox(execution_id))

    async def wait_ended(self, execution_id: str) -> Ending | None:
        """Return when the execution has ended, or is not here; how, if that is known here.

        The call that starts it may be overtaken by this one: it gets a moment to arrive.
        """
        if execution_id not in self._drivers and execution_id not in self._ended:
            arrival = self._arrivals.setdefault(execution_id, asyncio.Event())
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ARRIVAL_S):
                        await arrival.wait()
            finally:
                self._arrivals.pop(execution_id, None)
        driver = self._drivers.get(execution_id)
        if driver is None:
            return self._ended.ending_of(execution_id)
        await driver.ended.wait()
        return driver.ending

    def tell(self, reports: Sequence[Report]) -> None:
        """Stimuli about attempts, each to the driver of its execution."""
        by_execution: dict[str, list[Report]] = {}
        for report in reports:
            by_execution.setdefault(report.execution_id, []).append(report)
        for execution_id, told in by_execution.items():
            if (driver := self._drivers.get(execution_id)) is not None:
                driver.deliver_reports(told)

    async def register(self) -> None:
        """Become an owner: from here on there are executions for it. Raises NotOwner."""
        await self.learn_time()
        if not await self._renew():
            # What it has in mind is others' now: its process must end.
            raise NotOwner(f"{self.owner} was succeeded, and cannot be an owner again")

    async def keep_lease(self) -> None:
        """Renew the lease until it has been taken away; nothing else is done here to delay it.

        When it returns, it did not answer for too long, and others have what it had: it must end.
        """
        pauses = self._renewals
        while True:
            await asyncio.sleep(pauses.next_s())
            pauses = self._retries
            if not self._is_known:
                continue
            with survived(_log, "the lease could not be renewed"):
                async with asyncio.timeout(self.limits.lease_ms / 3000):
                    is_owner = await self._renew()
                if not is_owner:
                    _log.error("%s was succeeded while it did not answer, and ends", self.owner)
                    return
                pauses = self._renewals
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.limits.lease_ms / 3000):
                        await self.learn_time()

    @property
    def _is_known(self) -> bool:
        """Whether it has registered: who was given something has, though it may not know it."""
        return self.tenure.has_begun or bool(self._drivers)

    async def _renew(self) -> bool:
        lease_ms, renew = self.limits.lease_ms, self.store.renew_owner
        known, by_ms = self._is_known, self.clock.now_ms() + lease_ms
        ask = partial(renew, self.owner, lease_ms=lease_ms, known=known, by_ms=by_ms)
        return await self.tenure.renew(ask, lease_ms)

    async def look_around(self) -> None:
        """Look into inboxes and for executions without an owner, for ever."""
        while True:
            with survived(_log, "inboxes could not be read"):
                for execution_id in await self.store.inboxes_waiting(self.owner):
                    with survived(_log, f"the inbox of {execution_id} could not be read"):
                        await self.nudge(execution_id)
            with survived(_log, "executions that were never told of could not be taken"):
                await self._claim_untold()
            # Behind a silent task actor, which it may wait for, inboxes must not wait as well.
            self._background.spawn(self._pick_up_quietly())
            await asyncio.sleep(self._looks.next_s())

    async def _claim_untold(self) -> None:
        """Executions that are this owner's in the store, but of which it was never told."""
        owned = await self._owned()
        self._untold.intersection_update(owned)
        for execution_id in owned:
            if execution_id in self._drivers or execution_id in self._giving_on:
                continue
            if execution_id not in self._untold:
                # The call that tells of it may be under way: it gets until the next look.
                self._untold.add(execution_id)
                continue
            self._untold.discard(execution_id)
            with survived(_log, f"execution {execution_id} could not be claimed"):
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

    async def close(self) -> None:
        """Stop driving. What is stored stays as it is; another owner can go on."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, self._background.close(), return_exceptions=True)

    async def _drive_quietly(self, loaded: Loaded) -> None:
        try:
            with survived(_log, f"execution {loaded.execution_id} could not be taken over"):
                await self._drive(loaded)
        finally:
            self._claiming.discard(loaded.execution_id)

    async def _drive(self, loaded: Loaded, *, is_new: bool = False) -> None:
        """Make a driver for what was claimed, and let it run.

        What cannot be read is set aside, and tried again when an owner comes or goes.
        """
        execution_id = loaded.execution_id
        given = _Given(execution_id, loaded.epoch, loaded.crashes)
        _log.debug("%s has execution %s, epoch %d", self.owner, execution_id, loaded.epoch)
        await self._end_former(execution_id, loaded.epoch)
        try:
            driver = await self._driver_for(loaded)
        except (Missing, UnknownSchema) as error:
            _log.error("execution %s is set aside: %s", execution_id, error)
            self._background.spawn(self._give_on(given, wait_s=0, aside=True))
            return
        except StoreUnavailable:
            raise
        except Exception as error:
            self._broke(given, error)
            return
        if driver is None:
            return
        try:
            first = await self._first_steps(driver, loaded, is_new=is_new)
        except Exception as error:
            self._forget(driver)
            driver.close()
            if isinstance(error, StoreUnavailable):
                raise
            self._broke(given, error)
            return
        task = asyncio.get_running_loop().create_task(driver.run(first))
        self._running[driver] = task
        task.add_done_callback(lambda done: self._driver_ended(driver, given, done))
        if loaded.crashes:
            self._background.spawn(self._calm_later(driver, given, loaded.crashes_lately))

    async def _driver_for(self, loaded: Loaded) -> ExecutionDriver | None:
        """None if there is nothing to drive: it was quarantined, or claimed anew meanwhile."""
        execution_id = loaded.execution_id
        if loaded.crashes >= self.limits.crashes_max:
            try:
                await self._quarantine(loaded)
            except StaleOwner:
                _log.info("execution %s was claimed anew before it was quarantined", execution_id)
            return None
        driver = await self._maker.make(loaded)
        await self._end_former(execution_id, loaded.epoch)
        if execution_id in self._drivers:
            driver.close()
            return None
        self._drivers[execution_id] = driver
        if arrival := self._arrivals.get(execution_id):
            arrival.set()
        return driver

    # Suspects ----------------------------------------------------------------------------------

    def _broke(self, given: _Given, error: BaseException) -> None:
        """Its driver failed, by a defect of ours or of what it holds: another try, counted."""
        _log.error("execution %s: its driver failed", given.execution_id, exc_info=error)
        self._giving_on.add(given.execution_id)
        wait_s = self.limits.broken_s * 4 ** min(given.crashes, _CALM_STEPS_MAX)
        self._background.spawn(self._give_on(given, wait_s=wait_s, blame=True))

    async def _give_on(self, given: _Given, *, wait_s: float, **how: bool) -> None:
        """Let another owner have an execution, or this one again if nobody else wants it."""
        execution_id, epoch = given.execution_id, given.epoch
        self._giving_on.add(execution_id)
        try:
            await asyncio.sleep(wait_s)
            await self._end_former(execution_id, epoch)
            await patiently(lambda: self.store.give_on(execution_id, epoch=epoch, **how))
        finally:
            self._giving_on.discard(execution_id)
        await self.call_others()
        await self._pick_up_quietly()

    async def _calm_later(self, driver: ExecutionDriver, given: _Given, lately: int) -> None:
        """A suspect that does no harm for a while is cleared, and makes room for the next one."""
        await asyncio.sleep(self.limits.calm_s * 4 ** min(lately - 1, _CALM_STEPS_MAX))
        if self._drivers.get(driver.execution_id) is not driver:
            return
        others_wait = await patiently(
            lambda: self.store.calm(given.execution_id, epoch=given.epoch)
        )
        if others_wait:
            await self._give_on(given, wait_s=0)
        else:
            await self._pick_up_quietly()

    async def _quarantine(self, loaded: Loaded) -> None:
        """End an execution that ends its owners, before anything else of it is looked at."""
        execution_id, now_ms = loaded.execution_id, self.clock.now_ms()
        error = quarantine_error(loaded.crashes)
        _log.error("execution %s: %s", execution_id, error["message"])
        last: tuple[ExecutionDriver, Decision] | None = None
        if loaded.crashes == self.limits.crashes_max:
            with survived(_log, f"execution {execution_id} cannot be failed task by task"):
                driver = await patiently(lambda: self._maker.make(loaded))
                last = driver, driver.execution.quarantine(now_ms, error)
        if last is None:
            # Even that was too much for it: its head has to do.
            await fail_by_head(self.store, self.sink, self.owner, loaded, now_ms, error)
        else:
            await last[0].conclude(last[1])
        # What still runs of it is stopped, now that it cannot hurt any more.
        census = await self.take_census(execution_id, loaded.epoch)
        for task, attempt in census.adopted:
            self.attempts.stop((execution_id, task, attempt), StopReason.CANCELLED)

    async def _end_former(self, execution_id: str, epoch: int) -> None:
        """Stop a driver of no later epoch: the execution was given away, or has come back."""
        former = self._drivers.get(execution_id)
        if former is None or former.epoch > epoch:
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

    async def _first_steps(
        self, driver: ExecutionDriver, loaded: Loaded, *, is_new: bool
    ) -> Decision | None:
        """What the driver begins with: a start, or what is outstanding after another owner."""
        execution_id, first, inbox = loaded.execution_id, None, loaded.inbox
        census: Census | None = None
        if driver.execution.head.status is not ExecutionStatus.PENDING:
            census = await self.take_census(execution_id, loaded.epoch)
        else:
            # At once: it begins before anything from its inbox is taken in.
            driver.deliver(st.StartRequested(self.clock.now_ms()))
        if not is_new:
            # Who nudged before there was a driver will not do so again: a cancel must not wait.
            with contextlib.suppress(StoreUnavailable):
                inbox = await self.store.read_inbox(execution_id)
        if census is not None:
            settled = outcomes_in(inbox)
            # A restored execution begins as a running one; at version 1 nobody has driven it yet.
            first = driver.resume(census.adopted, settled, untouched=loaded.version == 1)
            driver.deliver(*census.outcomes)
        driver.take_in(inbox)
        return first

    def _driver_ended(
        self, driver: ExecutionDriver, given: _Given, task: asyncio.Task[None]
    ) -> None:
        self._running.pop(driver, None)
        driver.close()
        if self._drivers.get(driver.execution_id) is driver:
            ended_well = not task.cancelled() and task.exception() is None
            if ended_well and not driver.superseded:
                del self._drivers[driver.execution_id]
            else:
                self._forget(driver)
        self._ended.add(driver.execution_id, driver.ending)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._background.spawn(self._pick_up_quietly())
        else:
            self._broke(given, error)

    async def _pick_up_quietly(self) -> None:
        with survived(_log, "executions that wait could not be taken"):
            await self.pick_up()


def _log_unexpected(error: BaseException) -> None:
    _log.error("host: %r", error, exc_info=error)
