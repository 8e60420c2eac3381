"""The two task actors: one runs `def` actions one at a time, the other `async` ones together.

The pool imports this too, to start them, so what they are made of is loaded in their constructors:
see `task_parts`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import ray

from harmonia_actors.core.resources import ResourceRequest
from harmonia_actors.runtime.logs import log_to_stderr
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder, Found, QueueKey, Report
from harmonia_actors.settings import Settings

if TYPE_CHECKING:
    from harmonia_actors.runtime.shared_task_host import SharedTaskHost

__all__ = ["SharedTaskActor", "TaskActor", "create_task_actor"]


_PRELOAD_AFTER_S = 10.0
#: Calls that the actor for async actions takes at a time: more than can come. What runs is bounded
#: inside; no call may have to wait for others to end, least of all one that stops them.
_CALLS_MAX = 1_000_000
_CONTROL_CALLS_MAX = 10_000
#: Time that the loop of async actions has to tell them of the end; one of them may block it.
_TELL_S = 0.5

_T = TypeVar("_T")


@ray.remote(concurrency_groups={"run": 1, "control": 2, "watch": 1})  # type: ignore[call-overload]
class TaskActor:
    """Runs `def` actions, one at a time; control calls have threads of their own."""

    def __init__(self, name: str, key: QueueKey, settings: Settings) -> None:
        from harmonia_actors.actors.task_parts import make_runner, make_task_host

        log_to_stderr(settings.log_level)
        self._name = name
        self._key = key
        self._node_id = ray.get_runtime_context().get_node_id()
        runner = make_runner(settings, self._node_id)
        # What is slow to import is needed by plain actions, not by those that only wait. It is
        # loaded beside the first attempts, and not while everything else is starting.
        preload = threading.Timer(_PRELOAD_AFTER_S, runner.registry.preload)
        preload.daemon = True
        preload.start()
        self._host = make_task_host(runner, settings)

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
        from harmonia_actors.actors.task_parts import end_process

        self._host.cancel_all()
        end_process()


@ray.remote(concurrency_groups={"control": _CONTROL_CALLS_MAX})  # type: ignore[call-overload]
class SharedTaskActor:
    """Runs `async` actions side by side.

    Control calls have a loop and a thread of their own, which Ray makes for each group; the host
    lives on the loop of all others.
    """

    def __init__(self, name: str, key: QueueKey, settings: Settings) -> None:
        from harmonia_actors.actors.task_parts import make_runner, make_shared_task_host

        log_to_stderr(settings.log_level)
        self._name = name
        self._key = key
        self._node_id = ray.get_runtime_context().get_node_id()
        runner = make_runner(settings, self._node_id)
        self._make_host = partial(make_shared_task_host, runner, settings)
        self._made: SharedTaskHost | None = None
        self._is_made = threading.Event()

    @property
    def _host(self) -> SharedTaskHost:
        # Made on the first call: only then is there a running loop.
        if self._made is None:
            self._made = self._make_host()
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
        from harmonia_actors.actors.task_parts import end_process

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TELL_S):
                await self._asked(lambda host: host.cancel_all())
        end_process()


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
