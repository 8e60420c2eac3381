"""The two task actors: one runs `def` actions one at a time, the other `async` ones together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psutil
import ray

from harmonia_actors.actors import parts
from harmonia_actors.actors.names import find_actor
from harmonia_actors.actors.outcomes import OutcomeKeeper
from harmonia_actors.actors.stale import StaleTeller
from harmonia_actors.core.resources import ResourceRequest
from harmonia_actors.runtime.attempt_runner import AttemptRunner
from harmonia_actors.runtime.clock import SystemClock
from harmonia_actors.runtime.logs import log_to_stderr
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder, Found, QueueKey, Report
from harmonia_actors.runtime.shared_task_host import SharedTaskHost
from harmonia_actors.runtime.task_host import TaskHost
from harmonia_actors.settings import Settings

__all__ = ["SharedTaskActor", "TaskActor", "create_task_actor"]


_PRELOAD_AFTER_S = 10.0
#: Calls that the actor for async actions takes at a time: more than can come. What runs is bounded
#: inside; no call may have to wait for others to end, least of all one that stops them.
_CALLS_MAX = 1_000_000
_CONTROL_CALLS_MAX = 10_000
#: Time that the loop of async actions has to tell them of the end; one of them may block it.
_TELL_S = 0.5

_T = TypeVar("_T")


class _Mailbox:
    """Tells reports to execution actors by name; handles are looked up once."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._handles: dict[str, Any] = {}

    def send(self, owner: str, reports: Sequence[Report]) -> None:
        handle = self._handles.get(owner)
        if handle is None:
            handle = self._handles[owner] = find_actor(owner, self._namespace)
            while len(self._handles) > 1_000:
                self._handles.pop(next(iter(self._handles)))
        handle.reported.remote(list(reports))


def _make_runner(settings: Settings, node_id: str) -> AttemptRunner:
    return AttemptRunner(
        registry=parts.make_registry(settings),
        blobs=parts.make_blobs(settings),
        clock=SystemClock(),
        limits=parts.ordering_limits(settings),
        workspace_of=parts.make_files(settings, node_id).workspace,
        schemas=parts.make_schema_checks(settings),
    )


def _end_process() -> None:
    """End this process and all children of it, at once: an action did not stop when told."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    os._exit(1)


@ray.remote(concurrency_groups={"run": 1, "control": 2, "watch": 1})  # type: ignore[call-overload]
class TaskActor:
    """Runs `def` actions, one at a time; control calls have threads of their own."""

    def __init__(self, name: str, key: QueueKey, settings: Settings) -> None:
        log_to_stderr(settings.log_level)
        self._name = name
        self._key = key
        self._node_id = ray.get_runtime_context().get_node_id()
        mailbox = _Mailbox(settings.namespace)
        runner = _make_runner(settings, self._node_id)
        # What is slow to import is needed by plain actions, not by those that only wait. It is
        # loaded beside the first attempts, and not while everything else is starting.
        preload = threading.Timer(_PRELOAD_AFTER_S, runner.registry.preload)
        preload.daemon = True
        preload.start()
        keep = OutcomeKeeper(lambda: parts.connect_store(settings), settings.stretch_store_ms)
        limits = parts.task_host_limits(settings)
        stale = StaleTeller(settings.namespace)
        self._host = TaskHost(runner, limits, mailbox.send, keep=keep, note_stale=stale)

    @ray.method(concurrency_group="control")
    def ready(self) -> tuple[str, QueueKey]:
        """The node this actor runs on, and the class of attempts it serves."""
        return self._node_id, self._key

    @ray.method(concurrency_group="watch")
    def watch(self) -> None:
        """Never returns: whoever waits for it learns of this actor's death at once."""
        threading.Event().wait()

    @ray.method(concurrency_group="run")
    def run(self, owner: str, orders: Sequence[AttemptOrder]) -> tuple[list[Report], float]:
        """Run a batch."""
        return self._host.run(owner, orders)

    @ray.method(concurrency_group="run")
    def settled(self, attempts: Sequence[AttemptId]) -> list[Report]:
        """Outcomes of attempts, once all earlier batches have ended."""
        return self._host.settled(attempts)

    @ray.method(concurrency_group="control")
    def stop(self, attempt: AttemptId, only_waiting: bool) -> bool:
        """Stop an attempt; True if it had not started."""
        return self._host.stop(attempt, only_waiting=only_waiting)

    @ray.method(concurrency_group="control")
    def take_back(self) -> list[AttemptId]:
        """Give back what has not started."""
        return self._host.take_back()

    @ray.method(concurrency_group="control")
    def census(self, asked: Sequence[tuple[str, int]], owner: str) -> Found:
        """What runs of executions, and what has ended lately; for their new owner."""
        return self._host.census_of_all(asked, owner)

    @ray.method(concurrency_group="control")
    def end(self) -> None:
        """End the process, with the children of its actions."""
        self._host.cancel_all()
        _end_process()


@ray.remote(concurrency_groups={"control": _CONTROL_CALLS_MAX})  # type: ignore[call-overload]
class SharedTaskActor:
    """Runs `async` actions side by side.

    Control calls have a loop and a thread of their own, which Ray makes for each group; the host
    lives on the loop of all others.
    """

    def __init__(self, name: str, key: QueueKey, settings: Settings) -> None:
        log_to_stderr(settings.log_level)
        self._name = name
        self._key = key
        self._settings = settings
        self._node_id = ray.get_runtime_context().get_node_id()
        self._runner = _make_runner(settings, self._node_id)
        self._mailbox = _Mailbox(settings.namespace)
        self._made: SharedTaskHost | None = None
        self._is_made = threading.Event()

    @property
    def _host(self) -> SharedTaskHost:
        # Made on the first call: only then is there a running loop.
        if self._made is None:
            limits = parts.task_host_limits(self._settings)
            stale = StaleTeller(self._settings.namespace)
            self._made = SharedTaskHost(self._runner, limits, self._mailbox.send, note_stale=stale)
            self._is_made.set()
        return self._made

    async def _asked(self, question: Callable[[SharedTaskHost], _T]) -> _T:
        """What the host answers, from the control group."""
        if self._made is None:
            # Whoever has started this actor calls `ready` at once.
            await asyncio.to_thread(self._is_made.wait)
        assert self._made is not None  # noqa: S101 - that is what was waited for
        return await self._made.asked(question)

    async def ready(self) -> tuple[str, QueueKey]:
        """The node this actor runs on, and the class of attempts it serves."""
        _ = self._host
        return self._node_id, self._key

    async def watch(self) -> None:
        """Never returns: whoever waits for it learns of this actor's death at once."""
        await asyncio.Event().wait()

    async def run(self, owner: str, orders: Sequence[AttemptOrder]) -> tuple[list[Report], float]:
        """Run a batch."""
        return await self._host.run(owner, orders)

    async def settled(self, attempts: Sequence[AttemptId]) -> list[Report]:
        """Outcomes of attempts, once they have ended."""
        return await self._host.settled(attempts)

    @ray.method(concurrency_group="control")
    async def stop(self, attempt: AttemptId, only_waiting: bool) -> bool:
        """Stop an attempt; True if it had not started."""
        return await self._asked(lambda host: host.stop(attempt, only_waiting=only_waiting))

    @ray.method(concurrency_group="control")
    async def take_back(self) -> list[AttemptId]:
        """Give back what has not started."""
        return await self._asked(lambda host: host.take_back())

    @ray.method(concurrency_group="control")
    async def census(self, asked: Sequence[tuple[str, int]], owner: str) -> Found:
        """What runs of executions, and what has ended lately; for their new owner."""
        return await self._asked(lambda host: host.census_of_all(asked, owner))

    @ray.method(concurrency_group="control")
    async def end(self) -> None:
        """End the process, with the children of its actions; also if one blocks the loop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TELL_S):
                await self._asked(lambda host: host.cancel_all())
        _end_process()


def create_task_actor(name: str, key: QueueKey, settings: Settings) -> Any:
    """Start a detached task actor for a class of attempts and return its handle."""
    options: dict[str, Any] = {
        "name": name,
        "namespace": settings.namespace,
        "lifetime": "detached",
        "max_restarts": 0,
        "enable_task_events": False,
        **key.resources.options(),
    }
    if key.node_id:
        options["label_selector"] = {"ray.io/node-id": key.node_id}
    kind: Any = TaskActor
    if key.shared:
        kind = SharedTaskActor
        options["max_concurrency"] = _CALLS_MAX
        if key.resources == ResourceRequest.DEFAULT:
            # Waiting takes no CPU: async actions without a wish of their own reserve none.
            options["num_cpus"] = 0
    return kind.options(**options).remote(name, key, settings)
