"""Puts Harmonia onto a Ray cluster and takes it off again.

Called by a driver that is connected to Ray. Only this installation's own actors are ever touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError

from harmonia_actors.actors.broadcaster import Broadcaster
from harmonia_actors.actors.names import (
    broadcaster_name,
    find_actor,
    list_actors,
    pool_name,
    supervisor_name,
)
from harmonia_actors.actors.pool import TaskPool
from harmonia_actors.actors.store_parts import connect_store
from harmonia_actors.actors.supervisor import Supervisor
from harmonia_actors.runtime.clock import SystemClock
from harmonia_actors.runtime.readiness import (
    Awaited,
    Waiting,
    awaited,
    end_all,
    wait_until_ready,
)
from harmonia_actors.runtime.service.keys import make_first_key
from harmonia_actors.settings import Settings

__all__ = ["ensure_first_key", "install", "uninstall"]

_READY_S = 120.0
_ANSWER_S = 5.0
_END_S = 30.0
_END_LOOK_S = 0.1


def install(settings: Settings, *, progress: Callable[[str], None]) -> None:
    """Start the actors, or find those that are there; returns when they serve."""
    namespace = settings.namespace
    common: dict[str, Any] = {
        "namespace": namespace,
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": 0,
        "max_restarts": -1,
        "max_concurrency": 10_000,
        "enable_task_events": False,
    }
    progress("task pool, broadcasters and supervisor")
    pool = TaskPool.options(name=pool_name(namespace), **common).remote(settings)  # type: ignore[attr-defined]
    broadcasters = [
        Broadcaster.options(  # type: ignore[attr-defined]
            name=broadcaster_name(namespace, shard), **common
        ).remote(settings.log_level)
        for shard in range(settings.broadcasters)
    ]
    supervisor = Supervisor.options(name=supervisor_name(namespace), **common).remote(settings)  # type: ignore[attr-defined]
    calls = [actor.ready.remote() for actor in (pool, *broadcasters, supervisor)]
    wait_until_ready(
        lambda within_s: _are_done(calls, within_s),
        lambda: _look_at(pool),
        Waiting(_READY_S, settings.up_nodes_s_max),
        progress,
    )
    progress("ready")


def _are_done(calls: list[ray.ObjectRef[Any]], within_s: float) -> bool:
    """Whether all calls have returned. Raises what one has raised."""
    done, waiting = ray.wait(calls, num_returns=len(calls), timeout=within_s)
    ray.get(done)
    return not waiting


def _look_at(pool: Any) -> Awaited | None:
    try:
        asked = [pool.capacity.remote(), pool.counts.remote()]
        capacity, counts = ray.get(asked, timeout=_ANSWER_S)
    except RayError:
        return None
    return awaited(capacity, counts["starting"])


def uninstall(namespace: str) -> None:
    """End this installation's actors, those that make others first. Raises TimeoutError."""

    def end(name: str) -> None:
        with contextlib.suppress(ValueError, RayError):
            ray.kill(find_actor(name, namespace))

    end_all(
        lambda: list_actors(namespace),
        end,
        {supervisor_name(namespace), pool_name(namespace)},
        end_s_max=_END_S,
        pause=lambda: time.sleep(_END_LOOK_S),
    )


def ensure_first_key(settings: Settings, *, anew: bool = False) -> str | None:
    """Make an admin key if there is none at all, or `anew`; returns it, this once, else None."""

    async def ensure() -> str | None:
        store = connect_store(settings)
        try:
            return await make_first_key(store, SystemClock().now_ms(), anew=anew)
        finally:
            await store.close()

    return asyncio.run(ensure())
