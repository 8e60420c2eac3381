"""Summaries of real executions, live and restored, say what their statuses say."""

from __future__ import annotations

import asyncio
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core.summary import SUMMARY_TYPE
from harmonia_actors.settings import Settings
from harmonia_serve.summaries import summarised
from tests.unit.service.conftest import World

AT_ONCE = Settings(stream_summary_interval_ms=0)
HOLD = {"action": "hold"}


async def told(world: World, execution_id: str) -> list[dict[str, Any]]:
    """All that a subscriber gets, from the start to the end."""
    batches = summarised(world.gateway, AT_ONCE, execution_id, after=0)
    return [jsontext.decode(event.body) async for batch in batches for event in batch]


def counted(document: dict[str, Any]) -> dict[str, int]:
    statuses = [task["status"] for task in document["task_status"].values()]
    return {status: statuses.count(status) for status in set(statuses)}


def told_last(messages: list[dict[str, Any]]) -> dict[str, int]:
    *_, last = [m["data"] for m in messages if m["type"] == SUMMARY_TYPE]
    return {status: count for status, count in last["tasks"].items() if count}


async def test_a_live_summary_ends_with_what_the_status_says(world: World) -> None:
    tasks = {"a": HOLD, "b": {"depends_on": ["a"]}, "c": {"action": "echo"}}
    execution_id = await world.start(tasks)
    await world.began(execution_id, "a")
    following = asyncio.ensure_future(told(world, execution_id))
    world.gates.open("a")
    found = await world.ended(execution_id)
    messages = await following
    assert told_last(messages) == counted(found) == {"completed": 3}
    assert messages[-1]["type"] == "execution_completed"
    assert messages[-1]["seq"] == found["last_seq"]
    own = [m["type"] for m in messages if m["type"] != SUMMARY_TYPE]
    assert own == ["execution_started", "execution_completed"]
    # Whoever comes later is told the same, in as few messages as can be.
    kinds = [message["type"] for message in await told(world, execution_id)]
    assert kinds == ["execution_started", SUMMARY_TYPE, "execution_completed"]


async def test_what_was_restored_counts(world: World) -> None:
    execution_id = await world.start({"a": {}, "b": {"depends_on": ["a"], **HOLD}})
    await world.began(execution_id, "b")
    checkpoint = await world.gateway.create_checkpoint(execution_id, name="c", description="")
    world.gates.open("b")
    await world.ended(execution_id)
    reply = await world.gateway.restore(checkpoint["checkpoint_id"], {})
    restored = reply.document["execution_id"]
    found = await world.ended(restored)
    messages = await told(world, restored)
    assert told_last(messages) == counted(found) == {"completed": 2}
    assert "task_completed" not in {message["type"] for message in messages}
