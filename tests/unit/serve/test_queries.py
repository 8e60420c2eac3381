"""Query parameters: bounds, nearest names, and nothing that is silently ignored (S23)."""

from __future__ import annotations

import httpx
import pytest

from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from tests.unit.serve.conftest import API, connect
from tests.unit.serve.gateway import MemoryGateway


@pytest.mark.parametrize(
    ("query", "field", "told"),
    [
        ("limit=1000000000", "limit", "must be from 1 to 100, not 1000000000"),
        ("limit=0", "limit", "must be greater than or equal to 1, not '0'"),
        ("page=-1", "page", "must be greater than or equal to 1, not '-1'"),
        ("page=1e3", "page", "must be a valid integer"),
        ("page=99999999999999999999999999", "page", "must be less than or equal to"),
        ("page=", "page", "must be a valid integer"),
        ("page=1_0", "page", "must be a valid integer, unable to parse string"),
        ("page=1.0", "page", "must be a valid integer"),
        ("page=%201", "page", "must be a valid integer"),
        ("page=%2B1", "page", "must be a valid integer"),
        ("page=%D9%A1", "page", "must be a valid integer"),
        ("limit=1_0", "limit", "must be a valid integer"),
        ("sort_by=__class__", "sort_by", "'created_at', 'updated_at', 'name' or 'version'"),
        ("sort_order=down", "sort_order", "must be 'asc' or 'desc', not 'down'"),
        ("limt=5", "limt", "did you mean 'limit'?"),
        ("x=5", "x", "there are: page, limit, sort_by, sort_order"),
        ("page=1&page=2", "page", "more than once"),
    ],
)
async def test_a_bad_parameter_is_a_422_that_names_it(
    client: httpx.AsyncClient, gateway: MemoryGateway, query: str, field: str, told: str
) -> None:
    answer = await client.get(f"{API}/workflows?{query}")
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error["code"] == "validation_error"
    assert error["details"]["errors"][0]["field"] == field
    assert told in error["details"]["errors"][0]["message"]
    assert gateway.calls == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("executions?status=done", "status"),
        ("executions?workflow_id=*", "workflow_id"),
        ("executions?sort_by=name", "sort_by"),
        ("state/checkpoints?execution_id=wf-1", "execution_id"),
        ("executions/exec-123e4567-e89b-12d3-a456-426614174000?outputs=some", "outputs"),
        ("components?page=1", "page"),
        ("service?x=1", "x"),
    ],
)
async def test_each_route_knows_its_own_parameters(
    client: httpx.AsyncClient, gateway: MemoryGateway, path: str, field: str
) -> None:
    answer = await client.get(f"{API}/{path}")
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["details"]["errors"][0]["field"] == field
    assert gateway.calls == []


async def test_a_page_is_no_larger_than_allowed_if_nobody_says_how_large(
    gateway: MemoryGateway, key: str
) -> None:
    async with connect(build_app(gateway, Settings(page_limit_max=5)), key) as client:
        answer = await client.get(f"{API}/workflows")
        assert (answer.status_code, answer.json()["limit"]) == (200, 5)
        assert (await client.get(f"{API}/workflows?limit=5")).status_code == 200
        refused = await client.get(f"{API}/workflows?limit=6")
        assert "must be from 1 to 5, not 6" in refused.json()["error"]["message"]


@pytest.mark.parametrize("after", ["1_0", "1.0", " 1", "-1"])
async def test_a_stream_starts_after_a_whole_number(
    client: httpx.AsyncClient, execution_id: str, after: str
) -> None:
    path = f"/events/harmonia/executions/{execution_id}"
    answer = await client.get(path, params={"after": after})
    assert answer.status_code == 422
    assert answer.json()["error"]["details"]["errors"][0]["field"] == "after"


async def test_pages_and_order_reach_the_gateway(
    client: httpx.AsyncClient, gateway: MemoryGateway
) -> None:
    for name in ("b", "c", "a"):
        await gateway.create_workflow({"name": name, "tasks": {"t": {}}})
    answer = await client.get(f"{API}/workflows?sort_by=name&sort_order=asc&page=2&limit=2")
    assert [item["name"] for item in answer.json()["items"]] == ["c"]
    assert {key: answer.json()[key] for key in ("total", "page", "limit")} == {
        "total": 3,
        "page": 2,
        "limit": 2,
    }
