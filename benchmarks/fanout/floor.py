"""The floor: one bare uvicorn process that sends the same messages from memory.

No store, no engine, no framework, no key: what is left is a server in Python that writes to as many
sockets. Messages are made beforehand in both wire formats; each client sends what it lacks, and an
event stream gets all of it in one write.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import uvicorn

from harmonia_actors.core.events import ExecutionCancelled, TaskProgress, encode_event

__all__ = ["HISTORY", "Topic", "answer", "body_of", "main", "messages"]

#: The stream that those ask for who then take nothing in: longer than all buffers on its way.
HISTORY = "history"
_HISTORY_COUNT, _HISTORY_BYTES = 400, 60_000

_ASGI = Callable[[dict[str, Any]], Awaitable[None]]
_Receive = Callable[[], Awaitable[dict[str, Any]]]
_NAME = "exec-00000000-0000-0000-0000-000000000000"


def messages(count: int, size: int) -> list[tuple[str, bytes]]:
    """So many events as (WebSocket message, SSE frame), the last one an end."""
    found = []
    for seq in range(1, count + 1):
        event: TaskProgress | ExecutionCancelled = TaskProgress("emit-0", 0.5, f"{seq}".ljust(size))
        if seq == count:
            event = ExecutionCancelled("wf-1", "benchmark", 5)
        body = encode_event(event, seq=seq, at_ms=1_795_000_000_000, execution_id=_NAME)
        data = body[body.index(b',"data":') + 8 : -1]
        frame = b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, event.type.encode(), data)
        found.append((body.decode(), frame))
    return found


class Topic:
    """The messages of one execution that have been published so far."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.frames: list[bytes] = []
        self.published_us: list[int] = []
        self.changed = asyncio.Event()

    def publish(self, made: Sequence[tuple[str, bytes]]) -> None:
        """More of them, at once."""
        now_us = time.time_ns() // 1_000
        for text, frame in made:
            self.texts.append(text)
            self.frames.append(frame)
            self.published_us.append(now_us)
        self.changed.set()
        self.changed = asyncio.Event()


class _Floor:
    """Streams are `/websocket/N` and `/sse/N`; `POST /begin` publishes, and answers with times."""

    def __init__(self) -> None:
        self._topics: dict[str, Topic] = {}

    async def __call__(self, scope: dict[str, Any], receive: _Receive, send: _ASGI) -> None:
        kind, name = scope["path"].rpartition("/")[::2]
        if scope["type"] == "websocket":
            await self._websocket(self._topic(name), send)
        elif kind == "/sse":
            await self._event_stream(self._topic(name), send)
        elif name == "begin":
            await self._begin(receive, send)
        else:
            await answer(send, b"")

    def _topic(self, name: str) -> Topic:
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = Topic()
            if name == HISTORY:
                topic.publish(messages(_HISTORY_COUNT, _HISTORY_BYTES))
        return topic

    async def _websocket(self, topic: Topic, send: _ASGI) -> None:
        await send({"type": "websocket.accept"})
        at, count = 0, None
        while count is None or at < count:
            changed = topic.changed
            while at < len(topic.texts):
                await send({"type": "websocket.send", "text": topic.texts[at]})
                at += 1
            count = self._count
            if count is None or at < count:
                await changed.wait()
        await send({"type": "websocket.close", "code": 1000})

    async def _event_stream(self, topic: Topic, send: _ASGI) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _write(send, b": open\n\n", more=True)
        at, count = 0, None
        while count is None or at < count:
            changed = topic.changed
            waiting = topic.frames[at:]
            if waiting:
                await _write(send, b"".join(waiting), more=True)
                at += len(waiting)
            count = self._count
            if count is None or at < count:
                await changed.wait()
        await _write(send, b"", more=False)

    #: How many messages a topic will have in the end; None before that is known.
    _count: int | None = None

    async def _begin(self, receive: _Receive, send: _ASGI) -> None:
        order = json.loads(await body_of(receive))
        made = messages(order["count"], order["size"])
        topics = [self._topic(str(number)) for number in range(order["topics"])]
        self._count = len(made)
        await asyncio.gather(
            *(
                _emit(topic, made, order["per_s"], order["spread_s"] * number / len(topics))
                for number, topic in enumerate(topics)
            )
        )
        await answer(send, json.dumps([topic.published_us for topic in topics]).encode())


async def _emit(
    topic: Topic, made: Sequence[tuple[str, bytes]], per_s: float, after_s: float
) -> None:
    """Publish at fixed times; all at once if there is no rate."""
    if not per_s:
        topic.publish(made)
        return
    loop = asyncio.get_running_loop()
    begun = loop.time() + after_s
    for number, message in enumerate(made):
        await asyncio.sleep(max(0.0, begun + number / per_s - loop.time()))
        topic.publish([message])


async def body_of(receive: _Receive) -> bytes:
    """The body of a request, whole."""
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


async def answer(send: _ASGI, body: bytes) -> None:
    """Answer a request."""
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await _write(send, body, more=False)


async def _write(send: _ASGI, body: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


def main() -> int:
    """Serve on the port that is given, until the process is ended."""
    port = int(sys.argv[1])
    uvicorn.run(_Floor(), host="127.0.0.1", port=port, log_level="error", access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
