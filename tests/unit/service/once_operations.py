"""Every request that can carry an idempotency key, and a store whose replies get lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from harmonia_actors.core.requests import ExecutionReply, Once, PageRequest
from harmonia_actors.runtime.service.gateway import InstallationGateway
from persistence.errors import StoreUnavailable
from persistence.memory_store import MemoryStore
from tests.unit.service.conftest import MakeWorld, World

__all__ = [
    "ALL",
    "ECHO",
    "NAMES",
    "ONCE",
    "UNCERTAIN",
    "Operation",
    "UncertainStore",
    "at_rest",
    "counts",
    "grown",
    "operations",
    "uncertain",
]

ALL = PageRequest(page=1, limit=100)
ONCE = Once("caller", "monthly-2025-01")
ECHO = {"a": {"input": {"value": "${workflow.input.x ?? 0}"}}}


class UncertainStore(MemoryStore):
    """A store whose replies get lost when told so, and that lets others go first at random."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        #: Calls that are carried out, and whose next reply does not arrive.
        self.lost: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in UNCERTAIN:
            return found

        async def call(*given: Any, **named: Any) -> Any:
            for _ in range(self.rng.randrange(4)):
                await asyncio.sleep(0)
            answer = await found(*given, **named)
            if name in self.lost:
                self.lost.remove(name)
                raise StoreUnavailable("the reply was lost")
            return answer

        return call

    def forget(self, execution_id: str) -> None:
        """Let an execution go with its lists, as one goes that is kept no longer."""
        execution = self._executions.pop(execution_id)
        self._indexes.replace(execution_id, execution.indexes, ())


UNCERTAIN = frozenset(
    {
        *("create_checkpoint", "create_execution", "get_document", "put_definition"),
        *("page", "put_document", "read_checkpoint", "read_execution", "read_executions"),
    }
)


@dataclass
class Operation:
    """One POST that makes something; `body` tells two of its requests apart."""

    prefix: str
    send: Callable[[InstallationGateway, Once | None, str], Awaitable[Any]]
    #: The write that makes it.
    write: str = "put_document"

    async def __call__(
        self, gateway: InstallationGateway, once: Once | None = ONCE, body: str = "one"
    ) -> dict[str, Any]:
        answer = await self.send(gateway, once, body)
        document: dict[str, Any] = answer.document if isinstance(answer, ExecutionReply) else answer
        return document

    def id_of(self, document: dict[str, Any]) -> str:
        names = {"wf": "workflow", "exec": "execution", "tmpl": "template", "cp": "checkpoint"}
        return str(document[f"{names[self.prefix]}_id"])


async def operations(world: World) -> dict[str, Operation]:
    """All operations, with what they need in place."""
    workflow_id = await world.workflow(ECHO)
    execution_id = await world.start({"held": {"action": "hold"}})
    await world.began(execution_id, "held")
    template = await world.gateway.create_template({"name": "t", "workflow_id": workflow_id})
    checkpoint = await world.gateway.create_checkpoint(execution_id, name="c", description="")
    made_of = {"template": template["template_id"], "checkpoint": checkpoint["checkpoint_id"]}
    timeouts = {"one": 60, "two": 61}
    return {
        "workflow": Operation(
            "wf", lambda g, o, b: g.create_workflow(world.definition(ECHO, version=b), once=o)
        ),
        "execution": Operation(
            "exec",
            lambda g, o, b: g.execute(workflow_id, {"x": b}, {}, once=o),
            "create_execution",
        ),
        "template": Operation(
            "tmpl", lambda g, o, b: g.create_template(
                {"name": b, "workflow_id": workflow_id}, once=o
            )
        ),
        "template of a definition": Operation(
            "tmpl", lambda g, o, b: g.create_template(
                {"name": b, "definition": world.definition(ECHO)}, once=o
            )
        ),
        "instance": Operation(
            "wf", lambda g, o, b: g.instantiate_template(
                made_of["template"], {"name": b, "parameter_values": {}}, once=o
            )
        ),
        "checkpoint": Operation(
            "cp", lambda g, o, b: g.create_checkpoint(
                execution_id, name=b, description="", once=o
            ),
            "create_checkpoint",
        ),
        "restored": Operation(
            "exec",
            lambda g, o, b: g.restore(made_of["checkpoint"], {"timeout": timeouts[b]}, once=o),
            "create_execution",
        ),
    }  # fmt: skip


NAMES = (
    "workflow", "execution", "template", "template of a definition", "instance", "checkpoint",
    "restored",
)  # fmt: skip


async def counts(world: World) -> dict[str, int]:
    """How many there are of each kind."""
    gateway = world.gateway
    listed = {
        "wf": await gateway.list_workflows(ALL),
        "tmpl": await gateway.list_templates(ALL),
        "cp": await gateway.list_checkpoints(ALL, execution_id=None),
        "exec": await gateway.list_executions(ALL, workflow_id=None, status=None),
    }
    return {kind: page["total"] for kind, page in listed.items()}


async def grown(world: World, before: dict[str, int]) -> dict[str, int]:
    """How many there are more than before, of the kinds that have grown."""
    now = await counts(world)
    return {kind: now[kind] - before[kind] for kind in now if now[kind] > before[kind]}


def at_rest(document: dict[str, Any]) -> dict[str, Any]:
    """A document without what changes while an execution goes on."""
    changing = {"status", "updated_at", "started_at", "started_ms", "completed_at", "completed_ms"}
    changing |= {"progress", "task_status", "output"}
    return {name: value for name, value in document.items() if name not in changing}


async def uncertain(make_world: MakeWorld, seed: int = 0) -> tuple[World, UncertainStore]:
    store = UncertainStore(seed)
    return await make_world(store), store
