"""Ray behind the runtime's ports: task actors, leases, the broadcaster."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError

from harmonia_actors.actors.names import find_actor
from harmonia_actors.runtime.broadcast import Batch
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder, QueueKey, Report
from harmonia_actors.runtime.ports import TaskActorDied, TaskActorUnreachable, Unplaceable

__all__ = ["ActorRef", "RayLease", "RayLeases", "RaySink", "RayTaskActor"]

_log = logging.getLogger(__name__)

_AGAIN_S = 0.2
_KILL_WAIT_S = 1.0
#: So long a broadcaster that nobody follows is told nothing; then it is asked anew.
_UNWANTED_S = 10.0
#: What a call ends with, or the search for whom to call, while an actor cannot be reached.
_OUT_OF_REACH = (RayError, OSError, ValueError)


@dataclass(frozen=True)
class RayTaskActor:
    """A task actor, as the dispatcher sees it."""

    name: str
    node_id: str
    handle: Any
    owner: str

    async def run(self, orders: Sequence[AttemptOrder]) -> tuple[Sequence[Report], float]:
        """Run a batch."""
        result: tuple[Sequence[Report], float] = await self._call(
            self.handle.run, self.owner, list(orders)
        )
        return result

    async def settled(self, attempts: Sequence[AttemptId]) -> Sequence[Report]:
        """Outcomes of attempts that were adopted."""
        reports: Sequence[Report] = await self._call(self.handle.settled, list(attempts))
        return reports

    async def stop(self, attempt: AttemptId, *, only_waiting: bool) -> bool:
        """Stop an attempt; True if it had not started."""
        return bool(await self._call(self.handle.stop, attempt, only_waiting))

    async def take_back(self) -> Sequence[AttemptId]:
        """Give back what has not started."""
        attempts: Sequence[AttemptId] = await self._call(self.handle.take_back)
        return attempts

    async def kill(self) -> None:
        """End the process: by itself if it still listens, so that it takes its children along."""
        with contextlib.suppress(TaskActorDied, TimeoutError):
            async with asyncio.timeout(_KILL_WAIT_S):
                await self._call(self.handle.end)
        ray.kill(self.handle)

    async def _call(self, method: Any, *arguments: Any) -> Any:
        try:
            return await method.remote(*arguments)
        except ActorUnavailableError as error:
            raise TaskActorUnreachable(f"its task actor is silent: {_first_line(error)}") from error
        except (RayError, OSError) as error:
            # Also an actor that ran out of memory, or whose answer cannot be had: whoever hears of
            # its death ends what may still live of it.
            raise TaskActorDied(f"its task actor died: {_first_line(error)}") from error


@dataclass(frozen=True)
class RayLease:
    """The right to use a task actor."""

    actor: RayTaskActor
    #: The question that it was granted to; "" if a dead owner had it, for whom the pool frees it.
    granted_to: str = ""


class ActorRef:
    """A named actor that may die and come back under its name: the handle is looked up again."""

    def __init__(self, name: str, namespace: str) -> None:
        self._name = name
        self._namespace = namespace
        self._handle: Any = None

    async def get(self) -> Any:
        """The handle. Raises ValueError if there is no such actor now."""
        if self._handle is None:
            # Looking a name up blocks for a call to the head node.
            self._handle = await asyncio.to_thread(find_actor, self._name, self._namespace)
        return self._handle

    def forget(self) -> None:
        """Look it up again next time."""
        self._handle = None


class RayLeases:
    """Leases from the pool actor; patient while it is being restarted."""

    def __init__(self, pool: ActorRef, holder: str, *, again_s: float = _AGAIN_S) -> None:
        """`again_s` is the wait before a pool that cannot be reached is asked or told again."""
        self._pool = pool
        self._holder = holder
        self._again_s = again_s
        self._requests = itertools.count(1)
        self._background: set[asyncio.Task[None]] = set()

    async def acquire(self, key: QueueKey, want: int) -> Sequence[RayLease]:
        """Wait until at least one task actor can be had. Raises Unplaceable."""
        # The answer may be lost, and what it granted must not be: it is the same question then.
        request = str(next(self._requests))
        try:
            return await self._acquire(key, want, request)
        except Unplaceable:
            raise
        except BaseException:
            # He has gone, or the answer cannot be understood: whatever it grants, nobody uses.
            self._tell(lambda pool: pool.withdraw.remote(self._holder, request))
            raise

    async def _acquire(self, key: QueueKey, want: int, request: str) -> Sequence[RayLease]:
        while True:
            try:
                pool = await self._pool.get()
                granted, reason = await pool.acquire.remote(self._holder, key, want, request)
            except _OUT_OF_REACH as error:
                _log.warning("the task pool does not answer: %s", _first_line(error))
                self._pool.forget()
                await asyncio.sleep(self._again_s)
                continue
            if reason:
                raise Unplaceable(reason)
            return [
                RayLease(RayTaskActor(name, node_id, handle, self._holder), request)
                for name, node_id, handle in granted
            ]

    def release(self, leases: Sequence[RayLease]) -> None:
        """Give actors back."""
        given = [(lease.actor.name, lease.granted_to) for lease in leases]
        self._tell(lambda pool: pool.release.remote(self._holder, given))

    def lost(self, lease: RayLease) -> None:
        """The actor has died; the pool watches it, too."""
        self._tell(lambda pool: pool.lost.remote(lease.actor.name))

    def _tell(self, call: Callable[[Any], Any]) -> None:
        task = asyncio.get_running_loop().create_task(self._tell_patiently(call))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _tell_patiently(self, call: Callable[[Any], Any]) -> None:
        # For as long as it takes: what the pool does not hear of, it keeps for us until we die.
        is_told = False
        while True:
            try:
                await call(await self._pool.get())
            except _OUT_OF_REACH as error:
                if not is_told:
                    _log.warning("the task pool has to be told again: %s", _first_line(error))
                is_told = True
                self._pool.forget()
                await asyncio.sleep(self._again_s)
            else:
                return


class RaySink:
    """Tells the broadcaster; at most one call is under way, what comes meanwhile goes together.

    While nobody follows anything it is not told: what came last is kept back, for whoever has begun
    to follow and is not known here yet.
    """

    def __init__(
        self,
        broadcaster: ActorRef,
        *,
        buffered_max: int = 100_000,
        buffered_bytes_max: int = 64_000_000,
        kept_back_max: int = 1_000,
        kept_back_bytes_max: int = 1_000_000,
    ) -> None:
        """The limits are numbers of events, and bytes: of what waits, and of what is kept back."""
        self._broadcaster = broadcaster
        self._buffered_max = buffered_max
        self._buffered_bytes_max = buffered_bytes_max
        self._kept_back_max = kept_back_max
        self._kept_back_bytes_max = kept_back_bytes_max
        self._batches: deque[Batch] = deque()
        self._buffered = self._buffered_bytes = 0
        #: Nobody follows anything, as far as is known.
        self._is_unwanted = False
        #: Events of which the broadcaster has only to know that there were any.
        self._untold = 0
        self._sending: asyncio.Task[None] | None = None

    def publish(self, execution_id: str, first_seq: int, bodies: Sequence[bytes]) -> None:
        """Committed events of one execution. Dropped if the broadcaster is away for long."""
        size = sum(map(len, bodies))
        if not self._is_unwanted and (
            self._buffered + len(bodies) > self._buffered_max
            or self._buffered_bytes + size > self._buffered_bytes_max
        ):
            return
        self._batches.append((execution_id, first_seq, list(bodies)))
        self._buffered += len(bodies)
        self._buffered_bytes += size
        if self._is_unwanted:
            self._keep_newest()
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send())

    def _keep_newest(self) -> None:
        while self._batches and (
            self._buffered > self._kept_back_max or self._buffered_bytes > self._kept_back_bytes_max
        ):
            _, _, bodies = self._batches.popleft()
            self._buffered -= len(bodies)
            self._buffered_bytes -= sum(map(len, bodies))
            self._untold += len(bodies)

    async def _send(self) -> None:
        while self._batches:
            batches, self._batches = list(self._batches), deque()
            self._buffered = self._buffered_bytes = 0
            untold, self._untold = self._untold, 0
            try:
                broadcaster = await self._broadcaster.get()
                if not await broadcaster.publish.remote(batches, untold):
                    self._is_unwanted = True
                    await broadcaster.wanted.remote(_UNWANTED_S)
            except _OUT_OF_REACH as error:
                # Subscribers will find what was lost in the log.
                _log.warning("the broadcaster does not answer: %s", _first_line(error))
                self._broadcaster.forget()
                await asyncio.sleep(_AGAIN_S)
            finally:
                self._is_unwanted = False


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
