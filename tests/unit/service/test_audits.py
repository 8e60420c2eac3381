"""Audits of executions that ran or run, and of what somebody has changed in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from harmonia_actors.core.errors import ExecutionNotFound, ServiceUnavailable
from harmonia_actors.core.events import CheckpointCreated, TaskProgress, encode_event
from harmonia_actors.core.records import decode_head, decode_row, encode_head, encode_row
from harmonia_actors.core.statuses import ExecutionStatus
from persistence.errors import StoreUnavailable
from persistence.memory_store import MemoryStore
from persistence.store import StoredEvent
from tests.support.scripted_actors import until
from tests.unit.service.conftest import MakeWorld, World

MISSING = "exec-123e4567-e89b-12d3-a456-426614174000"
CHAIN: dict[str, Any] = {
    "a": {"input": {"value": {"n": 1}}},
    "b": {"action": "hold", "depends_on": ["a"]},
    "c": {"depends_on": ["b"]},
}


async def audit(world: World, execution_id: str) -> dict[str, Any]:
    return await world.gateway.audit_execution(execution_id)


async def rules(world: World, execution_id: str) -> set[str]:
    found = await audit(world, execution_id)
    return {violation["rule"] for violation in found["violations"]}


async def test_a_history_that_is_right(world: World) -> None:
    policy = {"max_retries": 2, "retry_interval": 0.001}
    tasks = {
        "a": {"action": "fail_until", "input": {"attempt": 3}},
        "b": {"depends_on": ["a"]},
    }
    found = await world.run(tasks, options={"retry_policy": policy})
    assert await audit(world, found["execution_id"]) == {
        "execution_id": found["execution_id"],
        "workflow_id": found["workflow_id"],
        "status": "completed",
        "complete": True,
        "events": 10,
        "tasks": 2,
        "attempts": 4,
        "lost_attempts": 0,
        "violations": [],
        "violations_total": 0,
    }


@pytest.mark.parametrize(
    ("tasks", "options", "status"),
    [
        ({"a": {"action": "crash"}, "b": {"depends_on": ["a"]}, "c": {}}, {}, "failed"),
        ({"a": {"action": "hold_async"}, "b": {"depends_on": ["a"]}}, {"timeout": 0.01}, "failed"),
        ({"a": {"input": {"value": "${workflow.input.x.y}"}}}, {}, "failed"),
        ({f"t{i}": {"input": {"value": "x" * 200}} for i in range(70)}, {}, "completed"),
    ],
)
async def test_every_ending_is_right(
    make_world: MakeWorld, tasks: dict[str, Any], options: dict[str, Any], status: str
) -> None:
    world = await make_world(audit_page_max=7, inline_output_bytes_max=100)
    found = await world.run(tasks, {"x": {}}, options)
    assert found["status"] == status
    audited = await audit(world, found["execution_id"])
    assert (audited["violations"], audited["complete"]) == ([], True)


async def test_a_cancelled_one_is_right(world: World) -> None:
    execution_id = await world.start(CHAIN)
    await world.began(execution_id, "b")
    await world.gateway.cancel_execution(execution_id)
    await world.ended(execution_id)
    found = await audit(world, execution_id)
    assert (found["status"], found["violations"]) == ("cancelled", [])


async def test_while_it_runs_only_what_has_happened_is_judged(world: World) -> None:
    execution_id = await world.start(CHAIN)
    await world.began(execution_id, "b")
    found = await audit(world, execution_id)
    assert (found["status"], found["complete"], found["violations"]) == ("running", False, [])
    world.gates.open("b")
    await world.ended(execution_id)
    assert (await audit(world, execution_id))["complete"]


async def test_one_that_nobody_drives_yet_is_right(world: World) -> None:
    for name in list(world.installation.hosts):
        await world.installation.kill_owner(name)
        await world.store.retire_owner(name)
    execution_id = await world.start()
    found = await audit(world, execution_id)
    assert (found["status"], found["events"], found["violations"]) == ("pending", 0, [])


async def test_a_restored_one_owes_nothing_that_had_completed_before(world: World) -> None:
    execution_id = await world.start(CHAIN)
    await world.began(execution_id, "b")
    made = await world.gateway.create_checkpoint(execution_id, name="cp", description="")
    reply = await world.gateway.restore(made["checkpoint_id"], {})
    restored = reply.document["execution_id"]
    assert (await audit(world, restored))["violations"] == []
    world.gates.open("b")
    await world.ended(restored)
    await world.ended(execution_id)
    for each in (execution_id, restored):
        assert (await audit(world, each))["violations"] == []
    assert (await audit(world, restored))["attempts"] == 2, "a is not told of again"


async def test_one_that_changed_hands_is_right(world: World) -> None:
    execution_id = await world.start(CHAIN)
    await world.began(execution_id, "b")
    (owner,) = [n for n, h in world.installation.hosts.items() if h.load]
    await world.installation.kill_owner(owner)
    while await world.store.orphan(owner, limit=9):
        pass
    for host in world.installation.hosts.values():
        await host.pick_up()
    assert (await audit(world, execution_id))["violations"] == []
    world.gates.open("b")
    assert (await world.ended(execution_id))["status"] == "completed"
    assert (await audit(world, execution_id))["violations"] == []


async def test_what_is_not_there(world: World) -> None:
    with pytest.raises(ExecutionNotFound):
        await audit(world, MISSING)


# A store that was tampered with ------------------------------------------------------------------


class Tampered(MemoryStore):
    """A store in which a test can change what must not change, and that counts what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.largest_page = 0
        self.reading = 0
        self.most_reading = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self.away = False

    async def read_events(self, execution_id: str, *, after: int, limit: int) -> list[StoredEvent]:
        if self.away:
            raise StoreUnavailable("away")
        self.reading += 1
        self.most_reading = max(self.most_reading, self.reading)
        await self.hold.wait()
        self.reading -= 1
        found = await super().read_events(execution_id, after=after, limit=limit)
        self.largest_page = max(self.largest_page, len(found))
        return found

    async def read_outputs(self, references: Sequence[tuple[str, str]]) -> list[bytes | None]:
        self.largest_page = max(self.largest_page, len(references))
        return await super().read_outputs(references)

    def log(self, execution_id: str) -> list[bytes]:
        return self._executions[execution_id].events

    def row(self, execution_id: str, task: int, **changed: Any) -> None:
        rows = self._executions[execution_id].rows
        row = decode_row(rows[str(task)])
        for name, value in changed.items():
            setattr(row, name, value)
        rows[str(task)] = encode_row(row)

    def head(self, execution_id: str, **changed: Any) -> None:
        fields = self._executions[execution_id].fields
        head = decode_head(fields["head"])
        for name, value in changed.items():
            setattr(head, name, value)
        fields["head"] = encode_head(head)

    def change_output(self, execution_id: str, key: str, body: bytes) -> None:
        self._holdings._outputs[execution_id][key] = body

    def lose_output(self, execution_id: str, key: str) -> None:
        del self._holdings._outputs[execution_id][key]


@pytest.fixture
def tampered() -> Tampered:
    return Tampered()


async def completed(make_world: MakeWorld, tampered: Tampered, **settings: Any) -> Any:
    world = await make_world(tampered, **settings)
    tasks = {"a": {"input": {"value": 1}}, "b": {"depends_on": ["a"]}}
    return world, (await world.run(tasks))["execution_id"]


async def test_what_is_missing_from_a_log_is_found(
    make_world: MakeWorld, tampered: Tampered
) -> None:
    world, execution_id = await completed(make_world, tampered)
    del tampered.log(execution_id)[2]
    found = await audit(world, execution_id)
    assert {violation["rule"] for violation in found["violations"]} >= {"A1", "A6", "A14", "A17"}
    first = found["violations"][0]
    assert (first["rule"], first["seq"]) == ("A1", 3)
    assert first["message"] == "the event says that it is 4"


async def test_an_event_after_the_end_is_found(make_world: MakeWorld, tampered: Tampered) -> None:
    world, execution_id = await completed(make_world, tampered)
    late = CheckpointCreated("cp-1", "late")
    tampered.log(execution_id).append(
        encode_event(late, seq=7, at_ms=1_000, execution_id=execution_id)
    )
    assert "A4" in await rules(world, execution_id)


async def test_state_that_contradicts_the_log_is_found(
    make_world: MakeWorld, tampered: Tampered
) -> None:
    world, execution_id = await completed(make_world, tampered)
    tampered.row(execution_id, 1, attempt=2)
    assert await rules(world, execution_id) == {"A17"}
    tampered.row(execution_id, 1, attempt=1)
    assert await rules(world, execution_id) == set()
    tampered.head(execution_id, status=ExecutionStatus.CANCELLED)
    assert await rules(world, execution_id) == {"A16"}


@pytest.mark.parametrize(("key", "task"), [("1:1", "b"), ("execution", None)])
async def test_an_output_that_is_gone_is_found(
    make_world: MakeWorld, tampered: Tampered, key: str, task: str | None
) -> None:
    world, execution_id = await completed(make_world, tampered)
    tampered.lose_output(execution_id, key)
    (violation,) = (await audit(world, execution_id))["violations"]
    assert (violation["rule"], violation["seq"], violation["task"]) == ("A18", None, task)


@pytest.mark.parametrize(("key", "rule", "task"), [("1:1", "A17", "b"), ("execution", "A16", None)])
async def test_an_output_that_is_not_the_one_of_the_log_is_found(
    make_world: MakeWorld, tampered: Tampered, key: str, rule: str, task: str | None
) -> None:
    world, execution_id = await completed(make_world, tampered)
    tampered.change_output(execution_id, key, b'"else"')
    (violation,) = (await audit(world, execution_id))["violations"]
    assert (violation["rule"], violation["seq"], violation["task"]) == (rule, None, task)


async def test_an_output_of_the_execution_that_was_restored_may_not_go(
    make_world: MakeWorld, tampered: Tampered
) -> None:
    world, execution_id = await completed(make_world, tampered)
    made = await world.gateway.create_checkpoint(execution_id, name="cp", description="")
    reply = await world.gateway.restore(made["checkpoint_id"], {})
    restored = reply.document["execution_id"]
    await world.ended(restored)
    assert await rules(world, restored) == set()
    tampered.lose_output(execution_id, "0:1")
    assert await rules(world, restored) == {"A18"}


# Bounds ------------------------------------------------------------------------------------------


async def test_a_long_log_is_read_page_by_page(make_world: MakeWorld, tampered: Tampered) -> None:
    world = await make_world(tampered, audit_page_max=10)
    tasks = {f"t{i}": {"input": {"value": i}} for i in range(33)}
    found = await world.run(tasks)
    tampered.largest_page = 0
    audited = await audit(world, found["execution_id"])
    assert (audited["events"], audited["violations"]) == (68, [])
    assert tampered.largest_page == 10


async def test_the_violations_in_one_answer_are_bounded(
    make_world: MakeWorld, tampered: Tampered
) -> None:
    world, execution_id = await completed(make_world, tampered, audit_violations_max=3)
    progress = TaskProgress("a", 0.5, "after its end")
    tampered.log(execution_id)[5:5] = [
        encode_event(progress, seq=seq, at_ms=1_000, execution_id=execution_id)
        for seq in range(6, 26)
    ]
    found = await audit(world, execution_id)
    assert len(found["violations"]) == 3
    assert found["violations_total"] > 20


async def test_audits_wait_for_their_turn(make_world: MakeWorld, tampered: Tampered) -> None:
    world, execution_id = await completed(make_world, tampered, audits_at_once_max=2)
    tampered.hold.clear()
    tampered.most_reading = 0
    audits = [asyncio.ensure_future(audit(world, execution_id)) for _ in range(5)]
    await until(lambda: tampered.reading == 2)
    tampered.hold.set()
    assert [found["violations"] for found in await asyncio.gather(*audits)] == [[]] * 5
    assert tampered.most_reading == 2


async def test_a_store_that_is_away_is_said_to_be(
    make_world: MakeWorld, tampered: Tampered
) -> None:
    world, execution_id = await completed(make_world, tampered)
    tampered.away = True
    with pytest.raises(ServiceUnavailable):
        await audit(world, execution_id)
    tampered.away = False
    assert await rules(world, execution_id) == set(), "its turn was given back"
