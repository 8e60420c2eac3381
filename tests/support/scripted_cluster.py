"""Clusters that do what a test tells them, for tests of the pool and of the supervisor."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.orders import QueueKey
from harmonia_actors.runtime.silence import Gone, NotFound, Silent

__all__ = [
    "ScriptedCluster",
    "ScriptedLife",
    "ScriptedOwner",
    "ScriptedOwners",
    "ScriptedPooledActor",
]


class ScriptedLife:
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


class ScriptedPooledActor(ScriptedLife):
    """A task actor as the pool sees it; `start`, `settle`, `cut` and `die` are for the test."""

    def __init__(self, name: str, key: QueueKey) -> None:
        super().__init__()
        self.name = name
        self.key = key
        self.node_id = ""
        self.is_settled = False
        #: What it answers in place of what it should, once it has started.
        self.odd_answer: Any = None
        self.kills = 0
        self.kill_errors: list[Exception] = []
        #: What the next questions whether it has settled end with.
        self.settled_errors: list[Exception] = []

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
        return self.odd_answer or (self.node_id, self.key)

    async def watch(self) -> None:
        await self.wait("")

    async def settled(self) -> None:
        if self.settled_errors:
            raise self.settled_errors.pop(0)
        await self.wait("is_settled")

    async def kill(self) -> None:
        if self.kill_errors:
            raise self.kill_errors.pop(0)
        self.kills += 1
        await self.die()


class ScriptedCluster:
    """What the pool needs of a cluster. Actors start when the test says so."""

    def __init__(self, capacity: Capacity) -> None:
        self.has: Capacity | Exception = capacity
        self.created: dict[str, ScriptedPooledActor] = {}
        self.found: list[tuple[ScriptedPooledActor, bool]] = []
        self.holders: dict[str, ScriptedLife] = {}
        self.recalls: list[tuple[str, int]] = []
        #: What the next creations and the next look at what is left fail with.
        self.create_errors: list[Exception] = []
        self.left_errors: list[Exception] = []
        self._numbers = itertools.count(1)

    def add_holder(self, name: str) -> ScriptedLife:
        return self.holders.setdefault(name, ScriptedLife())

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


class ScriptedOwner(ScriptedLife):
    """An execution actor as its supervisor sees it; `serve` is for the test."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.serves = False
        self.picks = 0
        self.kills = 0
        self.node_is_lost = False
        #: What the question whether its node is lost ends with.
        self.node_error: Exception | None = None
        #: What is called before the process is ended.
        self.before_kill: Callable[[], Awaitable[None]] | None = None

    async def serve(self) -> None:
        async with self._changed:
            self.serves = True
            self._changed.notify_all()

    # The protocol ------------------------------------------------------------------------------

    async def ready(self) -> None:
        await self.wait("serves")

    async def watch(self) -> None:
        await self.wait("")

    def pick_up(self) -> None:
        self.picks += 1

    async def kill(self) -> None:
        if self.before_kill is not None:
            await self.before_kill()
        self.kills += 1
        await self.die()

    async def has_lost_its_node(self) -> bool:
        if self.node_error is not None:
            raise self.node_error
        return self.node_is_lost


class ScriptedOwners:
    """What the supervisor needs of a cluster. Owners serve when the test says so."""

    def __init__(self) -> None:
        self.alive: dict[str, ScriptedOwner] = {}
        self.left_errors: list[Exception] = []
        self.create_errors: list[Exception] = []
        self._numbers = itertools.count(1)

    def add(self) -> ScriptedOwner:
        owner = ScriptedOwner(f"owner-{next(self._numbers)}")
        self.alive[owner.name] = owner
        return owner

    # The protocol ------------------------------------------------------------------------------

    async def left(self) -> Sequence[tuple[str, ScriptedOwner]]:
        if self.left_errors:
            raise self.left_errors.pop(0)
        return list(self.alive.items())

    def create(self) -> tuple[str, ScriptedOwner]:
        if self.create_errors:
            raise self.create_errors.pop(0)
        owner = self.add()
        return owner.name, owner
