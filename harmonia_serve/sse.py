"""Server-Sent Events: events of one execution, or of all, as one endless answer.

Events come from the log already encoded and are framed, never parsed. Neither of the libraries for
SSE is used: the loop, the deadlines and the checks are the same as for WebSocket (`streams`), and
framing three fields is all that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import HarmoniaError
from harmonia_actors.core.event_batches import made_once
from harmonia_serve import identifiers
from harmonia_serve.auth import caller_of
from harmonia_serve.boundary import DIRECT
from harmonia_serve.gateway import AnyEvent
from harmonia_serve.problems import log_unexpected
from harmonia_serve.queries import EventStreamQuery, InstallationStreamQuery
from harmonia_serve.routes.context import Context, ContextOf, needs, observed
from harmonia_serve.starts import start_after
from harmonia_serve.streams import (
    SCOPE,
    Ending,
    SlowReader,
    Stream,
    Subscription,
    end_with_server,
    execution_stream,
    in_time,
    installation_stream,
    let_go,
)

__all__ = ["PREFIX", "frame", "readable_by", "router"]

PREFIX: Final = "/events/harmonia"

#: Milliseconds after which a client that lost the stream asks again. It travels with the first
#: event or position: alone it would be no event, but not every client's parser knows that.
_RETRY: Final = b"retry: 2000\n"
_OPENED: Final = b": open\n\n"
_SIGN_OF_LIFE: Final = b": alive\n\n"
#: An answer begins after so long even if the gateway has not said yet that the execution exists.
_OPEN_WAIT_S: Final = 5.0

router = APIRouter(prefix=PREFIX, tags=["Server-Sent Events"])


@router.get(
    "/executions/{execution_id}",
    summary="Events of an execution",
    response_class=Response,
    response_model=None,
    responses={
        200: {"description": "The events, live", "content": {"text/event-stream": {}}},
        204: {"description": "There are no events after the one named: do not ask again"},
    },
    dependencies=needs(SCOPE),
)
async def stream_events(
    execution_id: str,
    query: Annotated[EventStreamQuery, Query()],
    request: Request,
    context: ContextOf,
) -> Response:
    """Every event of an execution: what has happened, then live, until it ends."""
    execution_id = identifiers.execution_id(execution_id)
    after = start_after(query.after, request.headers)
    framing = _ENVELOPES if query.envelope else _DATA
    stream = execution_stream("sse", execution_id, query, after, context.gateway, context.settings)
    return _EventStream(context, request, stream, framing)


@router.get(
    "/executions",
    summary="Events of all executions",
    response_class=Response,
    response_model=None,
    responses={
        200: {"description": "The events, live", "content": {"text/event-stream": {}}},
        204: {"description": "With `follow=false`: there are no events after the cursor"},
    },
    dependencies=needs(SCOPE),
)
async def stream_installation_events(
    query: Annotated[InstallationStreamQuery, Query()], request: Request, context: ContextOf
) -> Response:
    """The events of all executions, in the order in which they were committed.

    Each has the WebSocket API's envelope with a `cursor`, which is also its `id:`. An event `gap`
    says that events are missing: `data.reason` is `trimmed` (the log does not reach back to the
    cursor), `expired` (their executions are not kept any more), `unreadable` (another version of
    Harmonia has written their executions) or `unknown_cursor`.
    """
    stream = installation_stream("sse_installation", query, request, context.gateway)
    return _EventStream(context, request, stream, _ENVELOPES)


def readable_by(headers: Headers, allowed: tuple[str, ...]) -> dict[str, str]:
    """The headers by which a browser lets a page of another, allowed origin read the stream.

    Other pages may ask as well, but get nothing to see. No cookie is involved: a page has to know
    the key.
    """
    if not allowed:
        return {}
    origin = headers.get("origin", "")
    return {"Vary": "Origin"} | (
        {"Access-Control-Allow-Origin": origin} if origin in allowed else {}
    )


def frame(event: AnyEvent, *, envelope: bool = False) -> bytes:
    """An event in the wire format of SSE: its data alone, or in the WebSocket API's envelope."""
    data = event.body if envelope else event.data
    if b"\n" in data or b"\r" in data:
        # White space between JSON tokens: a line break there means no more than a space.
        data = data.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event.cursor.encode(), event.type.encode(), data)


@dataclass(frozen=True, slots=True)
class Framing:
    """How events become bytes, once for all subscribers who are sent the same ones."""

    form: str
    envelope: bool

    def frames(self, events: Sequence[AnyEvent]) -> bytes:
        """All frames in a row."""
        return b"".join([frame(event, envelope=self.envelope) for event in events])


_DATA: Final = Framing("sse", envelope=False)
_ENVELOPES: Final = Framing("sse_envelope", envelope=True)


@router.get("/metrics", include_in_schema=False, dependencies=needs(SCOPE))
async def metrics(context: ContextOf) -> Response:
    """What this surface counts about itself: its replicas are processes of their own."""
    return observed(context)


class _EventStream(Response):
    """An answer that goes on for as long as its stream does."""

    media_type = "text/event-stream"

    def __init__(
        self,
        context: Context,
        request: Request,
        stream: Stream,
        framing: Framing,
    ) -> None:
        shared = readable_by(request.headers, context.settings.allowed_origins)
        plain = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(headers={**plain, **shared})
        del self.headers["content-length"]
        self._shared = shared
        self._context = context
        self._caller = caller_of(request)
        self._source = stream
        self._framing = framing
        self._direct: Send = request.scope[DIRECT]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open the subscription, so that errors are still an answer of their own, then stream."""
        context = self._context
        with (
            context.slots.take(self._caller.principal.key_id) as slot,
            context.observation.open_stream(self._source.kind) as notes,
        ):
            subscription = self._source.subscribe(context.settings, notes)
            slot.on_close(subscription.give_up)
            end_with_server(scope, context.slots)
            try:
                if not await subscription.open(_OPEN_WAIT_S):
                    nothing = Response(status_code=204, headers=self._shared)
                    await nothing(scope, receive, send)
                    return
                await self._stream(subscription, receive, send)
            finally:
                await subscription.aclose()
                await let_go(scope, context.settings)

    async def _stream(self, subscription: Subscription, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sink = _Sink(send, self._direct, self._framing, self._source.after)
        try:
            await sink.send_bytes(_OPENED)
            ending = await subscription.run(sink, _left(receive), self._caller)
            farewell = b""
        except HarmoniaError as error:
            farewell = b": %s\n\n" % error.code.encode()
        except OSError:
            return
        except SlowReader as error:
            # What is left unsent stays unsent: the client resumes after the last event it has.
            await subscription.aclose()
            after = jsontext.encode({"after": sink.sent} if sink.sent else {})
            farewell = b"event: %s\ndata: %s\n\n" % (error.code.encode(), after)
        except Exception as error:
            error_id = log_unexpected(error, "an event stream")
            farewell = b": internal_error %s\n\n" % error_id.encode()
        else:
            if ending is Ending.GONE:
                return
        with suppress(SlowReader):
            closing = send({"type": "http.response.body", "body": farewell, "more_body": False})
            await in_time(closing, self._context.settings.stream_send_timeout_s)


class _Sink:
    """Sends frames as chunks of the answer; `sent` is what the client is to resume after."""

    def __init__(self, send: Send, direct: Send, framing: Framing, after: str) -> None:
        """`direct`: the server's own send, for what is one of thousands."""
        self._send = send
        self._direct = direct
        self._framing = framing
        self._head = _RETRY
        self.sent = after

    async def send_events(self, events: Sequence[AnyEvent]) -> None:
        frames = made_once(events, self._framing.form, self._framing.frames)
        chunk = self._head + frames if self._head else frames
        await self._direct({"type": "http.response.body", "body": chunk, "more_body": True})
        self._note_sent(events[-1].cursor)

    async def send_position(self, cursor: str) -> None:
        """An id without data: no event, but what an EventSource resumes after from now on."""
        await self.send_bytes(self._head + b"id: %s\n\n" % cursor.encode())
        self._note_sent(cursor)

    async def send_sign_of_life(self) -> None:
        await self.send_bytes(_SIGN_OF_LIFE)

    def _note_sent(self, cursor: str) -> None:
        self._head = b""
        self.sent = cursor

    async def send_bytes(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _left(receive: Receive) -> None:
    """Completes when the client has left."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
