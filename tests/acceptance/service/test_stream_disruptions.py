"""Followers that stop reading, and replicas that are killed or replaced under their streams.

Each follower ends up with every event once and in order; nobody else notices anything.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage
from websockets.sync.client import ClientConnection, connect

from harmonia_serve.client import AsyncHarmoniaClient, HarmoniaClient
from tests.support.running import ROOT, RunningService, parse_sse, until
from tests.support.sockets import ending, open_socket

#: A connection that takes little in by itself.
_WINDOW_BYTES = 4_096
TEXT = "x" * 60_000
#: More than all buffers between a replica and its client hold.
COUNT = 400

Events = list[dict[str, Any]]


def link(service: RunningService) -> socket.socket:
    """A connection to the service with a small buffer."""
    where = urlsplit(service.url)
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW_BYTES)
    made.settimeout(60)
    made.connect((where.hostname, where.port))
    return made


@contextmanager
def lazy_socket(service: RunningService, execution_id: str) -> Iterator[ClientConnection]:
    """A WebSocket that reads only what it is asked for."""
    url = f"ws{service.url.removeprefix('http')}/ws/harmonia/executions/{execution_id}"
    headers = {"X-API-Key": service.key}
    options: dict[str, Any] = {"max_queue": 1, "proxy": None, "close_timeout": 1}
    with connect(url, sock=link(service), additional_headers=headers, **options) as opened:
        yield opened


@contextmanager
def lazy_source(service: RunningService, execution_id: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The blocks of an SSE stream, each read only when it is asked for."""
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc)
    with closing(connection):
        connection.sock = link(service)
        path = f"/events/harmonia/executions/{execution_id}"
        connection.request("GET", path, headers={"X-API-Key": service.key})
        answer = connection.getresponse()
        assert answer.status == 200
        yield parse_sse(line.decode().rstrip("\n") for line in answer)


def dropped(service: RunningService, kind: str) -> float:
    """How many streams were dropped because their clients were too slow."""
    url = f"{service.url}/{kind}/harmonia/metrics"
    text = httpx.get(url, headers={"X-API-Key": service.key}, trust_env=False).text
    found = re.search(
        r'^harmonia_streams_dropped_total\{reason="slow_consumer".* (.+)$', text, re.MULTILINE
    )
    return float(found[1]) if found else 0.0


def test_readers_that_stop_are_cut_off_told_where_to_resume_and_lose_nothing(
    service: RunningService, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    tasks = {
        "wait": {
            "component": "testing",
            "action": "wait_for_file_async",
            "input": {"path": str(gate)},
        }
    }
    say = {"component": "harmonia", "action": "echo", "input": {"value": "${workflow.input.text}"}}
    tasks |= {f"t{n}": {**say, "depends_on": ["wait"]} for n in range(COUNT)}
    execution_id = service.start(service.create(tasks), {"text": TEXT})
    before = {kind: dropped(service, kind) for kind in ("ws", "events")}
    with (
        ThreadPoolExecutor(4) as threads,
        lazy_socket(service, execution_id) as slow_socket,
        lazy_source(service, execution_id) as slow_source,
    ):
        by_socket = [json.loads(slow_socket.recv(timeout=60))]
        by_source = [next(slow_source)]
        brisk = threads.submit(service.events, execution_id)
        brisk_socket = threads.submit(socket_events, service, execution_id)
        gate.touch()
        everything = [int(event["id"]) for event in brisk.result(120)]
        assert everything == list(range(1, service.status(execution_id)["last_seq"] + 1))
        assert brisk_socket.result(120) == (1000, "", everything)
        for kind, count in before.items():
            until(lambda k=kind, c=count: dropped(service, k) > c, 60, f"a slow {kind} dropped")
        rest = threads.submit(list, slow_source)
        code, reason, seqs = drain(slow_socket)
        by_source += rest.result(60)
    seqs = [by_socket[0]["seq"], *seqs]
    assert seqs == everything[: len(seqs)]
    assert len(seqs) < len(everything)
    assert (code, reason) == (4408, f"slow_consumer: resume with ?after={seqs[-1]}")
    resumed = socket_events(service, execution_id, f"?after={seqs[-1]}")
    assert resumed[0] == 1000
    assert seqs + resumed[2] == everything

    last = by_source.pop()
    ids = [int(block["id"]) for block in by_source]
    assert ids == everything[: len(ids)]
    assert (last["event"], last["data"]) == ("slow_consumer", {"after": str(ids[-1])})
    assert ids + [int(block["id"]) for block in service.events(execution_id, ids[-1])] == everything


def drain(opened: ClientConnection) -> tuple[int, str, list[int]]:
    """The close and the seqs of what came before it."""
    seqs = []
    try:
        while True:
            seqs.append(json.loads(opened.recv(timeout=60))["seq"])
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return closed.rcvd.code, closed.rcvd.reason, seqs


def socket_events(
    service: RunningService, execution_id: str, query: str = ""
) -> tuple[int, str, list[int]]:
    """All of a WebSocket, read as it comes."""
    with open_socket(service, execution_id, {"X-API-Key": service.key}, query) as opened:
        code, _, seqs = drain(opened)
    return code, "", seqs


# Replicas come and go ----------------------------------------------------------------------------


class Followers:
    """Everybody who follows one execution, each in a thread of its own; what each has heard."""

    def __init__(self, service: RunningService, execution_id: str) -> None:
        self._service = service
        self._id = execution_id
        self.heard: dict[str, Events] = {}
        self._threads = ThreadPoolExecutor(8)
        self._running = [
            self._threads.submit(follow, self.heard.setdefault(follow.__name__, []))
            for follow in (self.client, self.async_client, self.web_socket, self.client_of_all)
        ]

    def wait_for(self, task: str) -> None:
        """Wait until each has heard that a task has started."""

        def heard(events: Events) -> bool:
            return any(
                event["type"] == "task_started" and event["data"]["task_name"] == task
                for event in tuple(events)
            )

        for name, events in self.heard.items():
            until(lambda e=events: heard(e), 60, f"{name} hears of {task}")

    def check(self) -> None:
        """Wait for the end of all; each has heard everything once and in order."""
        for each in self._running:
            each.result(60)
        self._threads.shutdown()
        last = self._service.status(self._id)["last_seq"]
        for name, events in self.heard.items():
            assert [event["seq"] for event in events] == list(range(1, last + 1)), name

    def client(self, heard: Events) -> None:
        with HarmoniaClient(self._service.url, self._service.key) as client:
            for event in client.events(self._id):
                heard.append(dict(event))

    def async_client(self, heard: Events) -> None:
        async def follow() -> None:
            async with AsyncHarmoniaClient(self._service.url, self._service.key) as client:
                async for event in client.events(self._id):
                    heard.append(dict(event))

        asyncio.run(follow())

    def client_of_all(self, heard: Events) -> None:
        with HarmoniaClient(self._service.url, self._service.key) as client:
            for event in client.events(after="0"):
                if event["execution_id"] == self._id:
                    heard.append(dict(event))
                    if event["type"] == "execution_completed":
                        return

    def web_socket(self, heard: Events) -> None:
        """As anybody may write it: whatever ends the connection, ask again after the last event."""

        def has_ended() -> bool:
            query = f"?after={heard[-1]['seq']}" if heard else ""
            key = {"X-API-Key": self._service.key}
            try:
                with open_socket(self._service, self._id, key, query) as opened:
                    while True:
                        heard.append(json.loads(opened.recv(timeout=60)))
            except ConnectionClosed as closed:
                return closed.rcvd is not None and closed.rcvd.code == 1000
            except (OSError, InvalidHandshake, InvalidMessage):
                return False

        until(has_ended, 120, "the end of the events by WebSocket")


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Files that tasks wait for, one after the other; at the end all are there."""
    made = [tmp_path / f"gate{number}" for number in range(3)]
    yield made.__getitem__
    for gate in made:
        gate.touch()


@pytest.fixture
def execution_id(service: RunningService, gates: Callable[[int], Path]) -> str:
    """An execution that passes three gates."""
    tasks = {
        f"w{number}": {
            "component": "testing",
            "action": "wait_for_file_async",
            "input": {"path": str(gates(number))},
            "depends_on": [f"w{number - 1}"] if number else [],
        }
        for number in range(3)
    }
    return service.start(service.create(tasks))


def replicas(service: RunningService, kind: str) -> list[psutil.Process]:
    """The processes that serve one kind of stream."""
    found = []
    for process in service.processes():
        try:
            title = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if title.startswith(f"ray::ServeReplica:harmonia-{kind}"):
            found.append(process)
    return found


def test_followers_go_on_where_they_were_when_replicas_are_killed(
    service: RunningService, execution_id: str, gates: Callable[[int], Path]
) -> None:
    followers = Followers(service, execution_id)
    for number in range(2):
        followers.wait_for(f"w{number}")
        killed = replicas(service, "websocket") + replicas(service, "events")
        assert len(killed) == 2
        for process in killed:
            process.kill()
        # It goes on while nobody can hear of it.
        gates(number).touch()
    followers.wait_for("w2")
    gates(2).touch()
    followers.check()


def redeploy(service: RunningService, kind: str) -> None:
    """Let Serve replace the replicas of one kind of stream, as in an upgrade."""
    raylet = next(process for process in service.processes() if process.name() == "raylet")
    name = "--gcs-address="
    (address,) = (word for word in raylet.cmdline() if word.startswith(name))
    subprocess.run(
        [*(sys.executable, "-m", "tests.support.redeploying"), address.removeprefix(name), kind],
        cwd=ROOT,
        env={**raylet.environ(), "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=120,
    )


def test_replaced_replicas_let_streams_go_in_order_and_others_alone(
    service: RunningService, execution_id: str, gates: Callable[[int], Path]
) -> None:
    """The proxy is reloaded each time, too: its old process keeps the streams that it has."""
    followers = Followers(service, execution_id)
    followers.wait_for("w0")
    with ExitStack() as stack:
        key = {"X-API-Key": service.key}
        opened = stack.enter_context(open_socket(service, execution_id, key))
        blocks = stack.enter_context(lazy_source(service, execution_id))
        assert [json.loads(opened.recv(timeout=60))["seq"] for _ in "12"] == [1, 2]
        assert [next(blocks)["id"] for _ in "12"] == ["1", "2"]
        told: list[tuple[int, str, list[int]]] = []
        reading = threading.Thread(target=lambda: told.append(drain(opened)))
        reading.start()
        redeploy(service, "websocket")
        reading.join(60)
        assert told == [(1012, "this replica of the service is going: resume with ?after=2", [])]
        # A stream of the other kind has the same connection still.
        gates(0).touch()
        assert [next(blocks)["id"] for _ in "12"] == ["3", "4"]
        followers.wait_for("w1")
        rest: list[Events] = []
        reading = threading.Thread(target=lambda: rest.append(list(blocks)))
        reading.start()
        redeploy(service, "events")
        reading.join(60)
        # A whole answer, with an end, and nothing in it that is not known.
        assert rest == [[]]
    gates(1).touch()
    followers.wait_for("w2")
    gates(2).touch()
    followers.check()
    assert ending(service, execution_id, {"X-API-Key": service.key})[0] == 1000
