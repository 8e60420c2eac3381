"""What has expired is gone, but for what checkpoints hold; and what lives has a limit."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.components.contract import Component, TaskContext
from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import (
    CheckpointNotFound,
    ExecutionNotFound,
    RateLimitExceeded,
)
from harmonia_actors.core.requests import PageRequest
from harmonia_actors.runtime.janitor import Janitor, JanitorLimits
from harmonia_actors.runtime.places import BlobPlace, DirectoryPlace
from harmonia_actors.settings import Settings
from persistence.embedded import EmbeddedServer
from persistence.memory_store import MemoryStore
from persistence.redis_store import RedisStore
from persistence.store import Store
from tests.support.gates import Gates
from tests.support.local import LocalInstallation
from tests.unit.service.conftest import MakeWorld, World

ALL = PageRequest(page=1, limit=100)
LARGE = {"rows": ["x"] * 200}

notes = Component("notes", "Actions that leave files")


@notes.action(uses_files=True)
def write(name: str, text: str, *, context: TaskContext) -> dict[str, str]:
    """Write a file."""
    context.workspace.write_file(name, text.encode())
    return {"file": name}


@notes.action(uses_files=True)
def read(name: str, *, context: TaskContext) -> str:
    """Read a file."""
    with context.workspace.open_read(name) as opened:
        return opened.read().decode()


#: A small output, a large one, and a file; then it waits; then it needs all of them.
STORY: dict[str, Any] = {
    "small": {"input": {"value": {"n": 1}}},
    "large": {"input": {"value": LARGE}},
    "file": {"component": "notes", "action": "write", "input": {"name": "f", "text": "hello"}},
    "hold": {"action": "hold", "depends_on": ["small", "large", "file"]},
    "read": {
        "component": "notes",
        "action": "read",
        "depends_on": ["hold"],
        "input": {"name": "f"},
    },
    "end": {
        "depends_on": ["read"],
        "input": {
            "value": {
                "n": "${tasks.small.output.n}",
                "last": "${tasks.large.output.rows[199]}",
                "text": "${tasks.read.output}",
            }
        },
    },
}
OUTCOME = {"n": 1, "last": "x", "text": "hello"}


@asynccontextmanager
async def keeping(store: Store, directory: Path, **settings: Any) -> AsyncIterator[World]:
    """An installation whose outputs are blobs from 100 bytes on, and whose actions leave files."""
    gates = Gates()
    installation = LocalInstallation(
        store,
        directory,
        components=[gates.component, notes],
        settings=Settings(inline_output_bytes_max=100, **settings),
    )
    async with installation:
        yield World(installation, gates)
        gates.open("hold")


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[World]:
    async with keeping(MemoryStore(), tmp_path) as world:
        yield world


async def clean(world: World) -> None:
    """Let all that has ended expire, and remove what nobody holds."""
    installation = world.installation

    async def places() -> list[Any]:
        return [BlobPlace(installation.blobs), DirectoryPlace(installation.files)]

    janitor = Janitor(world.store, places, JanitorLimits(retention_ms=0, orphan_age_s=86_400))
    while await janitor.round():
        pass


def lies(world: World) -> set[str]:
    """Ids under which there are blobs or files."""
    blobs = world.installation.blobs.first_parts("", 1_000)
    return {*blobs, *world.installation.files.ids("", 1_000)}


async def checkpoint(world: World, execution_id: str) -> str:
    made = await world.gateway.create_checkpoint(execution_id, name="cp", description="")
    return str(made["checkpoint_id"])


async def restored(world: World, checkpoint_id: str) -> str:
    reply = await world.gateway.restore(checkpoint_id, {})
    return str(reply.document["execution_id"])


async def half_way(world: World, execution_id: str | None = None) -> tuple[str, str]:
    """An execution that holds, and a checkpoint of it."""
    execution_id = execution_id or await world.start(STORY)
    await world.began(execution_id, "hold")
    return execution_id, await checkpoint(world, execution_id)


# Gone for clients ------------------------------------------------------------------------------


async def test_what_has_expired_is_not_found_by_any_door(kept: World) -> None:
    kept.gates.open("hold")
    found = await kept.run(STORY)
    execution_id = found["execution_id"]
    assert found["output"] == OUTCOME
    await clean(kept)
    gateway = kept.gateway
    for call in (
        gateway.get_execution(execution_id, outputs=True),
        gateway.cancel_execution(execution_id),
        gateway.list_tasks(execution_id, ALL),
        gateway.get_task_output(execution_id, "small"),
        gateway.get_execution_output(execution_id),
        gateway.list_files(execution_id),
        gateway.open_file(execution_id, "f"),
        gateway.create_checkpoint(execution_id, name="late", description=""),
        anext(gateway.events(execution_id, after=0)),
    ):
        with pytest.raises(ExecutionNotFound, match=execution_id):
            await call
    assert await gateway.list_executions(ALL, workflow_id=None, status=None) == {
        "items": [],
        "total": 0,
        "page": 1,
        "limit": 100,
    }
    assert lies(kept) == set()


async def test_what_runs_and_what_is_young_stays(kept: World) -> None:
    execution_id, _ = await half_way(kept)
    await clean(kept)
    kept.gates.open("hold")
    found = await kept.ended(execution_id)
    assert (found["status"], found["output"]) == ("completed", OUTCOME)


async def test_the_counts_follow(kept: World) -> None:
    kept.gates.open("hold")
    await kept.run(STORY)
    before = await kept.gateway.metrics()
    await clean(kept)
    await kept.run()
    after = await kept.gateway.metrics()
    names = [f"harmonia_{name}" for name in (
        "executions_live", "executions_ended_kept", "executions_expired", "garbage_waiting",
        "executions_completed",
    )]  # fmt: skip
    assert [before[name] for name in names] == [0, 1, 0, 0, 1]
    assert [after[name] for name in names] == [0, 1, 1, 0, 1]


async def test_an_id_ends_in_the_installations_digits(kept: World) -> None:
    digits = await kept.store.installation()
    one = await kept.start()
    two = await restored(kept, await checkpoint(kept, one))
    for execution_id in (one, two):
        assert re.fullmatch(rf"exec-[0-9a-f]{{8}}-[0-9a-f]{{4}}-4.*-{digits}", execution_id)
        assert len(execution_id) == len("exec-123e4567-e89b-12d3-a456-426614174000")
    assert one != two


# Held by checkpoints ---------------------------------------------------------------------------


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_checkpoint_outlives_its_execution_and_its_workflow(
    kept: World, deleted: bool
) -> None:
    execution_id, checkpoint_id = await half_way(kept)
    before = await kept.gateway.get_checkpoint(checkpoint_id)
    kept.gates.open("hold")
    await kept.ended(execution_id)
    if deleted:
        await kept.gateway.delete_workflow(before["workflow_id"])
    await clean(kept)
    assert await kept.gateway.get_checkpoint(checkpoint_id) == before
    assert before["task_states"]["small"]["output"] == {"n": 1}
    new_id = await restored(kept, checkpoint_id)
    assert jsontext.decode(await kept.gateway.get_task_output(new_id, "large")) == LARGE
    found = await kept.ended(new_id)
    assert (found["status"], found["output"]) == ("completed", OUTCOME)
    assert (await kept.gateway.list_files(new_id))["items"][0]["path"] == "f"


async def test_a_restored_execution_holds_what_its_checkpoint_held(kept: World) -> None:
    execution_id, checkpoint_id = await half_way(kept)
    new_id = await restored(kept, checkpoint_id)
    await kept.gateway.delete_checkpoint(checkpoint_id)
    await kept.gateway.cancel_execution(execution_id)
    await kept.ended(execution_id)
    await clean(kept)
    assert execution_id in lies(kept)
    kept.gates.open("hold")
    assert (await kept.ended(new_id))["output"] == OUTCOME
    await clean(kept)
    assert lies(kept) == set()


async def test_files_are_held_by_who_begins_with_them_also_without_any_output(kept: World) -> None:
    tasks = {"hold": STORY["hold"] | {"depends_on": []}, "read": STORY["read"]}
    first_id = await kept.start(tasks)
    await kept.began(first_id, "hold")
    kept.installation.files.workspace(first_id).write_file("f", b"hello")
    checkpoint_id = await checkpoint(kept, first_id)
    second_id = await restored(kept, checkpoint_id)
    await kept.gateway.delete_checkpoint(checkpoint_id)
    await kept.gateway.cancel_execution(first_id)
    await kept.ended(first_id)
    await clean(kept)
    kept.gates.open("hold")
    assert (await kept.ended(second_id))["output"] == {"read": "hello"}


async def test_a_restore_of_a_restore_has_the_files_of_the_first(kept: World) -> None:
    """The second never came to use files itself: where it would have got them from counts."""
    first_id, first = await half_way(kept)
    second_id, second = await half_way(kept, await restored(kept, first))
    await kept.gateway.delete_checkpoint(first)
    for execution_id in (first_id, second_id):
        await kept.gateway.cancel_execution(execution_id)
        await kept.ended(execution_id)
    await clean(kept)
    assert second_id not in lies(kept)
    third_id = await restored(kept, second)
    kept.gates.open("hold")
    found = await kept.ended(third_id)
    assert (found["status"], found["output"]) == ("completed", OUTCOME)
    await kept.gateway.delete_checkpoint(second)
    await clean(kept)
    assert lies(kept) == set()


async def test_a_restore_of_a_restore_that_used_files_begins_with_those(kept: World) -> None:
    tasks = {
        **STORY,
        "more": {
            "component": "notes",
            "action": "write",
            "depends_on": ["hold"],
            "input": {"name": "f", "text": "changed"},
        },
        "again": {"action": "hold_async", "depends_on": ["more"]},
        "read": {**STORY["read"], "depends_on": ["again"]},
    }
    first_id = await kept.start(tasks)
    await kept.began(first_id, "hold")
    second_id = await restored(kept, await checkpoint(kept, first_id))
    kept.gates.open("hold")
    await kept.began(second_id, "again")
    third_id = await restored(kept, await checkpoint(kept, second_id))
    kept.gates.open("again")
    for execution_id in (first_id, second_id, third_id):
        found = await kept.ended(execution_id)
        assert found["output"] == {**OUTCOME, "text": "changed"}


async def test_a_checkpoint_deleted_while_it_is_restored_is_not_found(kept: World) -> None:
    execution_id, checkpoint_id = await half_way(kept)
    kept.gates.open("hold")
    await kept.ended(execution_id)
    await clean(kept)
    create = kept.store.create_execution

    async def create_late(*arguments: Any, **options: Any) -> str:
        await kept.gateway.delete_checkpoint(checkpoint_id)
        return await create(*arguments, **options)

    kept.store.create_execution = create_late  # type: ignore[method-assign]
    with pytest.raises(CheckpointNotFound, match=checkpoint_id):
        await restored(kept, checkpoint_id)


# As many as there may be -----------------------------------------------------------------------


async def test_beyond_the_limit_a_start_is_refused_and_says_when_to_try_again(
    make_world: MakeWorld,
) -> None:
    world = await make_world(executions_live_max=2)
    tasks = {"a": {"action": "hold_async"}}
    first, second = await world.start(tasks), await world.start(tasks)
    checkpoint_id = await checkpoint(world, first)
    for call in (world.start(tasks), restored(world, checkpoint_id)):
        with pytest.raises(RateLimitExceeded, match=r"2 .*HARMONIA_EXECUTIONS_LIVE_MAX") as refused:
            await call
        assert refused.value.retry_after_s > 0
    page = await world.gateway.list_executions(ALL, workflow_id=None, status=None)
    assert page["total"] == 2
    await world.gateway.cancel_execution(second)
    await world.ended(second)
    third = await world.start(tasks)
    world.gates.open("a")
    assert (await world.ended(third))["status"] == "completed"


# Back to where it began ------------------------------------------------------------------------

#: Keys that an installation keeps for ever once it has been used.
PERMANENT = {"owners", "leases", "created", "live", "expired", "log", "installation"}


@pytest.fixture
async def at_a_server(
    redis_server: EmbeddedServer, redis_namespace: str, tmp_path: Path
) -> AsyncIterator[tuple[World, RedisStore]]:
    store = RedisStore.connect(redis_server.url, redis_namespace)
    async with keeping(store, tmp_path) as world:
        yield world, store
    await store.close()


def files_below(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


async def keys(store: RedisStore) -> set[str]:
    prefix = store._keys.namespace
    found = await store._client.command("KEYS", f"{prefix}:*")
    return {key.decode().removeprefix(f"{prefix}:") for key in found}


async def test_hundreds_of_executions_leave_nothing_behind(
    at_a_server: tuple[World, RedisStore], tmp_path: Path
) -> None:
    world, store = at_a_server
    world.gates.open("hold")
    workflow_id = await world.workflow(STORY)
    await store.installation()
    before = await keys(store)
    limited = asyncio.Semaphore(20)

    async def one() -> str:
        async with limited:
            reply = await world.gateway.execute(workflow_id, {}, {"async": False})
            assert reply.document["output"] == OUTCOME
            return str(reply.document["execution_id"])

    ids = await asyncio.gather(*(one() for _ in range(300)))
    checkpoints = [await checkpoint(world, execution_id) for execution_id in ids[::10]]
    again = [await restored(world, checkpoint_id) for checkpoint_id in checkpoints]
    for execution_id in again:
        assert (await world.ended(execution_id))["output"] == OUTCOME
    assert lies(world) == set(ids), "a restored one that had nothing to run leaves nothing"

    await clean(world)
    assert lies(world) == set(ids[::10]), "those that checkpoints hold"
    for checkpoint_id in checkpoints:
        await world.gateway.delete_checkpoint(checkpoint_id)
    await clean(world)
    left = {key for key in await keys(store) if key not in PERMANENT}
    assert left == {key for key in before if key not in PERMANENT}
    assert lies(world) == set()
    assert files_below(tmp_path) == []
