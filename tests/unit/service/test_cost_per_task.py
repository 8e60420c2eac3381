"""What one task costs in the store does not grow with the graph: commands and bytes are counted.

An installation without Ray runs graphs of two sizes on a real server; what the server has counted
between start and end is divided by the number of tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.runtime.task_host import TaskHostLimits
from persistence.embedded import EmbeddedServer
from persistence.redis_store import RedisStore
from tests.support.gates import Gates
from tests.support.local import LocalInstallation

SMALL, LARGE = 100, 1_000
#: What grows with the graph would cost ten times as much; how many outcomes share a commit, each of
#: which holds the execution's head, is a matter of luck.
GROWTH_MAX = 2.0


@dataclass(frozen=True)
class Cost:
    """Of one task."""

    commands: float
    bytes: float


def chain(count: int) -> dict[str, Any]:
    return {
        f"t{index}": {
            "depends_on": [f"t{index - 1}"] if index else [],
            "input": {"value": f"${{tasks.t{index - 1}.output}}" if index else [1]},
        }
        for index in range(count)
    }


def fan(count: int) -> dict[str, Any]:
    middle = [f"m{index}" for index in range(count - 2)]
    return {
        "first": {},
        **{name: {"depends_on": ["first"]} for name in middle},
        "last": {"depends_on": middle},
    }


def layers(count: int) -> dict[str, Any]:
    """Ten wide; each task waits for two of the layer before."""
    return {
        f"t{index}": {
            "depends_on": [f"t{each}" for each in _before(index)],
            "input": {"value": [f"${{tasks.t{each}.output}}" for each in _before(index)[:1]]},
        }
        for index in range(count)
    }


def _before(index: int) -> list[int]:
    row, column = divmod(index, 10)
    return sorted({(row - 1) * 10 + each % 10 for each in (column, column + 1)}) if row else []


async def counted(store: RedisStore) -> Cost:
    """All that the server has ever done: commands, those of scripts too, and bytes in and out."""
    stats = await store._client.command("INFO", "commandstats", "stats")
    lines = stats.decode().splitlines()
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    calls = [
        int(value.partition("calls=")[2].partition(",")[0])
        for name, value in values.items()
        if name.startswith("cmdstat_")
    ]
    transferred = int(values["total_net_input_bytes"]) + int(values["total_net_output_bytes"])
    return Cost(sum(calls), transferred)


async def cost_of(installation: LocalInstallation, tasks: dict[str, Any]) -> Cost:
    """Of one task, when these are run as one execution whose events somebody reads at its end."""
    store = installation.store
    assert isinstance(store, RedisStore)
    written = {
        name: {"component": "gates", "action": "echo", **task} for name, task in tasks.items()
    }
    workflow = await installation.gateway.create_workflow(
        {"name": "w", "tasks": written, "output": {"done": True}}
    )
    before = await counted(store)
    reply = await installation.gateway.execute(workflow["workflow_id"], {}, {"async": False})
    assert reply.document["status"] == "completed"
    events = 0
    async for batch in installation.gateway.events(reply.document["execution_id"], after=0):
        events += len(batch)
    after = await counted(store)
    assert events == 2 * len(tasks) + 2
    return Cost(
        (after.commands - before.commands) / len(tasks),
        (after.bytes - before.bytes) / len(tasks),
    )


@pytest.mark.parametrize("shape", [chain, fan, layers], ids=lambda shape: shape.__name__)
async def test_a_task_costs_the_same_in_a_graph_ten_times_as_large(
    redis_server: EmbeddedServer, redis_namespace: str, tmp_path: Path, shape: Any
) -> None:
    gates = Gates()
    store = RedisStore.connect(redis_server.url, redis_namespace)
    try:
        async with LocalInstallation(
            store,
            tmp_path,
            components=[gates.component],
            task_limits=TaskHostLimits(stretch_ms=60_000),
        ) as installation:
            await cost_of(installation, shape(SMALL))
            small = await cost_of(installation, shape(SMALL))
            large = await cost_of(installation, shape(LARGE))
    finally:
        await store.close()
    assert large.commands <= small.commands * GROWTH_MAX, (small, large)
    assert large.bytes <= small.bytes * GROWTH_MAX, (small, large)
