"""Runs one seed from its beginning to the verdict.

While faults strike, the auditor watches; then they stop, and every execution must end within a time
that follows from the scenario, and leave nothing behind that is held, owned or waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.store import at_once
from tests.simulation.virtual_loop import VirtualLoop, pass_time, run_virtually
from tests.simulation.world import GRACE_MS, World

__all__ = ["Verdict", "run_seed"]

_STEP_S = 0.1
#: An attempt that a superseded owner gave out, and its successor does not know, runs to its end.
_SETTLE_S = 75.0
#: What died comes back, leases run out, clients have their say.
_RECOVERY_S = 60.0
#: Until an attempt has a task actor, if others must make room first.
_PLACING_S = 4.0
#: A lease runs out, somebody looks, an owner is started and takes its census.
_UNREAD_S = 15.0
_EVENTS_MAX = 100_000


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


def run_seed(seed: int, *, tell: bool = False) -> Verdict:
    """Run one seed. With `tell`, the verdict has the whole story."""

    async def main(loop: VirtualLoop) -> Verdict:
        world = World(loop, seed, tell=tell)
        loop.set_exception_handler(lambda _, context: _unexpected(world, context))
        with _logged_errors(world):
            await _run(world)
        world.network.closed = True
        return _verdict(world)

    with _seeded_ids(seed):
        verdict: Verdict = run_virtually(main)
    return verdict


async def _run(world: World) -> None:
    broken = world.auditor.broken
    working = world.begin()
    while world.loop.time() < world.scenario.faults_end_s and not broken:
        await pass_time(_STEP_S)
    world.end_faults()
    await _await_end(world, working)
    if not broken:
        broken.extend(await _leftovers(world))
        world.auditor.check_ends()
        _check_subscribers(world)
        others = Counter(world.auditor.executions())
        others.subtract(world.clients.made)
        if min(others.values(), default=0) < 0 or others.total() > world.clients.perhaps_made:
            broken.append(f"{world.clients.made} were asked for, there are more or others")


async def _await_end(world: World, working: asyncio.Task[None]) -> None:
    broken = world.auditor.broken
    deadline_s = world.loop.time() + _RECOVERY_S + world.auditor.suspicion_s()
    counted: set[str] = set()
    unread_since_s: dict[tuple[str, str], float] = {}
    while not broken:
        open_ones = world.auditor.open_executions()
        # What clients begin meanwhile has to be waited for, too.
        deadline_s += sum(_patience_s(world, name) for name in open_ones if name not in counted)
        counted.update(open_ones)
        broken.extend(_long_unread(world, open_ones, unread_since_s))
        if working.done():
            if error := working.exception():
                broken.append(f"a client: {error}")
            if not open_ones:
                return
        elif not open_ones:
            deadline_s = max(deadline_s, world.loop.time() + _RECOVERY_S)
        if world.loop.time() > deadline_s:
            broken.append(f"does not end: {open_ones}")
        await pass_time(_STEP_S)


def _long_unread(
    world: World, open_ones: list[str], since_s: dict[tuple[str, str], float]
) -> Iterator[str]:
    """Notes that nobody takes in, although nothing goes wrong any more."""
    now_s, patience_s = world.loop.time(), _UNREAD_S + world.auditor.suspicion_s()
    for name in open_ones:
        for entry in at_once(world.server.memory.read_inbox(name)):
            if now_s - since_s.setdefault((name, entry.entry_id), now_s) > patience_s:
                yield f"{name}: its note '{entry.entry_id}' stays unread"


def _patience_s(world: World, execution_id: str) -> float:
    """How long an execution may take, if none of its attempts runs beside any other one."""
    total_s = 0.0
    for task in world.auditor.workflow_of(execution_id).tasks:
        retries = task.retry.max_retries if task.retry else 0
        attempt_s = task.input["plan"]["ms"] / 1000 + 2 * GRACE_MS / 1000 + _PLACING_S
        total_s += (retries + 2) * attempt_s
        if task.retry:
            wait_s = task.retry.retry_interval_ms / 1000
            total_s += 1.5 * wait_s * task.retry.backoff**retries * retries
    return total_s


async def _leftovers(world: World) -> list[str]:
    """What is held, owned or waited for although all has ended and time has passed."""
    deadline_s = world.loop.time() + _SETTLE_S
    while (found := list(_held(world))) and world.loop.time() < deadline_s:
        await pass_time(_STEP_S)
    return found


def _held(world: World) -> Iterator[str]:
    slots = world.pool.host._made
    counts = Counter() if slots is None else slots.counts()
    if slots is None or counts["leased"] or counts["requests"]:
        yield f"the pool ends with {counts}"
    memory = world.server.memory
    if at_once(memory.waiting_executions()):
        yield "executions wait for an owner"
    for load in at_once(memory.owners()):
        if load.load or at_once(memory.inboxes_waiting(load.owner)):
            yield f"the store ends with {load}"
    for owner in [owner for owner in world.owners.values() if owner.process.alive]:
        if owner.host.load or not owner.dispatcher.idle():
            yield f"{owner.name} ends with {owner.host.load} executions"
        if any(task is not None and task.done() for task in (owner.keeper, owner.looker)):
            yield f"{owner.name} does not keep its lease or look around any more"
    for subscriber in [one for one in world.subscribers if not one.ended]:
        name, count = subscriber.execution_id, len(subscriber.received)
        yield f"{name}: its subscriber waits behind {count} events"


def _check_subscribers(world: World) -> None:
    """Each has seen the whole log, once and in order."""
    for subscriber in world.subscribers:
        name = subscriber.execution_id
        memory = world.server.memory
        stored = at_once(memory.read_events(name, after=0, limit=_EVENTS_MAX))
        if subscriber.broken:
            world.auditor.broken.append(f"{name}: its subscriber: {subscriber.broken}")
        elif subscriber.received != [event.body for event in stored]:
            world.auditor.broken.append(f"{name}: its subscriber has seen another log")
        world.clients.counts["followed to the end"] += subscriber.ended


def _verdict(world: World) -> Verdict:
    return Verdict(
        world.seed,
        list(world.auditor.broken),
        world.trace(),
        world.faults.landed,
        world.auditor.counts + world.clients.counts,
        world.loop.time(),
        world.story or [],
    )


def _unexpected(world: World, context: dict[str, Any]) -> None:
    """An error that nobody has caught; what ends with the run is none."""
    error = context.get("exception")
    if error is not None and not world.network.closed:
        world.auditor.broken.append(f"unexpected: {context['message']}: {error!r}")


#: What the engine says of faults that are none of its own.
_EXPECTED = ("was succeeded while it did not answer, and ends", "was quarantined")


class _Ear(logging.Handler):
    """Errors that the engine writes into its log are errors."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if not self._world.network.closed and not any(each in message for each in _EXPECTED):
            error = record.exc_info[1] if record.exc_info else ""
            self._world.auditor.broken.append(f"logged: {message} {error!r}")


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
    """Ids are all the luck that the engine draws itself: they come from the seed, too."""
    luck = random.Random(f"{seed}/ids")
    real = uuid.uuid4, secrets.token_hex
    uuid.uuid4 = lambda: uuid.UUID(int=luck.getrandbits(128), version=4)
    secrets.token_hex = lambda count=32: luck.randbytes(count or 32).hex()
    try:
        yield
    finally:
        uuid.uuid4, secrets.token_hex = real
