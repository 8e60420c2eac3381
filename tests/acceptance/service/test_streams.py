"""Streams as strangers use them, through the ingress: of everything, filtered, summed up, misused.

What both streams send of one execution, and how they refuse a key, is tried in
`test_reference_events`, `test_errors` and `test_security`.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from harmonia_serve.client import AsyncHarmoniaClient, HarmoniaClient
from tests.acceptance.service.conftest import STREAMS
from tests.support.running import RunningService, parse_sse
from tests.support.sockets import open_socket, until_closed
from tests.support.subscribing import by_sse, by_websocket, refusal, until_found

NOOP = {"component": "harmonia", "action": "noop"}
FAIL = {"component": "harmonia", "action": "fail", "input": {"message": "no"}}
FINAL = ("execution_completed", "execution_failed", "execution_cancelled")
PER_KEY, PER_REPLICA = (
    int(STREAMS[f"HARMONIA_STREAMS_PER_{name}_MAX"]) for name in ("KEY", "REPLICA")
)
UNKNOWN = "123e4567-e89b-12d3-a456-426614174999"
Messages = list[dict[str, Any]]


@pytest.fixture
def waiting(service: RunningService, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An execution that runs until its gate, a file, is there; and the gate."""
    gate = tmp_path / "gate"
    task = {"component": "testing", "action": "wait_for_file_async", "input": {"path": str(gate)}}
    execution_id = service.start(service.create({"wait": task}))
    service.wait_running(execution_id, "wait")
    yield execution_id, gate
    gate.touch()
    assert service.finish(execution_id)["status"] == "completed"


@contextmanager
def new_key(service: RunningService, *scopes: str) -> Iterator[tuple[str, str]]:
    """The id and the secret of a key that is revoked at the end."""
    answer = service.api.post("/keys", json={"name": "streams", "scopes": scopes})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    yield made["key_id"], made["api_key"]
    service.api.delete(f"/keys/{made['key_id']}")


def get(
    service: RunningService, path: str, key: str | None = None, **headers: str
) -> httpx.Response:
    """A stream that ends, or a refusal, by SSE."""
    sent = {"X-API-Key": service.key if key is None else key, **headers}
    url = f"{service.url}/events/harmonia{path}"
    return httpx.get(url, headers=sent, timeout=60, trust_env=False)


def everything(service: RunningService, query: str, **headers: str) -> Messages:
    """What the log of the installation has now, by SSE, up to its `end`."""
    answer = get(service, f"/executions?follow=false{query}", **headers)
    if answer.status_code == 204:
        return []
    assert answer.status_code == 200, answer.text
    # Not by `splitlines`: other executions have names with line separators of Unicode in them.
    *found, end = list(parse_sse(iter(answer.text.split("\n"))))
    assert end["event"] == "end"
    assert [block["id"] for block in found] == [block["data"]["cursor"] for block in found]
    assert [block["event"] for block in found] == [block["data"]["type"] for block in found]
    return [block["data"] for block in found]


def of(executions: Sequence[str], messages: Messages) -> Messages:
    """The messages about these executions: others may be under way."""
    return [message for message in messages if message.get("execution_id") in executions]


def begin_of(messages: Iterator[dict[str, Any]]) -> str:
    """A stream of everything first says where it begins."""
    first = next(messages)
    assert first["type"] == "cursor"
    return str(first["cursor"])


# Everything --------------------------------------------------------------------------------------


def test_all_executions_are_told_live_once_and_in_order(service: RunningService) -> None:
    with by_websocket(service, "/executions") as live:
        messages = iter(live)
        begin = begin_of(messages)
        tasks = {"a": NOOP, "b": {**NOOP, "depends_on": ["a"]}}
        mine = [service.start(service.create(tasks)) for _ in range(3)]
        mine.append(service.start(service.create({"f": FAIL})))
        ended: set[str] = set()

        def all_ended(message: dict[str, Any]) -> bool:
            if message["type"] in FINAL:
                ended.add(message["execution_id"])
            return ended >= set(mine)

        told = of(mine, until_found(messages, all_ended))
    for execution_id in mine:
        own = [message["seq"] for message in of([execution_id], told)]
        assert own == list(range(1, service.status(execution_id)["last_seq"] + 1))
    # The log says the same as what was told live, and wherever one begins the rest of it.
    for number, begins_after in enumerate([begin, *(message["cursor"] for message in told)]):
        assert of(mine, everything(service, f"&after={begins_after}")) == told[number:]
        resumed = everything(service, "&after=0", **{"Last-Event-ID": begins_after})
        assert of(mine, resumed) == told[number:]
    with by_websocket(service, "/executions", query=f"?follow=false&after={begin}") as found:
        *rest, end = list(found)
    assert (of(mine, rest), end["type"], found.code) == (told, "end", 1000)

    listed = subprocess.run(
        [sys.executable, "-m", "harmonia_serve.cli", "events", "--json", "--after", begin],
        env={**os.environ, "HARMONIA_URL": service.url, "HARMONIA_API_KEY": service.key},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    events = [json.loads(line) for line in listed.stdout.splitlines()]
    assert of(mine, events) == [
        {name: value for name, value in message.items() if name != "timestamp_ms"}
        for message in told
    ]


def test_filters_pass_what_is_asked_for_on_both(service: RunningService) -> None:
    with by_websocket(service, "/executions") as live:
        begin = begin_of(iter(live))
    found = service.run({"good": NOOP, "bad": FAIL, "after": {**NOOP, "depends_on": ["bad"]}})
    service.run({"good": NOOP})
    workflow_id, execution_id = found["workflow_id"], found["execution_id"]
    own = of([execution_id], everything(service, f"&after={begin}"))

    def task(message: dict[str, Any]) -> str | None:
        name: str | None = message["data"].get("task_name")
        return name

    kinds = ("task_skipped", "task_completed")
    expected = {
        "": own,
        "&type=task_skipped,task_completed": [m for m in own if m["type"] in kinds],
        "&task=bad": [m for m in own if task(m) == "bad"],
        "&status=failed": [m for m in own if m["type"] in ("task_failed", "execution_failed")],
        "&status=running&task=good": [
            m for m in own if (m["type"], task(m)) == ("task_started", "good")
        ],
    }
    assert all(expected.values())
    for query, wanted in expected.items():
        narrowed = f"&after={begin}&workflow_id={workflow_id}{query}"
        assert everything(service, narrowed) == wanted
        with by_websocket(service, "/executions", query=f"?follow=false{narrowed}") as messages:
            *told, _end = list(messages)
        # Where it stands is said before anything is wanted.
        assert [m for m in told if m["type"] != "cursor"] == wanted
    for query, wanted in {
        "task=bad": [m["seq"] for m in own if task(m) == "bad"],
        "type=task_skipped,task_failed": [
            m["seq"] for m in own if m["type"] in ("task_skipped", "task_failed")
        ],
        "task=after&type=task_started": [],
    }.items():
        with by_websocket(service, f"/executions/{execution_id}", query=f"?{query}") as messages:
            assert [m["seq"] for m in messages if m["type"] != "cursor"] == wanted
        assert messages.code == 1000
        with by_sse(service, execution_id, f"?{query}") as blocks:
            assert [int(block["id"]) for block in blocks] == wanted


def test_a_cursor_of_another_log_is_a_gap_and_never_silence(service: RunningService) -> None:
    strange = "1795000000000-4000000000"
    (gap,) = (m for m in everything(service, f"&after={strange}") if m["type"] == "gap")
    assert (gap["seq"], gap["data"]["reason"]) == (0, "unknown_cursor")
    with by_websocket(service, "/executions", query=f"?after={strange}&task=none") as live:
        messages = iter(live)
        (told,) = (
            m for m in until_found(messages, lambda m: m["type"] == "gap") if m["type"] == "gap"
        )
        assert told["data"]["reason"] == "unknown_cursor"
        # It goes on from there.
        assert of(["x"], everything(service, f"&after={told['cursor']}")) == []


def test_a_revoked_key_ends_streams_of_everything(service: RunningService) -> None:
    with new_key(service, "read") as (key_id, key), ExitStack() as stack:
        live = stack.enter_context(by_websocket(service, "/executions", key=key))
        blocks = stack.enter_context(by_sse(service, "", **{"X-API-Key": key}))
        begin_of(iter(live))
        assert service.api.delete(f"/keys/{key_id}").status_code == 200
        list(live)
        assert live.code == 4401
        # It ends, although there is no end to what it tells of.
        list(blocks)
        assert get(service, "/executions", key).status_code == 401


# Summaries ---------------------------------------------------------------------------------------


async def test_a_thousand_tasks_are_summed_up_in_few_messages(service: RunningService) -> None:
    count = 1_000
    workflow_id = service.create({f"t{n}": NOOP for n in range(count)})
    began = time.monotonic()
    execution_id = service.start(workflow_id)
    path = f"/executions/{execution_id}"
    with by_websocket(service, path, query="?detail=summary") as live:
        told = list(live)
    took_s = time.monotonic() - began
    assert live.code == 1000
    # Each half second one, one before each of the execution's own events, and those.
    assert len(told) <= took_s / 0.5 + 5
    assert [told[0]["type"], told[-1]["type"]] == ["execution_started", "execution_completed"]
    last = 2 * count + 2
    assert told[-1]["seq"] == last
    seqs = [message["seq"] for message in told]
    assert seqs == sorted(set(seqs))
    final = told[-2]["data"]
    assert (final["progress"], final["tasks"]["completed"]) == (1.0, count)

    with by_sse(service, execution_id, "?detail=summary") as blocks:
        found = list(blocks)
    assert [block["data"] for block in found] == [m["data"] for m in (told[0], *told[-2:])]
    with HarmoniaClient(service.url, service.key) as client:
        progress = list(client.execution(execution_id).progress())
    assert [event["data"] for event in progress] == [block["data"] for block in found]
    async with AsyncHarmoniaClient(service.url, service.key) as other:
        execution = await other.execution(execution_id)
        assert [event async for event in execution.progress(after=1)] == progress[1:]


# The wire ----------------------------------------------------------------------------------------


def test_curl_reads_on_through_heartbeats_and_whatever_timeout_it_claims(
    service: RunningService, waiting: tuple[str, Path]
) -> None:
    execution_id, gate = waiting
    url = f"{service.url}/events/harmonia/executions/{execution_id}"
    # Serve would end a request after the time that a client names, were it to hear of it.
    command = ["curl", "-sSN", "--max-time", "60", "-H", f"X-API-Key: {service.key}"]
    command += ["-H", "X-Request-Timeout-Seconds: 1"]
    with subprocess.Popen([*command, url], stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        lines: list[str] = []
        while lines.count(": alive\n") < 2:
            lines.append(curl.stdout.readline())
            assert lines[-1], f"it ended: {lines}"
        gate.touch()
        lines += curl.stdout.readlines()
    assert curl.returncode == 0
    assert lines[:4] == [": open\n", "\n", "retry: 2000\n", "id: 1\n"]
    assert sum(line.startswith("retry:") for line in lines) == 1
    ids = [line[4:-1] for line in lines if line.startswith("id: ")]
    kinds = [line[7:-1] for line in lines if line.startswith("event: ")]
    assert ids == ["1", "2", "3", "4"]
    assert [kinds[0], kinds[-1]] == ["execution_started", "execution_completed"]
    command += ["-H", "Last-Event-ID: 2", url]
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert again.stdout.startswith(": open\n\nretry: 2000\nid: 3\n")
    assert again.stdout.count("\nid: ") == 2


def test_what_the_streams_count_is_shown_to_those_with_a_key(
    service: RunningService, waiting: tuple[str, Path]
) -> None:
    execution_id, _ = waiting

    def metrics(kind: str, key: str) -> httpx.Response:
        url = f"{service.url}/{kind}/harmonia/metrics"
        return httpx.get(url, headers={"X-API-Key": key} if key else {}, trust_env=False)

    with (
        open_socket(service, execution_id, {"X-API-Key": service.key}) as socket,
        by_sse(service, execution_id) as blocks,
    ):
        socket.recv(timeout=30)
        next(blocks)
        for kind, surface in (("ws", "websocket"), ("events", "sse")):
            assert metrics(kind, "").status_code == 401
            assert metrics(kind, "wrong").status_code == 401
            shown = metrics(kind, service.key)
            assert shown.status_code == 200
            (gauge,) = (
                line.split()[1]
                for line in shown.text.splitlines()
                if line.startswith(f'harmonia_streams_open{{surface="{surface}"}}')
            )
            assert float(gauge) >= 1
            assert f'harmonia_events_delivered_total{{surface="{surface}"}}' in shown.text
        with new_key(service, "write") as (_, key):
            assert metrics("ws", key).status_code == 403


# Limits ------------------------------------------------------------------------------------------


async def test_one_key_and_all_keys_have_so_many_streams_and_no_more(
    service: RunningService, waiting: tuple[str, Path]
) -> None:
    execution_id, _ = waiting
    path = f"/executions/{execution_id}"
    url = f"ws{service.url.removeprefix('http')}/ws/harmonia{path}"

    async def opened(key: str) -> Any:
        socket = await connect(url, additional_headers={"X-API-Key": key}, proxy=None)
        held.push_async_callback(socket.close)
        return socket

    async def holds(socket: Any) -> bool:
        try:
            return bool(json.loads(await socket.recv())["seq"])
        except ConnectionClosed:
            return False

    with ExitStack() as keys:
        secrets = [keys.enter_context(new_key(service, "read"))[1] for _ in range(6)]
        async with AsyncExitStack() as held:
            first = [await opened(secrets[0]) for _ in range(PER_KEY)]
            assert all([await holds(socket) for socket in first])
            code, reason = refusal(service, path, key=secrets[0])
            assert (code, f"has {PER_KEY} streams open" in reason) == (4429, True)
            # Others are not concerned, until there is no room for anybody.
            more = [await opened(key) for key in secrets[1:] for _ in range(PER_KEY)]
            holding = [socket for socket in more if await holds(socket)]
            assert len(first) + len(holding) <= PER_REPLICA
            assert len(holding) >= PER_REPLICA - PER_KEY - 5
            full = next(socket for socket in more if socket not in holding)
            assert full.close_code == 4429
            assert full.close_reason.startswith("This replica holds")
            # The other kind of stream has replicas of its own.
            with by_sse(service, execution_id, **{"X-API-Key": secrets[0]}) as blocks:
                next(blocks)
        with by_websocket(service, path, key=secrets[0]) as live:
            next(iter(live))
        with ExitStack() as sources:
            mine = {"X-API-Key": secrets[1]}
            # A source that nobody has a hold of is closed.
            held_sources = [
                sources.enter_context(by_sse(service, execution_id, **mine)) for _ in range(PER_KEY)
            ]
            for source in held_sources:
                next(source)
            refused = get(service, path, secrets[1])
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
            assert refused.json()["error"]["code"] == "rate_limit_exceeded"


# Misuse ------------------------------------------------------------------------------------------

ODD_QUERIES = {
    "?after=x": (422, "after"),
    "?after=-1": (422, "after"),
    f"?after={'1' * 2_000}": (422, "after"),
    "?type=task_fail": (422, "did you mean 'task_failed'"),
    "?status=done": (422, "there are: "),
    f"?task={'x' * 2_000}": (422, "task"),
    "?follow=perhaps": (422, "follow"),
    "?detail=summary": (422, "there is no such query parameter"),
    f"?workflow_id=wf-{UNKNOWN}": (404, UNKNOWN),
    "?workflow_id=*": (422, "workflow_id"),
}
ODD_QUERIES_OF_ONE = {
    "?detail=summery": (422, "detail"),
    "?detail=summary&task=a": (422, "a summary is one of all events"),
    "?type=task_fail": (422, "did you mean 'task_failed'"),
    "?workflow_id=x": (422, "there is no such query parameter"),
    f"?after={2**60}": (422, "after"),
}


@pytest.mark.parametrize(
    ("path", "queries"),
    [("/executions", ODD_QUERIES), (f"/executions/exec-{UNKNOWN}", ODD_QUERIES_OF_ONE)],
    ids=["all", "one"],
)
def test_odd_queries_are_refused_and_say_why(
    service: RunningService, path: str, queries: dict[str, tuple[int, str]]
) -> None:
    for query, (status, words) in queries.items():
        answer = get(service, path + query)
        assert (answer.status_code, words in answer.text) == (status, True), (query, answer.text)
        assert len(answer.content) < 2_000
        code, reason = refusal(service, path, query=query)
        assert code == (4400 if status == 422 else 4404)
        # There is one parameter more for SSE, at the end of the list of those that there are.
        assert answer.json()["error"]["message"].startswith(reason[:90])


def test_a_query_without_an_end_is_refused_before_it_has_one(service: RunningService) -> None:
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=60)
    with closing(connection):
        path = f"/events/harmonia/executions?task={'x' * 60_000}"
        connection.request("GET", path, headers={"X-API-Key": service.key})
        assert connection.getresponse().status == 400


@pytest.mark.parametrize("size", [5_000, 10_000_000])
def test_a_large_message_ends_a_websocket_and_nothing_else(
    service: RunningService, waiting: tuple[str, Path], size: int
) -> None:
    execution_id, gate = waiting
    headers = {"X-API-Key": service.key}
    with (
        open_socket(service, execution_id, headers) as rude,
        open_socket(service, execution_id, headers) as other,
    ):
        rude.recv(timeout=30)
        with pytest.raises(ConnectionClosed) as closed:
            rude.send("x" * size)
            while True:
                rude.recv(timeout=30)
        # Whoever sends on is cut off before the code can reach it.
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
        assert closed.value.rcvd is not None or size > 100_000
        gate.touch()
        code, messages = until_closed(other)
    assert (code, [message["seq"] for message in messages]) == (1000, [1, 2, 3, 4])


def test_a_client_that_talks_without_end_is_cut_off(
    service: RunningService, waiting: tuple[str, Path]
) -> None:
    with open_socket(service, waiting[0], {"X-API-Key": service.key}) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(2_000):
                socket.send("are you there?")
            while True:
                socket.recv(timeout=30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
