"""What an answer holds of large outputs, and where the rest of them is."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import HarmoniaError, ResourceNotFound, ServiceUnavailable
from persistence.errors import Missing, StoreUnavailable
from tests.unit.service.conftest import World


async def test_by_default_an_output_says_where_the_large_outputs_are_that_it_is_made_of(
    world: World,
) -> None:
    values: dict[str, Any] = {"small": {"n": 5}, "in a blob": "x" * 70_000}
    values |= {f"many {n}": "y" * 60_000 for n in range(80)}
    tasks = {name: {"input": {"value": value}} for name, value in values.items()}
    execution_id = (await world.run(tasks))["execution_id"]
    output = jsontext.decode(await world.gateway.get_execution_output(execution_id))
    assert set(output) == set(values)
    assert output["small"] == {"n": 5}
    elsewhere = {name: shown["$ref"] for name, shown in output.items() if "$ref" in shown}
    assert "in a blob" in elsewhere
    assert 1 < len(elsewhere) < len(values), "some are beyond what one output holds, some are not"
    for name, reference in elsewhere.items():
        path = f"/executions/{execution_id}/tasks/{quote(name)}/output"
        assert reference == path
        whole = await world.gateway.get_task_output(execution_id, name)
        assert jsontext.decode(whole) == values[name]


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (StoreUnavailable("disk"), ServiceUnavailable, "blob store, .* cannot be used"),
        (Missing("gone"), ResourceNotFound, "no longer kept"),
        (ValueError("another"), ResourceNotFound, "another blob store"),
    ],
)
async def test_trouble_with_a_blob_is_told_for_what_it_is(
    world: World, fault: Exception, error: type[HarmoniaError], words: str
) -> None:
    class Faulty:
        def put(self, name: str, body: bytes) -> str:
            raise NotImplementedError

        def get(self, url: str) -> bytes:
            raise fault

    found = await world.run({"a": {"input": {"value": "x" * 70_000}}})
    gateway = world.installation.another_gateway(blobs=Faulty())
    with pytest.raises(error, match=words):
        await gateway.get_task_output(found["execution_id"], "a")
    assert (await gateway.get_execution(found["execution_id"], outputs=True))["status"]


async def test_an_output_that_the_workflow_names_is_whole(world: World) -> None:
    large = "x" * 70_000
    output = {"large": "${tasks.a.output}"}
    found = await world.run({"a": {"input": {"value": large}}}, output=output)
    body = await world.gateway.get_execution_output(found["execution_id"])
    assert jsontext.decode(body) == {"large": large}
