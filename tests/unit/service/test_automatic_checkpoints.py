"""Executions that take checkpoints by themselves, from the request to the restored execution."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import ValidationFailed
from harmonia_actors.core.requests import Edits, PageRequest
from persistence.errors import AlreadyExists, StoreUnavailable
from persistence.memory_store import MemoryStore
from persistence.store import NewExecution, OwnCheckpoint
from tests.support.scripted_actors import until
from tests.unit.service.conftest import MakeWorld, World, problems

ALL = PageRequest(page=1, limit=100)
EACH: dict[str, Any] = {"checkpoint": {"every_completions": 1}}
#: Each holds, so that a test decides when it completes.
CHAIN: dict[str, Any] = {
    name: {"action": "hold", "depends_on": list(before), "input": {"value": name}}
    for name, before in {"a": "", "b": "a", "c": "b", "d": "c", "e": "d"}.items()
}


class Watched(MemoryStore):
    """A store that may not be able to take checkpoints."""

    away = False
    refuses: Exception | None = None
    loses_replies = 0
    tries = 0

    async def take_checkpoint(self, checkpoint: OwnCheckpoint) -> None:
        self.tries += 1
        if self.refuses is not None:
            raise self.refuses
        if self.away:
            raise StoreUnavailable("away")
        await super().take_checkpoint(checkpoint)
        if self.loses_replies:
            self.loses_replies -= 1
            raise StoreUnavailable("the reply was lost")


async def listed(world: World, execution_id: str) -> list[dict[str, Any]]:
    """Oldest first, by the event after which each was due."""
    found = await world.gateway.list_checkpoints(ALL, execution_id=execution_id)
    return sorted(found["items"], key=lambda item: int(item["name"].removeprefix("auto-")))


async def told(world: World, execution_id: str) -> list[str]:
    events = await world.events(execution_id)
    return [e["data"]["name"] for e in events if e["type"] == "checkpoint_created"]


async def step(world: World, execution_id: str, name: str, checkpoints: int) -> None:
    """One task completes, and so many checkpoints have been told of."""
    await world.began(execution_id, name)
    world.gates.open(name)
    await until_told(world, execution_id, checkpoints)


async def until_told(world: World, execution_id: str, checkpoints: int) -> None:
    async for _ in world.gateway.events(execution_id, after=0):
        if len(await told(world, execution_id)) >= checkpoints:
            return


async def test_one_is_taken_after_each_completion_and_shown_as_such(world: World) -> None:
    execution_id = await world.start(CHAIN, options=EACH)
    await step(world, execution_id, "a", 1)
    (made,) = await listed(world, execution_id)
    assert made["automatic"] is True
    assert (made["name"], made["execution_id"]) == ("auto-3", execution_id)
    shown = await world.gateway.get_checkpoint(made["checkpoint_id"])
    assert shown["automatic"] is True
    assert shown["seq"] >= 3
    assert shown["task_states"]["a"]["status"] == "completed"
    assert shown["task_states"]["b"]["status"] == "pending"
    by_hand = await world.gateway.create_checkpoint(execution_id, name="mine", description="")
    assert by_hand["automatic"] is False
    world.gates.open(*CHAIN)
    assert (await world.ended(execution_id))["status"] == "completed"


async def test_only_the_newest_are_kept_and_what_was_taken_by_hand_stays(world: World) -> None:
    options = {"checkpoint": {"every_completions": 1, "keep": 2}}
    execution_id = await world.start(CHAIN, options=options)
    await world.gateway.create_checkpoint(execution_id, name="auto-0", description="by hand")
    for at, name in enumerate("abcd", 2):
        await step(world, execution_id, name, at)
    names = [item["name"] for item in await listed(world, execution_id)]
    assert [names[0], *names[1:]] == ["auto-0", *(await told(world, execution_id))[-2:]]
    world.gates.open("e")
    found = await world.ended(execution_id)
    assert found["status"] == "completed"
    assert len(await listed(world, execution_id)) == 3, "none after the end"


async def test_how_many_are_kept_is_a_setting(make_world: MakeWorld) -> None:
    world = await make_world(automatic_checkpoints_kept=1)
    execution_id = await world.start(CHAIN, checkpoint={"every_completions": 1})
    for at, name in enumerate("abc", 1):
        await step(world, execution_id, name, at)
    assert len(await listed(world, execution_id)) == 1
    shown = await world.gateway.get_workflow(
        (await world.gateway.get_execution(execution_id, outputs=False))["workflow_id"]
    )
    assert shown["checkpoint"] == {"every_completions": 1}


async def test_by_time(world: World) -> None:
    options = {"checkpoint": {"every_s": 0.001}}
    execution_id = await world.start(CHAIN, options=options)
    await step(world, execution_id, "a", 1)
    assert len(await listed(world, execution_id)) == 1


async def test_each_is_what_the_log_says_of_its_moment_in_a_fan_out_of_1000(world: World) -> None:
    tasks: dict[str, Any] = {f"t{i}": {"input": {"value": i}} for i in range(1_000)}
    tasks["end"] = {"action": "hold", "depends_on": list(tasks)}
    options = {"checkpoint": {"every_completions": 50, "keep": 100}}
    execution_id = await world.start(tasks, options=options)
    await world.began(execution_id, "end")
    await until_told(world, execution_id, 1)
    made = await listed(world, execution_id)
    assert made
    log = await world.events(execution_id)
    for item in made:
        shown = await world.gateway.get_checkpoint(item["checkpoint_id"])
        snapshot = await world.store.read_checkpoint(item["checkpoint_id"])
        assert snapshot is not None
        assert snapshot.seq >= int(item["name"].removeprefix("auto-"))
        completed = {n for n, s in shown["task_states"].items() if s["status"] == "completed"}
        before = [e for e in log if e["seq"] <= snapshot.seq and e["type"] == "task_completed"]
        assert completed == {e["data"]["task_name"] for e in before}
    world.gates.open("end")
    assert (await world.ended(execution_id))["status"] == "completed"


class Creations(MemoryStore):
    """A store that tells what it was given to keep of executions."""

    def __init__(self) -> None:
        super().__init__()
        self.created: list[NewExecution] = []

    async def create_execution(self, new: NewExecution, **limits: Any) -> str:
        self.created.append(new)
        return await super().create_execution(new, **limits)


async def test_what_never_changes_is_kept_as_such_and_not_copied_by_checkpoints(
    make_world: MakeWorld,
) -> None:
    store = Creations()
    world = await make_world(store=store)
    execution_id = await world.start(CHAIN, options=EACH, given={"x": "large"})
    await step(world, execution_id, "a", 1)
    (made,) = await listed(world, execution_id)
    await world.gateway.restore(made["checkpoint_id"], {}, edits=Edits({"x": "other"}, {}))
    first, restored = store.created
    assert (set(first.fields), set(first.constants)) == ({"head"}, {"input", "options"})
    assert set(restored.fields) == {"head"}
    assert set(restored.constants) == {"input", "options", "edits"}
    assert jsontext.decode(restored.constants["input"]) == {"x": "other"}
    world.gates.open(*CHAIN)
    await world.ended(execution_id)


async def test_a_restored_execution_goes_on_from_it(world: World) -> None:
    execution_id = await world.start(CHAIN, options=EACH)
    await step(world, execution_id, "a", 1)
    (made,) = await listed(world, execution_id)
    world.gates.open(*CHAIN)
    await world.ended(execution_id)
    reply = await world.gateway.restore(made["checkpoint_id"], EACH)
    restored = reply.document["execution_id"]
    found = await world.ended(restored)
    assert found["status"] == "completed"
    began = [name for name, _ in world.gates.began if name.startswith(restored)]
    assert [name.partition("/")[2] for name in began] == list("bcde")
    again = await listed(world, restored)
    assert len({item["checkpoint_id"] for item in again}) == len(again) <= 3


# Faults ------------------------------------------------------------------------------------------


async def test_a_store_that_cannot_take_one_does_not_hold_the_execution_up(
    make_world: MakeWorld,
) -> None:
    store = Watched()
    store.away = True
    world = await make_world(store)
    world.gates.open(*CHAIN)
    execution_id = await world.start(CHAIN, options=EACH)
    assert (await world.ended(execution_id))["status"] == "completed"
    assert store.tries >= 1
    assert await listed(world, execution_id) == []


@pytest.mark.parametrize(
    "refuses", [ResponseError("NOPERM no permission for 'copy'"), AlreadyExists("cp")], ids=str
)
async def test_a_store_that_refuses_one_for_good_does_the_execution_no_harm(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture, refuses: Exception
) -> None:
    """It is optional: it must not count as a crash, of which a few end the execution."""
    store = Watched()
    store.refuses = refuses
    world = await make_world(store)
    world.gates.open(*CHAIN)
    execution_id = await world.start(CHAIN, options=EACH)
    assert (await world.ended(execution_id))["status"] == "completed"
    assert store.tries == 1
    assert "takes no more checkpoints by itself" in caplog.text
    snapshot = await store.read_execution(execution_id)
    assert snapshot is not None
    assert snapshot.epoch == 1, "its first owner has brought it to its end"


async def test_a_reply_that_was_lost_makes_no_second_one(make_world: MakeWorld) -> None:
    store = Watched()
    store.loses_replies = 1
    world = await make_world(store)
    execution_id = await world.start(CHAIN, options=EACH)
    await step(world, execution_id, "a", 1)
    assert store.tries == 2
    assert len(await listed(world, execution_id)) == 1
    assert await told(world, execution_id) == ["auto-3"]


@pytest.mark.parametrize("was_taken", [False, True])
async def test_the_next_owner_takes_the_one_that_was_decided_on(
    make_world: MakeWorld, was_taken: bool
) -> None:
    """Its owner dies before the checkpoint is taken, or before it has heard that it was."""
    store = Watched()
    store.away, store.loses_replies = not was_taken, 10**9
    world = await make_world(store)
    execution_id = await world.start(CHAIN, options=EACH)
    await world.began(execution_id, "a")
    world.gates.open("a")
    await until(lambda: store.tries)
    await world.began(execution_id, "b")
    assert len(await listed(world, execution_id)) == was_taken
    snapshot = await store.read_execution(execution_id)
    assert snapshot is not None
    await world.installation.kill_owner(snapshot.owner)
    store.away, store.loses_replies = False, 0
    while await store.orphan(snapshot.owner, limit=9):
        pass
    for host in world.installation.hosts.values():
        await host.pick_up()
    await until_told(world, execution_id, 1)
    assert await told(world, execution_id) == ["auto-3"]
    assert [item["name"] for item in await listed(world, execution_id)] == ["auto-3"]
    world.gates.open(*CHAIN)
    assert (await world.ended(execution_id))["status"] == "completed"


async def test_they_go_with_their_execution(world: World) -> None:
    execution_id = await world.start(CHAIN, options=EACH)
    await step(world, execution_id, "a", 1)
    world.gates.open(*CHAIN)
    await world.ended(execution_id)
    assert await world.store.expire(age_ms=0, limit=10) == 1
    assert await listed(world, execution_id) == []
    assert await world.store.known([execution_id]) == set()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "checkpoint"),
        ({"every_completions": 0}, "checkpoint.every_completions"),
        ({"every_s": 1, "keep": 1_000}, "checkpoint.keep"),
    ],
)
async def test_what_is_no_policy_is_refused(
    world: World, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationFailed) as caught:
        await world.workflow(CHAIN, checkpoint=given)
    assert list(problems(caught)) == [field]
    with pytest.raises(ValidationFailed) as caught:
        await world.start(CHAIN, options={"checkpoint": given})
    assert list(problems(caught)) == [f"execution_options.{field}"]
