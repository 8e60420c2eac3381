"""Log lines on streams: for those who ask; for all others the streams are as if there were none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from harmonia_actors.core.cursors import Place
from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from harmonia_serve.summaries import summarised
from tests.unit.serve.conftest import Serve, Served, messages_of
from tests.unit.serve.gateway import MemoryGateway

QUICK = Settings(stream_heartbeat_s=0.02)
AT_ONCE = Settings(stream_summary_interval_ms=0)


@pytest.fixture
def app(gateway: MemoryGateway) -> FastAPI:
    return build_app(gateway, QUICK)


@pytest.fixture
async def served(app: FastAPI, serve: Serve) -> AsyncIterator[Served]:
    async with serve(app) as found:
        yield found


async def wrote(gateway: MemoryGateway, execution_id: str, name: str = "a") -> None:
    line = {"stream": "log", "level": "info", "text": "here", "timestamp_ms": 1}
    data = {"task_name": name, "attempt": 1, "lines": [line], "dropped": 0}
    await gateway.append(execution_id, "task_log", data)


async def history(gateway: MemoryGateway, execution_id: str) -> None:
    """Ids 1, 1-1, 2, 2-1, 3, 4, 4-1 and 5."""
    await gateway.append(execution_id, "execution_started", {})
    await wrote(gateway, execution_id)
    await gateway.append(execution_id, "task_started", {"task_name": "a", "task_index": 0})
    await wrote(gateway, execution_id)
    await gateway.append(execution_id, "task_progress", {"task_name": "a", "progress": 0.5})
    await gateway.append(execution_id, "task_completed", {"task_name": "a", "task_index": 0})
    await wrote(gateway, execution_id, "b")
    await gateway.append(execution_id, "execution_completed", {"output": {}})


WANTED = {
    "": "1 2 3 4 5",
    "?logs=false": "1 2 3 4 5",
    "?logs=true": "1 1-1 2 2-1 3 4 4-1 5",
    "?type=task_log": "1-1 2-1 4-1",
    "?type=task_log&task=a": "1-1 2-1",
    "?type=task_started": "2",
    "?type=task_started&logs=true": "1-1 2 2-1 4-1",
    "?task=a": "2 3 4",
    "?task=a&logs=true": "1-1 2 2-1 3 4",
    "?after=2&logs=true": "2-1 3 4 4-1 5",
    "?after=2-1&logs=true": "3 4 4-1 5",
    "?after=2-1": "3 4 5",
    "?until=3": "1 2 3",
    "?until=2-1&logs=true": "1 1-1 2 2-1",
    "?until=99": "1 2 3 4 5",
    "?until=4-1&after=2": "3 4",
}


async def messages(served: Served, path: str, key: str) -> tuple[list[dict[str, Any]], int]:
    url, headers = f"{served.ws}/ws/harmonia/executions/{path}", {"X-API-Key": key}
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        found, code, _ = await messages_of(socket)
    return found, code


@pytest.mark.parametrize("query", WANTED)
async def test_what_is_asked_for_is_sent(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str, query: str
) -> None:
    await history(gateway, execution_id)
    found, code = await messages(served, execution_id + query, key)
    told = [each for each in found if each["type"] != "cursor"]
    assert [Place(each["seq"], each.get("part", 0)).text for each in told] == WANTED[query].split()
    assert code == 1000
    async with httpx.AsyncClient(headers={"X-API-Key": key}, timeout=10) as client:
        answer = await client.get(f"{served.http}/events/harmonia/executions/{execution_id}{query}")
    blocks = [block for block in answer.text.split("\n\n") if "data: " in block]
    ids = [block.partition("id: ")[2].partition("\n")[0] for block in blocks]
    assert ids == WANTED[query].split()


async def test_a_plain_stream_is_as_if_there_were_no_lines(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    """Not even a word of where it is, which a client of the reference would not understand."""
    await gateway.append(execution_id, "execution_started", {})
    url, headers = f"/harmonia/executions/{execution_id}", {"X-API-Key": key}
    async with (
        connect(f"{served.ws}/ws{url}", additional_headers=headers, proxy=None) as socket,
        httpx.AsyncClient(headers=headers, timeout=10) as client,
        client.stream("GET", f"{served.http}/events{url}") as answer,
    ):
        chunks = answer.aiter_text()
        text = ""
        while "execution_started" not in text:
            text += await anext(chunks)
        await wrote(gateway, execution_id)
        # Signs of life go on while there is nothing to be seen.
        while text.count(": alive") < 3:
            text += await anext(chunks)
        await gateway.append(execution_id, "execution_completed", {})
        async for chunk in chunks:
            text += chunk
        received = []
        with pytest.raises(ConnectionClosed):
            while True:
                received.append(json.loads(await socket.recv())["seq"])
    assert received == [1, 2]
    blocks = [each for each in text.split("\n\n") if each and each[0] != ":"]
    assert [each.removeprefix("retry: 2000\n").split("\n")[0] for each in blocks] == [
        "id: 1",
        "id: 2",
    ]


async def test_a_filtered_stream_says_how_far_the_lines_have_come(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    await gateway.append(execution_id, "execution_started", {})
    url = f"{served.http}/events/harmonia/executions/{execution_id}?type=task_failed"
    async with (
        httpx.AsyncClient(headers={"X-API-Key": key}, timeout=10) as client,
        client.stream("GET", url) as answer,
    ):
        chunks = answer.aiter_text()
        text = ""
        await wrote(gateway, execution_id)
        while "id: 1-1\n\n" not in text:
            text += await anext(chunks)


async def test_an_end_that_is_behind_gives_nothing(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    await gateway.append(execution_id, "execution_started", {})
    url = f"{served.http}/events/harmonia/executions/"
    async with httpx.AsyncClient(headers={"X-API-Key": key}, timeout=10) as client:
        answer = await client.get(f"{url}{execution_id}?until=1&after=1")
        unknown = await client.get(f"{url}{execution_id[:-1]}x?until=1")
        bad = await client.get(f"{url}{execution_id}?until=soon")
        summary = await client.get(f"{url}{execution_id}?until=3&detail=summary")
        lines = await client.get(f"{url}{execution_id}?logs=true&detail=summary")
        odd = await client.get(f"{url}{execution_id}?logs=perhaps")
    assert (answer.status_code, answer.text) == (204, "")
    assert unknown.status_code == 404
    found = [each.json()["error"]["details"]["errors"] for each in (bad, summary, lines, odd)]
    assert [each[0]["field"] for each in found] == ["until", "detail", "detail", "logs"]


async def test_a_summary_passes_over_lines(gateway: MemoryGateway, execution_id: str) -> None:
    """Also if a line is the last event that there is when the client comes."""
    await gateway.append(execution_id, "execution_started", {})
    started = {"task_name": "a", "task_index": 0, "total_tasks": 1}
    await gateway.append(execution_id, "task_started", started)
    await gateway.append(execution_id, "checkpoint_created", {"name": "c"})
    await wrote(gateway, execution_id)
    told = summarised(gateway, AT_ONCE, execution_id, after=0)
    got = []
    while len(got) < 3:
        got += [(each.seq, each.type) for each in await anext(told)]
    assert got == [(1, "execution_started"), (2, "execution_progress"), (3, "checkpoint_created")]
    for _ in range(3):
        await wrote(gateway, execution_id)
    await gateway.append(execution_id, "execution_completed", {})
    rest = [(each.seq, each.type) async for batch in told for each in batch]
    assert rest == [(4, "execution_completed")]
