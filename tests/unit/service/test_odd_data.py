"""Odd data is refused by name or comes back as it went in, by every way that it can take.

Over HTTP, with the real service, drivers and a real server; only Ray is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from httpx_sse import aconnect_sse

from harmonia_actors.runtime.service.keys import make_first_key
from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from persistence.embedded import EmbeddedServer
from persistence.redis_store import RedisStore
from tests.support.local import LocalInstallation
from tests.unit.serve.conftest import API, connect


@pytest.fixture
async def client(
    redis_server: EmbeddedServer, redis_namespace: str, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    store = RedisStore.connect(redis_server.url, redis_namespace)
    key = await make_first_key(store, 1)
    async with LocalInstallation(store, tmp_path) as installation:
        app = build_app(installation.gateway, Settings())
        async with connect(app, key) as found:
            yield found
    await store.close()


async def posted(client: httpx.AsyncClient, path: str, body: Any, *expected: int) -> Any:
    # Not httpx's own JSON, which refuses what the service is to refuse.
    headers = {"Content-Type": "application/json"}
    raw = json.dumps(body, ensure_ascii=False).encode()
    answer = await client.post(f"{API}{path}", content=raw, headers=headers, timeout=60)
    assert answer.status_code in expected, answer.text[:2_000]
    return answer.json()


async def streamed(
    client: httpx.AsyncClient, execution_id: str
) -> list[tuple[int, str, dict[str, Any]]]:
    """All events with their numbers and types."""
    url = f"/events/harmonia/executions/{execution_id}"
    async with aconnect_sse(client, "GET", url) as source:
        found = [event async for event in source.aiter_sse()]
    return [(int(event.id), event.event, json.loads(event.data)) for event in found]


def refusal(answer: Any) -> dict[str, Any]:
    """The error, which must have the envelope's form."""
    error: dict[str, Any] = answer["error"]
    assert set(error) == {"code", "message", "details"}
    assert error["code"] in ("invalid_request", "validation_error")
    return error


def nested(levels: int) -> Any:
    value: Any = "core"
    for level in range(levels):
        value = [value] if level % 2 else {"k": value}
    return value


ODD_KEYS = ["", ".", "a.b", "a:b", "{x}", "${x}", "[0]", '["x"]', "\x00", "\n", "\x7f", "__proto__"]

CARRIED: dict[str, Any] = {
    "huge integers": [2**53 + 1, -(2**63), 2**64, 10**400, -(10**4_299)],
    "floats": [0.1, 1e308, 5e-324, -0.0, 1e16, 123456789.123456789],
    "nothing": [None, "", [], {}, [[]], [{}], {"": None}, False, 0],
    "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "unicode": "\u2028\u2029\ufeff\ufffd\uffff😀 日本 \u202eabc\u202c e\u0301 é 👩\u200d👩",
    "keys": {key: key for key in ODD_KEYS},
    "what looks like ours": [
        "${tasks.a.output}",
        "$${x}",
        "{{7*7}}",
        "%s",
        "{0}",
        "$ref",
        "a\\u0000",
    ],
    "what looks like theirs": ["*1\r\n$4\r\nPING\r\n", "'; FLUSHALL", "\r\ndata: x\r\n\r\nid: 9"],
    "depth": nested(50),
    "width": list(range(20_000)),
    "nine megabytes": "x€" * 2_000_000 + "\n" * 500_000,
}


def alike(found: Any, sent: Any) -> bool:
    """Equal, and of the same kinds all the way down: 1, 1.0 and true are three things."""
    return json.dumps(found, sort_keys=True) == json.dumps(sent, sort_keys=True)


@pytest.mark.parametrize("name", CARRIED)
async def test_odd_values_come_back_as_they_went_in(client: httpx.AsyncClient, name: str) -> None:
    sent = CARRIED[name]
    echo = {"component": "harmonia", "action": "echo"}
    tasks = {
        "a": {**echo, "input": {"value": "${workflow.input.odd}"}},
        "b": {**echo, "depends_on": ["a"], "input": {"value": "${tasks.a.output.value}"}},
    }
    output = {"value": "${tasks.b.output.value}"}
    definition = {"name": "odd", "tasks": tasks, "output": output}
    workflow = await posted(client, "/workflows", definition, 201)
    request = {
        "workflow_id": workflow["workflow_id"],
        "input": {"odd": sent},
        "execution_options": {"async": False},
    }
    first = (await posted(client, "/executions", request, 200))["execution_id"]
    cut = {"execution_id": first, "name": "cut"}
    checkpoint = (await posted(client, "/state/checkpoints", cut, 201))["checkpoint_id"]
    restore = {"checkpoint_id": checkpoint, "execution_options": {"async": False}}
    again = (await posted(client, "/state/restore", restore, 200))["execution_id"]
    for execution_id in (first, again):
        shown = (await client.get(f"{API}/executions/{execution_id}")).json()
        assert shown["status"] == "completed"
        assert "odd" in shown["input"]
        for task in "ab":
            kept = await client.get(f"{API}/executions/{execution_id}/tasks/{task}/output")
            assert alike(kept.json(), {"value": sent})
        whole = await client.get(f"{API}/executions/{execution_id}/output")
        assert alike(whole.json(), {"value": sent})
        audit = (await client.get(f"{API}/executions/{execution_id}/audit")).json()
        assert (audit["complete"], audit["violations"]) == (True, [])
    events = await streamed(client, first)
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    outputs = [data["output"] for _, kind, data in events if kind == "task_completed"]
    assert len(outputs) == 2
    for told in outputs:
        assert "$ref" in told or alike(told, {"value": sent})


REFUSED: dict[str, tuple[bytes, str]] = {
    "a lone surrogate": (b'"\\ud800"', "\\ud800"),
    "a lone surrogate as a key": (b'{"\\udfff": 1}', "\\udfff"),
    "NaN": (b"NaN", "NaN"),
    "infinity": (b"-Infinity", "-Infinity"),
    "a float beyond all floats": (b"1e999", "1e999"),
    "an integer beyond all bounds": (b"9" * 4_301, "4300 digits"),
    "depth": (b"[" * 100 + b"]" * 100, "64 levels"),
    "endless depth": (b"[" * 1_000_000, "64 levels"),
    "a raw control character": (b'"\x01"', "control character"),
    "no UTF-8": (b'"\xed\xa0\x80"', "not UTF-8"),
    "a key twice": (b'{"a": 1, "a": 2}', "'a' comes twice"),
}


@pytest.mark.parametrize("place", ["/executions", "/workflows", "/state/restore", "/templates"])
@pytest.mark.parametrize("name", REFUSED)
async def test_odd_values_that_json_cannot_carry_are_refused_and_named(
    client: httpx.AsyncClient, name: str, place: str
) -> None:
    value, told = REFUSED[name]
    raw = b'{"input": ' + value + b"}"
    headers = {"Content-Type": "application/json"}
    answer = await client.post(f"{API}{place}", content=raw, headers=headers)
    assert answer.status_code == 400, answer.text[:500]
    assert told in refusal(answer.json())["message"]


async def test_more_than_may_be_sent_is_refused_as_such(client: httpx.AsyncClient) -> None:
    answer = await posted(client, "/executions", {"input": {"x": "x" * 10_000_000}}, 413)
    assert "10000000 bytes" in refusal(answer)["message"]


NAMES = [
    *("", " ", ".", "..", "a.b", "a:b", "a/b", "../x", "{x}", "${x}", "$${x}", "[0]", '["x"]', "*"),
    *("%2F", "a b", " a", "a ", "é", "日本", "😀", "a\u202eb", "\x00", "a\nb", "a\tb", "\x7f"),
    *("\ufeff", "a\u2028b", "x" * 128, "x" * 129, "€" * 128, "task", "output", "__proto__", "-"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_odd_names_of_tasks_are_refused_or_are_names_like_any_other(
    client: httpx.AsyncClient, name: str
) -> None:
    echo = {"component": "harmonia", "action": "echo", "input": {"value": 1}}
    tasks = {name: echo, "last": {**echo, "depends_on": [name]}}
    made = await posted(client, "/workflows", {"name": "odd", "tasks": tasks}, 201, 422)
    if "error" in made:
        fields = [problem["field"] for problem in refusal(made)["details"]["errors"]]
        assert any(field.startswith("tasks") for field in fields), fields
        return
    request = {"workflow_id": made["workflow_id"], "execution_options": {"async": False}}
    execution_id = (await posted(client, "/executions", request, 200))["execution_id"]
    path = f"{API}/executions/{execution_id}"
    shown = (await client.get(path)).json()
    assert list(shown["task_status"]) == [name, "last"]
    listed = (await client.get(f"{path}/tasks")).json()["items"]
    assert [item["task_name"] for item in listed] == [name, "last"]
    output = await client.get(f"{path}/tasks/{quote(name, safe='')}/output")
    assert output.json() == {"value": 1}
    assert (await client.get(f"{path}/audit")).json()["violations"] == []


def test_minus_zero_is_told_from_zero() -> None:
    assert not alike(-0.0, 0.0)
    assert not alike(1, 1.0)
    assert alike(math.pi, math.pi)
