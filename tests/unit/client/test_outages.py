"""How long a follower of either client asks for a stream that nothing serves any more."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harmonia_serve.client import AsyncHarmoniaClient, HarmoniaClient, ServiceUnreachable

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    b'id: 1\nevent: execution_started\ndata: {"timestamp": "t", "data": {}}\n\n'
)


@contextmanager
def gone_after(streams: int) -> Iterator[str]:
    """A service that answers with so many streams, of one event each, and is gone for good."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            for _ in range(streams):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(HEAD)
            listener.close()

        serving = threading.Thread(target=serve)
        serving.start()
        yield f"http://127.0.0.1:{port}"
        serving.join(10)


class Pauses:
    """Stands in for `time` and `asyncio` in the clients alone: other threads sleep as they did."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


class AsyncPauses(Pauses):
    async def sleep(self, seconds: float) -> None:  # type: ignore[override]
        self.slept.append(seconds)

    def __getattr__(self, name: str) -> object:
        return getattr(asyncio, name)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the clients would sleep."""
    blocking, awaited = Pauses(), AsyncPauses()
    awaited.slept = blocking.slept
    monkeypatch.setattr("harmonia_serve.client.synchronous.time", blocking)
    monkeypatch.setattr("harmonia_serve.client.asynchronous.asyncio", awaited)
    return blocking.slept


@pytest.mark.parametrize(("streams", "least", "most"), [(1, 100, 130), (0, 20, 40)])
def test_a_service_that_was_there_is_awaited_longer(
    pauses: list[float], streams: int, least: int, most: int
) -> None:
    with (
        gone_after(streams) as url,
        HarmoniaClient(url, "k") as client,
        pytest.raises(ServiceUnreachable),
    ):
        list(client.events("exec-1"))
    assert least <= sum(pauses) <= most


@pytest.mark.parametrize(("streams", "least", "most"), [(1, 100, 130), (0, 20, 40)])
async def test_the_async_client_does_the_same(
    pauses: list[float], streams: int, least: int, most: int
) -> None:
    with gone_after(streams) as url:
        async with AsyncHarmoniaClient(url, "k") as client:
            with pytest.raises(ServiceUnreachable):
                async for _ in client.events("exec-1"):
                    pass
    assert least <= sum(pauses) <= most
