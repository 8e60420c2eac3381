"""A wire between a client and a server: counts round trips, and can lose replies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Wire:
    """Passes bytes on, both ways.

    A round trip is counted whenever the client starts to send again after the server answered.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.round_trips = 0
        self.connections = 0
        #: While set, what the server answers is thrown away and the connection cut.
        self.lose_replies = False
        #: The same, but only for every other request that has these bytes in it.
        self.lose_to = b""
        self.asked = 0
        #: While set, nothing is passed on.
        self.silent = False
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        """Listen; gives the port."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _is_to_be_lost(self, asked: bytes) -> bool:
        """Whether the answer to this request is."""
        if not self.lose_to or self.lose_to not in asked:
            return False
        self.asked += 1
        return self.asked % 2 == 1

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        try:
            await self._pass_on(reader, writer, far_reader, far_writer)
        finally:
            for end in (writer, far_writer):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        doomed = asyncio.Event()
        answered = asyncio.Event()
        answered.set()

        async def forward() -> None:
            while data := await reader.read(1 << 16):
                if answered.is_set():
                    self.round_trips += 1
                    answered.clear()
                if self._is_to_be_lost(data):
                    doomed.set()
                if not self.silent:
                    far_writer.write(data)
                    await far_writer.drain()

        async def back() -> None:
            while data := await far_reader.read(1 << 16):
                if self.lose_replies or doomed.is_set():
                    return
                answered.set()
                writer.write(data)
                await writer.drain()

        ways = [asyncio.create_task(forward()), asyncio.create_task(back())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


@asynccontextmanager
async def wired(url: str) -> AsyncIterator[tuple[Wire, str]]:
    """A wire to the server at a URL, and the URL of its near end."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    wire = Wire(parts.hostname, parts.port)
    async with wire.open() as port:
        yield wire, url.replace(f":{parts.port}/", f":{port}/")
