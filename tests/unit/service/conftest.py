"""A whole installation in this process, over a store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.components.contract import Component
from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import ValidationFailed
from harmonia_actors.settings import Settings
from persistence.memory_store import MemoryStore
from tests.support.gates import Gates
from tests.support.local import LocalInstallation
from tests.support.scripted_actors import settle, until


class World:
    """The gateway, and short ways to what most tests need."""

    def __init__(self, installation: LocalInstallation, gates: Gates) -> None:
        self.installation = installation
        self.gateway = installation.gateway
        self.store = installation.store
        self.gates = gates

    def definition(self, tasks: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """A workflow of echoing tasks, unless they say otherwise."""
        tasks = {"a": {}} if tasks is None else tasks
        written = {
            name: {"component": "gates", "action": "echo", **task} for name, task in tasks.items()
        }
        return {"name": "w", "tasks": written, **fields}

    async def workflow(self, tasks: dict[str, Any] | None = None, **fields: Any) -> str:
        made = await self.gateway.create_workflow(self.definition(tasks, **fields))
        return str(made["workflow_id"])

    async def start(
        self,
        tasks: dict[str, Any] | None = None,
        given: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        **fields: Any,
    ) -> str:
        workflow_id = await self.workflow(tasks, **fields)
        reply = await self.gateway.execute(workflow_id, given or {}, options or {})
        return str(reply.document["execution_id"])

    async def ended(self, execution_id: str) -> dict[str, Any]:
        """The status document, once the execution has ended; its history must be right."""
        async for _ in self.gateway.events(execution_id, after=0):
            pass
        audit = await self.gateway.audit_execution(execution_id)
        assert (audit["complete"], audit["violations"]) == (True, [])
        return await self.gateway.get_execution(execution_id, outputs=True)

    async def run(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        return await self.ended(await self.start(*arguments, **options))

    async def began(self, execution_id: str, *names: str) -> None:
        """These tasks have begun, and that is written, with all that came before it."""
        await until(
            lambda: {f"{execution_id}/{name}" for name in names} <= {n for n, _ in self.gates.began}
        )
        while not set(names) <= await self._told_to_begin(execution_id):
            await settle()

    async def _told_to_begin(self, execution_id: str) -> set[str]:
        events = await self.events(execution_id)
        return {each["data"]["task_name"] for each in events if each["type"] == "task_started"}

    async def events(self, execution_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while stored := await self.store.read_events(execution_id, after=len(found), limit=1_000):
            found += [jsontext.decode(event.body) for event in stored]
        return found


MakeWorld = Callable[..., Any]


@pytest.fixture
async def make_world(tmp_path: Path) -> AsyncIterator[MakeWorld]:
    """Makes an installation with the given settings."""
    async with AsyncExitStack() as stack:

        async def make(
            store: MemoryStore | None = None, components: Sequence[Component] = (), **settings: Any
        ) -> World:
            gates = Gates()
            installation = LocalInstallation(
                store or MemoryStore(),
                tmp_path,
                workers=3,
                components=[gates.component, *components],
                settings=Settings(**settings),
            )
            await stack.enter_async_context(installation)
            stack.callback(lambda: gates.open(*{name.partition("/")[2] for name, _ in gates.began}))
            return World(installation, gates)

        yield make


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    made: World = await make_world()
    return made


def problems(failed: pytest.ExceptionInfo[ValidationFailed]) -> dict[str, str]:
    """Messages by field."""
    return {error["field"]: error["message"] for error in failed.value.details["errors"]}
