"""A cluster that does what a test tells it, for tests of the pool of task actors."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.orders import QueueKey
from harmonia_actors.runtime.silence import Gone, NotFound, Silent

__all__ = ["ScriptedCluster", "ScriptedPooledActor"]


class _Life:
    """Something that is alive until the test ends it, and may be out of reach."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self._changed = asyncio.Condition()
        self._is_dead = False

    async def cut(self, *errors: Exception) -> None:
        """Calls under way and the next ones fail, one error each; then it answers again."""
        async with self._changed:
            self.errors += errors
            self._changed.notify_all()

    async def die(self) -> None:
        async with self._changed:
            self._is_dead = True
            self._changed.notify_all()

    async def wait(self, for_what: str) -> None:
        async with self._changed:
            while True:
                if self.errors:
                    raise self.errors.pop(0)
                if self._is_dead:
                    raise Gone("it was killed")
                if for_what and getattr(self, for_what):
                    return
                await self._changed.wait()


class ScriptedPooledActor(_Life):
    """A task actor as the pool sees it; `start`, `settle`, `cut` and `die` are for the test."""

    def __init__(self, name: str, key: QueueKey) -> None:
        super().__init__()
        self.name = name
        self.key = key
        self.node_id = ""
        self.is_settled = False
        self.kills = 0

    async def start(self, node_id: str = "a") -> None:
        async with self._changed:
            self.node_id = node_id
            self._changed.notify_all()

    async def settle(self) -> None:
        async with self._changed:
            self.is_settled = True
            self._changed.notify_all()

    # The protocol ------------------------------------------------------------------------------

    @property
    def handle(self) -> str:
        return f"handle of {self.name}"

    async def ready(self) -> tuple[str, QueueKey]:
        await self.wait("node_id")
        return self.node_id, self.key

    async def watch(self) -> None:
        await self.wait("")

    async def settled(self) -> None:
        await self.wait("is_settled")

    async def kill(self) -> None:
        self.kills += 1
        await self.die()


class ScriptedCluster:
    """What the pool needs of a cluster. Actors start when the test says so."""

    def __init__(self, capacity: Capacity) -> None:
        self.has: Capacity | Exception = capacity
        self.created: dict[str, ScriptedPooledActor] = {}
        self.found: list[tuple[ScriptedPooledActor, bool]] = []
        self.holders: dict[str, _Life] = {}
        self.recalls: list[tuple[str, int]] = []
        #: What the next creations and the next look at what is left fail with.
        self.create_errors: list[Exception] = []
        self.left_errors: list[Exception] = []
        self._numbers = itertools.count(1)

    def add_holder(self, name: str) -> _Life:
        return self.holders.setdefault(name, _Life())

    def add_left(
        self, name: str, key: QueueKey | None = None, *, started: bool = True
    ) -> ScriptedPooledActor:
        actor = ScriptedPooledActor(name, key or QueueKey())
        self.found.append((actor, started))
        return actor

    # The protocol ------------------------------------------------------------------------------

    def new_name(self) -> str:
        return f"task-{next(self._numbers)}"

    def create(self, name: str, key: QueueKey) -> ScriptedPooledActor:
        if self.create_errors:
            raise self.create_errors.pop(0)
        actor = self.created[name] = ScriptedPooledActor(name, key)
        return actor

    async def left(self) -> Sequence[tuple[str, ScriptedPooledActor, bool]]:
        if self.left_errors:
            raise self.left_errors.pop(0)
        return [(actor.name, actor, started) for actor, started in self.found]

    async def capacity(self) -> Capacity:
        if isinstance(self.has, Exception):
            raise self.has
        return self.has

    async def watch_holder(self, holder: str) -> None:
        if holder not in self.holders:
            raise NotFound(holder)
        await self.holders[holder].wait("")

    async def recall(self, holder: str, key: QueueKey, count: int) -> None:
        if holder not in self.holders:
            raise Silent(holder)
        self.recalls.append((holder, count))
