"""WebSocket: events of one execution, or of all, as text messages, closed with a code.

What clients send is ignored, but not without end. Refusals before the stream are made by the
boundary: an accept and a close with 4400, 4401, 4403, 4404 or 4429.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response, WebSocket
from starlette.types import Send
from starlette.websockets import WebSocketDisconnect

from harmonia_actors.core.errors import ResourceNotFound
from harmonia_actors.core.event_batches import made_once
from harmonia_serve import identifiers
from harmonia_serve.auth import caller_of
from harmonia_serve.boundary import DIRECT, close_reason
from harmonia_serve.gateway import AnyEvent
from harmonia_serve.problems import (
    CLOSE_ENDED,
    CLOSE_EXPIRED,
    CLOSE_RESTART,
    CLOSE_SLOW,
    CLOSE_TOO_BIG,
    CLOSE_UNWELCOME,
)
from harmonia_serve.queries import ExecutionStreamQuery, InstallationStreamQuery
from harmonia_serve.routes.context import Context, ContextOf, needs, observed
from harmonia_serve.starts import start_after
from harmonia_serve.streams import (
    SCOPE,
    Ending,
    SlowReader,
    Stream,
    end_with_server,
    execution_stream,
    in_time,
    installation_stream,
    let_go,
)

__all__ = ["PREFIX", "catch_all", "router"]

PREFIX: Final = "/ws/harmonia"
_MESSAGE_BYTES_MAX: Final = 4_096
_CLOSE_S_MAX: Final = 2.0
#: As Starlette has it: the connection broke.
_GONE: Final = 1006

router = APIRouter(prefix=PREFIX)
#: Accepts and refuses every other path, in place of the server's bare 403. It needs no guard: it
#: has nothing to give, and authentication comes before it.
catch_all = APIRouter()


@router.websocket("/executions/{execution_id}", dependencies=needs(SCOPE))
async def stream_events(
    socket: WebSocket,
    execution_id: str,
    query: Annotated[ExecutionStreamQuery, Query()],
    context: ContextOf,
) -> None:
    """Every event of an execution: what has happened, then live, until it ends."""
    execution_id = identifiers.execution_id(execution_id)
    after = start_after(query.after, socket.headers)
    stream = execution_stream(
        "websocket", execution_id, query, after, context.gateway, context.settings
    )
    await _serve(socket, context, stream)


@router.websocket("/executions", dependencies=needs(SCOPE))
async def stream_installation_events(
    socket: WebSocket,
    query: Annotated[InstallationStreamQuery, Query()],
    context: ContextOf,
) -> None:
    """The events of all executions, in the order in which they were committed."""
    kind = "websocket_installation"
    await _serve(socket, context, installation_stream(kind, query, socket, context.gateway))


async def _serve(socket: WebSocket, context: Context, stream: Stream) -> None:
    """Accept a connection and send it a stream to its end."""
    caller = caller_of(socket)
    with (
        context.slots.take(caller.principal.key_id) as slot,
        context.observation.open_stream(stream.kind) as notes,
    ):
        await socket.accept()
        subscription = stream.subscribe(context.settings, notes)
        slot.on_close(subscription.give_up)
        end_with_server(socket.scope, context.slots)
        sink = _Sink(socket, stream.after)
        try:
            gone = _left(socket, context.settings.stream_messages_max)
            ending = await subscription.run(sink, gone, caller)
        except SlowReader as error:
            # It may still be seen, but only by a client that takes in what was sent before.
            await subscription.aclose()
            wait_s = context.settings.stream_send_timeout_s
            await sink.close(CLOSE_SLOW, sink.to_resume(error.code), wait_s)
        except _Unwelcome as error:
            notes.note_dropped("unwelcome_messages")
            await sink.close(error.code, str(error))
        else:
            if ending in (Ending.LAST_EVENT, Ending.NO_MORE):
                await sink.close(CLOSE_ENDED, ending.value)
            elif ending is not Ending.GONE:
                code = CLOSE_EXPIRED if ending is Ending.EXPIRED else CLOSE_RESTART
                await sink.close(code, sink.to_resume(ending.value))
        finally:
            await subscription.aclose()
            await let_go(socket.scope, context.settings)


@router.get("/metrics", include_in_schema=False, dependencies=needs(SCOPE))
async def metrics(context: ContextOf) -> Response:
    """What this surface counts about itself: its replicas are processes of their own."""
    return observed(context)


@catch_all.websocket("/{path:path}")
async def unknown_path(_socket: WebSocket, path: str) -> None:
    """There is nothing here."""
    shown = f"/{path[:100]}"
    raise ResourceNotFound(f"There is no WebSocket at '{shown}'", {"path": shown})


class _Unwelcome(Exception):
    """A client sends more than it may."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Sink:
    """Sends events as text messages; `sent` is what the client is to resume after."""

    def __init__(self, socket: WebSocket, after: str) -> None:
        self._socket = socket
        #: The server's own send, for what is one of thousands.
        self._direct: Send = socket.scope[DIRECT]
        self.sent = after

    async def send_events(self, events: Sequence[AnyEvent]) -> None:
        texts = made_once(events, "texts", _texts)
        try:
            for event, text in zip(events, texts, strict=True):
                await self._direct({"type": "websocket.send", "text": text})
                self.sent = event.cursor
        except OSError:
            raise WebSocketDisconnect(_GONE) from None

    async def send_position(self, cursor: str) -> None:
        await self._socket.send_text(f'{{"cursor":"{cursor}","type":"cursor"}}')
        self.sent = cursor

    async def send_sign_of_life(self) -> None:
        """Nothing: the server sends pings of its own."""

    def to_resume(self, why: str) -> str:
        """Why it ends here, and after what to go on."""
        return f"{why}: resume with ?after={self.sent}" if self.sent else why

    async def close(self, code: int, reason: str, wait_s: float = _CLOSE_S_MAX) -> None:
        """Close, unless the client has gone meanwhile or takes nothing in any more."""
        with suppress(RuntimeError, WebSocketDisconnect, SlowReader):
            await in_time(self._socket.close(code, close_reason(reason)), wait_s)


def _texts(events: Sequence[AnyEvent]) -> Sequence[str]:
    return [event.body.decode() for event in events]


async def _left(socket: WebSocket, messages_max: int) -> None:
    """Completes when the client has left. Raises _Unwelcome for too many or too long messages."""
    for _ in range(messages_max):
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        size = len(message.get("bytes") or message.get("text") or b"")
        if size > _MESSAGE_BYTES_MAX:
            raise _Unwelcome(CLOSE_TOO_BIG, f"messages are ignored, and {size} bytes are too many")
    raise _Unwelcome(CLOSE_UNWELCOME, f"more than {messages_max} messages were sent in vain")
