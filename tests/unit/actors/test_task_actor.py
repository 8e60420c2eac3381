"""Both task actors take the calls that the dispatcher, the census and the pool make of them.

Calls of actors are not type-checked: a handle takes any name and any arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from harmonia_actors.actors.pool import RayPooledActor
from harmonia_actors.actors.ray_ports import RayTaskActor
from harmonia_actors.actors.recovery import RayAskedActor
from harmonia_actors.actors.task_actor import SharedTaskActor, TaskActor
from harmonia_actors.runtime.orders import Found

FOUND: Found = {"e": ([("e", 1, 1)], [])}


class Host:
    """Answers a census."""

    def __init__(self) -> None:
        self.asked: list[tuple[Sequence[tuple[str, int]], str]] = []

    def census_of_all(self, asked: Sequence[tuple[str, int]], owner: str) -> Found:
        self.asked.append((asked, owner))
        return FOUND


class Handle:
    """Holds each call against the methods of an actor's class, as Ray does."""

    def __init__(self, actor: Any) -> None:
        self._class = actor.__ray_metadata__.modified_class
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = inspect.signature(getattr(self._class, name))

        async def remote(*arguments: Any) -> tuple[str, str]:
            method.bind(self, *arguments)
            self.called.append(name)
            return "node", "key"

        return SimpleNamespace(remote=remote)


@pytest.mark.parametrize("kind", [TaskActor, SharedTaskActor])
async def test_every_call_fits_a_method(kind: Any) -> None:
    handle = Handle(kind)
    as_dispatcher = RayTaskActor("task-1", "node", handle, "me")
    await as_dispatcher.run([])
    await as_dispatcher.settled([])
    await as_dispatcher.stop(("e", 1, 1), only_waiting=True)
    await as_dispatcher.take_back()
    await handle.end.remote()
    await RayAskedActor("task-1", "node", handle).census([("e", 2)], "heir")
    as_pool = RayPooledActor(handle)
    await as_pool.ready()
    await as_pool.settled()
    await as_pool.watch()
    assert {"run", "settled", "stop", "take_back", "end", "census", "ready", "watch"} == set(
        handle.called
    )


async def test_both_tell_of_many_executions_at_once() -> None:
    host = Host()

    async def asked(question: Callable[[Host], Found]) -> Found:
        return question(host)

    one = TaskActor.__ray_metadata__.modified_class
    other = SharedTaskActor.__ray_metadata__.modified_class
    assert one.census(SimpleNamespace(_host=host), [("e", 2)], "heir") == FOUND
    assert await other.census(SimpleNamespace(_asked=asked), [("e", 2)], "heir") == FOUND
    assert host.asked == [([("e", 2)], "heir")] * 2
