"""Harmonia's streams alone: routes, hub and broadcast in one process, over a store in memory.

No Ray, no proxy, no engine. What lies between this and the floor is what the streams themselves
cost; what lies between Harmonia and this are the processes on an event's way.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

import uvicorn

from benchmarks.fanout.floor import HISTORY, answer, body_of
from harmonia_actors.core import events as ev
from harmonia_actors.core.events import encode_event
from harmonia_actors.core.options import ExecutionOptions
from harmonia_actors.core.records import Head, encode_head
from harmonia_actors.core.requests import Principal, StreamEvent
from harmonia_actors.core.statuses import ExecutionStatus
from harmonia_actors.runtime.broadcast import Batch, Broadcast
from harmonia_actors.runtime.event_hub import EventHub
from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from harmonia_serve.gateway import Gateway
from persistence.memory_store import MemoryStore
from persistence.store import Commit, NewExecution

__all__ = ["execution_name", "main"]

_HISTORY_COUNT, _HISTORY_BYTES = 400, 60_000
_OWNER = "owner"


def execution_name(number: int | str) -> str:
    """The id of one of its executions."""
    last = 0xFFFF_FFFF if number == HISTORY else int(number)
    return f"exec-00000000-0000-4000-8000-{last:012x}"


class _Feed:
    """The broadcast, called directly."""

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast

    async def follow(self, execution_ids: Sequence[str]) -> None:
        self._broadcast.follow("reader", execution_ids)

    async def unfollow(self, execution_ids: Sequence[str]) -> None:
        self._broadcast.unfollow("reader", execution_ids)

    async def pull(self, wait_s: float) -> Sequence[Batch]:
        return await self._broadcast.pull("reader", wait_s)


class _Gateway:
    """As much of the gateway as streams need: everybody is let in."""

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub

    async def authenticate(self, _secret: str) -> Principal:
        return Principal("key-1", "benchmark", frozenset({"admin"}))

    async def admit(self, _principal: Principal) -> None:
        """There is no limit."""

    def events(
        self, execution_id: str, *, after: int, part: int
    ) -> AsyncIterator[Sequence[StreamEvent]]:
        return self._hub.events(execution_id, after=after, part=part)


class _Surface:
    """The application, and `/begin` and `/ready` as the floor has them."""

    def __init__(self) -> None:
        self._store = MemoryStore()
        self._broadcast = Broadcast()
        hub = EventHub(self._store, [_Feed(self._broadcast)])
        gateway = cast(Gateway, _Gateway(hub))
        self._app = build_app(gateway, Settings())
        self._published: list[list[float]] = []

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        path = scope["path"]
        if path == "/prepare":
            await self._prepare(int(json.loads(await body_of(receive))["topics"]))
            await answer(send, b"")
        elif path == "/begin":
            order = json.loads(await body_of(receive))
            published = await asyncio.gather(
                *(self._emit(number, order) for number in range(order["topics"]))
            )
            await answer(send, json.dumps(published).encode())
        elif path == "/ready":
            await answer(send, b"")
        else:
            await self._app(scope, cast(Any, receive), cast(Any, send))

    async def _prepare(self, count: int) -> None:
        await self._store.renew_owner(_OWNER, lease_ms=10**9)
        await self._store.put_definition("d", b"{}")
        for number in [*range(count), HISTORY]:
            name = execution_name(number)
            fields = {"head": _head(name, ExecutionStatus.RUNNING)}
            await self._store.create_execution(NewExecution(name, "d", fields), owners_max=1)
        await self._commit(execution_name(HISTORY), 1, 2, _HISTORY_COUNT, _HISTORY_BYTES)

    async def _emit(self, number: int, order: dict[str, Any]) -> list[float]:
        """The floor's rate and count, but committed and published."""
        name, count, per_s = execution_name(number), order["count"], order["per_s"]
        loop = asyncio.get_running_loop()
        begun = loop.time() + order["spread_s"] * number / order["topics"]
        published: list[float] = []
        version = itertools.count(2)
        while len(published) < count:
            first = len(published) + 1
            if per_s:
                await asyncio.sleep(max(0.0, begun + (first - 1) / per_s - loop.time()))
            more = 1 if per_s else count
            published += [time.time_ns() / 1_000] * more
            is_last = len(published) == count
            await self._commit(name, first, next(version), more, order["size"], last=is_last)
        return published

    async def _commit(
        self, name: str, first: int, version: int, count: int, size: int, *, last: bool = False
    ) -> None:
        told: list[ev.Event] = [
            ev.TaskProgress("emit-0", 0.5, f"{first + at}".ljust(size, ".")) for at in range(count)
        ]
        if last:
            told[-1] = ev.ExecutionCancelled("wf-1", "benchmark", 5)
        bodies = [
            encode_event(
                event, seq=first + at, at_ms=time.time_ns() // 1_000_000, execution_id=name
            )
            for at, event in enumerate(told)
        ]
        status = ExecutionStatus.CANCELLED if last else ExecutionStatus.RUNNING
        fields = {"head": _head(name, status)}
        await self._store.commit(
            Commit(name, _OWNER, 1, version, first, fields=fields, events=bodies, release=last)
        )
        self._broadcast.publish([(name, first, bodies)])


def _head(name: str, status: ExecutionStatus) -> bytes:
    return encode_head(
        Head(
            execution_id=name,
            workflow_id="wf-1",
            workflow_name="benchmark",
            total=1,
            options=ExecutionOptions(),
            created_ms=1,
            updated_ms=1,
            status=status,
        )
    )


def main() -> int:
    """Serve on the port that is given, until the process is ended."""
    port = int(sys.argv[1])
    uvicorn.run(
        cast(Any, _Surface()), host="127.0.0.1", port=port, log_level="error", access_log=False
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
