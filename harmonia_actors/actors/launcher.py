"""From a Serve replica to execution actors, the pool, the broadcaster and workspaces.

Calls are sent from a context of their own: Ray cancels what a request has submitted when its client
hangs up, and an execution that was accepted must not be cancelled by that.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from harmonia_actors.actors import parts
from harmonia_actors.actors.names import broadcaster_name, pool_name, supervisor_name
from harmonia_actors.actors.node_files import call_on_node, node_at
from harmonia_actors.actors.ray_ports import ActorRef
from harmonia_actors.core.errors import ResourceNotFound, ServiceUnavailable
from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.broadcast import Batch, UnknownReader
from harmonia_actors.runtime.ending import Ending
from harmonia_actors.runtime.feeds import FeedGone
from harmonia_actors.runtime.files import FileInfo
from harmonia_actors.runtime.service.gateway import FilePlace
from harmonia_actors.runtime.start_lines import Ended, LineCut, News, Start, StartLine
from harmonia_actors.settings import Settings

__all__ = ["RayEventFeed", "RayFileReader", "RayLauncher"]

_OWNERS_KEPT = 1_000
_CAPACITY_S = 2.0
_CALL_S = 5.0


class RayLauncher:
    """Speaks to execution actors by name; handles are looked up once."""

    def __init__(self, settings: Settings) -> None:
        namespace = settings.namespace
        self._namespace = namespace
        self._replica = secrets.token_hex(8)
        self._owners: OrderedDict[str, StartLine] = OrderedDict()
        self._pool = ActorRef(pool_name(namespace), namespace)
        self._supervisor = ActorRef(supervisor_name(namespace), namespace)
        self._broadcasters = [
            ActorRef(broadcaster_name(namespace, shard), namespace)
            for shard in range(settings.broadcasters)
        ]
        self._capacity: tuple[float, Capacity] | None = None
        self._background: set[asyncio.Task[None]] = set()

    async def start(
        self, owner: str, execution_id: str, definition: str, fields: Mapping[str, bytes]
    ) -> None:
        """Tell an owner of a new execution.

        If the owner is dead, that is noticed, and whoever is alive gets the execution.
        """
        self._owner(owner).start(Start(execution_id, definition, dict(fields)))

    async def wanted(self) -> None:
        """Another execution actor may be needed."""
        self._send(self._tell(self._supervisor, lambda actor: actor.wanted.remote()))

    async def nudge(self, owner: str, execution_id: str) -> None:
        """Something lies in an inbox."""
        self._owner(owner).nudge(execution_id)

    async def wait_ended(self, owner: str, execution_id: str) -> Ending | None:
        """Return when an execution has ended there, or is not there; how, if that is known."""
        return await self._owner(owner).wait_ended(execution_id)

    async def capacity(self) -> Capacity:
        """What the cluster has and may add, at most two seconds old."""
        now_s = time.monotonic()
        if self._capacity is None or now_s - self._capacity[0] > _CAPACITY_S:
            try:
                pool = await self._pool.get()
                async with asyncio.timeout(_CALL_S):
                    self._capacity = (now_s, await pool.capacity.remote())
            except (RayError, ValueError, TimeoutError) as error:
                self._pool.forget()
                raise ServiceUnavailable(
                    "the cluster's capacity cannot be read; try again"
                ) from error
        return self._capacity[1]

    async def counts(self) -> dict[str, float]:
        """Sizes of the pools, and of all broadcasters together; what is silent is left out.

        And what came from those who were succeeded, which the supervisor adds up for all.
        """
        asked = [
            ("task_actors", self._pool),
            ("execution_actors", self._supervisor),
            *(("broadcaster", reference) for reference in self._broadcasters),
        ]
        answers = await asyncio.gather(*(self._counts_of(reference) for _, reference in asked))
        found: Counter[str] = Counter()
        for (prefix, _), counts in zip(asked, answers, strict=True):
            found.update(
                {
                    name if name.startswith("stale_") else f"{prefix}_{name}": value
                    for name, value in counts.items()
                }
            )
        return dict(found)

    # -------------------------------------------------------------------------------------------

    async def _counts_of(self, reference: ActorRef) -> Mapping[str, int]:
        """Empty if it does not answer."""
        with contextlib.suppress(RayError, ValueError, TimeoutError):
            async with asyncio.timeout(_CALL_S):
                counts: Mapping[str, int] = await (await reference.get()).counts.remote()
                return counts
        return {}

    def _owner(self, name: str) -> StartLine:
        known = self._owners.get(name)
        if known is None:
            known = self._owners[name] = self._line_to(ActorRef(name, self._namespace))
        self._owners.move_to_end(name)
        while len(self._owners) > _OWNERS_KEPT and next(iter(self._owners.values())).is_idle:
            self._owners.popitem(last=False)
        return known

    def _line_to(self, owner: ActorRef) -> StartLine:
        async def exchange(news: News) -> Sequence[Ended]:
            try:
                actor = await owner.get()
                ended: Sequence[Ended] = await actor.exchange.remote(self._replica, news)
            except (RayError, OSError, ValueError) as error:
                owner.forget()
                raise LineCut(str(error)) from error
            return ended

        return StartLine(exchange)

    async def _tell(self, reference: ActorRef, call: Callable[[Any], Any]) -> None:
        try:
            await call(await reference.get())
        except (RayError, ValueError):
            reference.forget()

    def _send(self, coroutine: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(coroutine, context=contextvars.Context())
        self._background.add(task)
        task.add_done_callback(self._background.discard)


class RayEventFeed:
    """One broadcaster, as an event hub sees it. Each hub is one reader of each."""

    def __init__(self, settings: Settings, shard: int) -> None:
        namespace = settings.namespace
        self._broadcaster = ActorRef(broadcaster_name(namespace, shard), namespace)
        self._reader = secrets.token_hex(8)

    async def follow(self, execution_ids: Sequence[str]) -> None:
        """Send these executions' events from now on."""
        await self._call(lambda actor: actor.follow.remote(self._reader, list(execution_ids)))

    async def unfollow(self, execution_ids: Sequence[str]) -> None:
        """Do not send these any more."""
        await self._call(lambda actor: actor.unfollow.remote(self._reader, list(execution_ids)))

    async def pull(self, wait_s: float) -> Sequence[Batch]:
        """What has come. Raises UnknownReader if the broadcaster was restarted."""
        batches: Sequence[Batch] | None = await self._call(
            lambda actor: actor.pull.remote(self._reader, wait_s)
        )
        if batches is None:
            raise UnknownReader(self._reader)
        return batches

    async def _call(self, call: Callable[[Any], Any]) -> Any:
        try:
            return await call(await self._broadcaster.get())
        except (RayError, ValueError) as error:
            self._broadcaster.forget()
            raise FeedGone(str(error).splitlines()[0]) from error


class RayFileReader:
    """Workspaces on whichever node they are."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._here = ray.get_runtime_context().get_node_id()
        self._files = parts.make_files(settings, self._here)

    async def list_files(self, place: FilePlace) -> tuple[Sequence[FileInfo], bool]:
        """All files of an execution, and whether there are more than are listed."""
        found: tuple[Sequence[FileInfo], bool] = await self._call(place, "list_files")
        return found

    async def describe(self, place: FilePlace, path: str) -> FileInfo:
        """One file. Raises ResourceNotFound."""
        found: FileInfo = await self._call(place, "describe", path)
        return found

    async def read(self, place: FilePlace, path: str, offset: int, size: int) -> bytes:
        """A part of a file."""
        found: bytes = await self._call(place, "read", path, offset, size)
        return found

    async def _call(self, place: FilePlace, method: str, *more: Any) -> Any:
        arguments = (place.execution_id, place.files_from, *more)
        try:
            node_id = "" if self._settings.workspace_shared else await node_at(place.node)
            if node_id in ("", self._here):
                return await asyncio.to_thread(getattr(self._files, method), *arguments)
            return await call_on_node(self._settings, node_id, method, arguments)
        except RayError as error:
            raise ResourceNotFound(
                "the node that holds the execution's workspace cannot be reached",
                {"node": place.node},
            ) from error
