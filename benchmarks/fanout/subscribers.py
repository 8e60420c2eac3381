"""The process of the subscribers: raw connections, as many as are asked for, and their clock.

It takes one order, a JSON line on its input, and says two lines: when all streams are open, and
when all are over. The seq and the time of every event that came go into a file, by stream.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.fanout.reading import Reader, reader_of

__all__ = ["Received", "main", "read_received", "request_of"]

_AT_ONCE = 50
_KEY = "aGFybW9uaWEtZXZlbnRzLg=="
#: What a reader that is to stall takes in at most, in its own kernel buffer.
_STALLED_BUFFER = 4_096

#: Seqs of one stream, and the microseconds since the epoch at which each came.
Received = tuple[Sequence[int], Sequence[int]]


def request_of(kind: str, path: str, host: str, headers: dict[str, str]) -> bytes:
    """The request that opens a stream."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if kind == "websocket":
        lines += ["Connection: Upgrade", "Upgrade: websocket"]
        lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {_KEY}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class _Subscriber(asyncio.Protocol):
    """One stream. A stalled one takes nothing in once it is open."""

    def __init__(self, reader: Reader, request: bytes, *, stalls: bool) -> None:
        self.reader = reader
        self.stalls = stalls
        self.seqs = array("q")
        self.times = array("q")
        self._request = request
        self.transport: Any = None
        loop = asyncio.get_running_loop()
        #: Done once the answer has begun, or never will; and once it is over.
        self.opened: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now_us = time.time_ns() // 1_000
        for seq in self.reader.feed(data):
            self.seqs.append(seq)
            self.times.append(now_us)
        if self.reader.reply:
            self.transport.write(self.reader.reply)
            self.reader.reply = b""
        if self.reader.is_over:
            self.transport.close()
        elif self.stalls and self.reader.is_open:
            self.transport.pause_reading()
        self._note()

    def connection_lost(self, _error: Exception | None) -> None:
        self.reader.cut()
        self._note()

    def _note(self) -> None:
        if self.reader.is_over and not self.over.done():
            self.over.set_result(None)
        if (self.reader.is_open or self.reader.is_over) and not self.opened.done():
            self.opened.set_result(None)


async def _connect(order: dict[str, Any], stream: dict[str, Any]) -> _Subscriber:
    host, port = order["host"], order["port"]
    request = request_of(stream["kind"], stream["path"], f"{host}:{port}", order["headers"])
    found = _Subscriber(reader_of(stream["kind"]), request, stalls=stream.get("stalls", False))
    opened = socket.socket()
    opened.setblocking(False)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if found.stalls:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _STALLED_BUFFER)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(opened, (host, port))
    await loop.create_connection(lambda: found, sock=opened)
    await found.opened
    return found


async def _connect_all(order: dict[str, Any]) -> list[_Subscriber]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(stream: dict[str, Any]) -> _Subscriber:
        async with gate:
            return await _connect(order, stream)

    return await asyncio.gather(*(one(stream) for stream in order["streams"]))


async def _run(order: dict[str, Any]) -> None:
    async with asyncio.timeout(order["patience_s"]):
        streams = await _connect_all(order)
    _say({"open": sum(not stream.reader.is_over for stream in streams)})
    readers = [stream for stream in streams if not stream.stalls]
    await asyncio.wait([stream.over for stream in readers], timeout=order["patience_s"])
    problems = [
        stream.reader.problem if stream.over.done() else "a stream has not ended"
        for stream in readers
    ]
    _write(streams, Path(order["into"]))
    _say({"problems": sorted({problem for problem in problems if problem})})
    # What this process took is looked at before it may end.
    sys.stdin.readline()


def _write(streams: Sequence[_Subscriber], into: Path) -> None:
    with into.open("wb") as file:
        for stream in streams:
            array("q", [len(stream.seqs)]).tofile(file)
            stream.seqs.tofile(file)
            stream.times.tofile(file)


def read_received(path: Path) -> list[Received]:
    """What came on each stream, in the order of the order's streams."""
    values = array("q", path.read_bytes())
    found: list[Received] = []
    at = 0
    while at < len(values):
        count, begin = values[at], at + 1
        at = begin + 2 * count
        found.append((values[begin : begin + count], values[begin + count : at]))
    return found


def _say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


def main() -> int:
    """Subscribe, and tell what came."""
    uvloop.run(_run(json.loads(sys.stdin.readline())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
