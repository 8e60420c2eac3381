"""One request to a service and its answer, within bounds of time and size.

Each exchange has a connection of its own, which is closed when the exchange ends, also by a cancel:
that is how a service learns that nobody wants its answer any more. Connections are not kept,
because one that the service has closed a moment ago would fail an attempt. Redirects are not
followed, and no proxy is taken from the environment: what is sent may be secret.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import lru_cache
from typing import Any

import httpx

from harmonia_actors.components.remote.service import RemoteService

__all__ = [
    "Answer",
    "AnswerTooLarge",
    "BrokenOff",
    "Silent",
    "Unreachable",
    "exchange",
    "parsed",
    "read",
]

#: So that a peer that has vanished without a word is noticed: after 30 s, by 3 probes.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
)
_ONE_CONNECTION = httpx.Limits(max_connections=1, max_keepalive_connections=0)

#: A larger body takes longer to read than a loop should be held up.
_AT_ONCE_BYTES = 65_536
_SHOWN_CHARS = 40


class Unreachable(Exception):
    """No connection could be made, or it was refused."""


class Silent(Exception):
    """The service has taken too long to say anything."""


class BrokenOff(Exception):
    """The connection ended in the midst of the exchange, or what came was no HTTP."""


class AnswerTooLarge(Exception):
    """More came than is taken."""


class Answer:
    """An answer whose body has not been read yet."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.reason = response.reason_phrase
        self.media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        #: What the bytes are packed in; it was asked for none.
        self.encoding = response.headers.get("content-encoding", "identity").strip().lower()

    async def whole(self, bytes_max: int) -> bytes:
        """The body. Raises AnswerTooLarge, Silent, BrokenOff."""
        body = bytearray()
        async with aclosing(self._chunks()) as chunks:
            async for chunk in chunks:
                body += chunk
                _require(len(body) <= bytes_max, bytes_max)
        return bytes(body)

    async def beginning(self, size: int) -> bytes:
        """The first bytes of the body, and no more. Raises as `whole`."""
        body = bytearray()
        async with aclosing(self._chunks()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) >= size:
                    break
        return bytes(body[:size])

    async def lines(self, bytes_max: int) -> AsyncGenerator[bytes, None]:
        """The lines of the body, each of at most so many bytes. Raises as `whole`."""
        parts: list[bytes] = []
        size = 0
        async with aclosing(self._chunks()) as chunks:
            async for chunk in chunks:
                *ended, rest = chunk.split(b"\n")
                for piece in ended:
                    _require(size + len(piece) <= bytes_max, bytes_max)
                    yield b"".join([*parts, piece])
                    parts, size = [], 0
                size += len(rest)
                _require(size <= bytes_max, bytes_max)
                parts.append(rest)
        if size:
            yield b"".join(parts)

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        # Not decompressed: a few bytes could become any number.
        with _told():
            async for chunk in self._response.aiter_raw():
                yield chunk


def _require(fits: bool, bytes_max: int) -> None:
    if not fits:
        raise AnswerTooLarge(f"more than {bytes_max} bytes came, and no more are taken")


@asynccontextmanager
async def exchange(
    service: RemoteService,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    content: bytes | None = None,
    begins_within_s: float,
) -> AsyncIterator[Answer]:
    """Send a request; the connection lives as long as the context. Raises Unreachable and others.

    The beginning of an answer, status and headers, may take `begins_within_s` in all.
    """
    sent = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "harmonia"}
    if service.token:
        sent["Authorization"] = f"Bearer {service.token}"
    limits = service.limits
    transport = httpx.AsyncHTTPTransport(
        verify=_tls() if url.startswith("https:") else False,
        trust_env=False,
        limits=_ONE_CONNECTION,
        socket_options=_KEEPALIVE,
    )
    timeout = httpx.Timeout(begins_within_s, connect=limits.connect_s_max)
    async with httpx.AsyncClient(
        transport=transport, trust_env=False, follow_redirects=False, timeout=timeout
    ) as client:
        with _told():
            # Is where a host's name turns out to be none.
            request = client.build_request(
                method, url, headers={**sent, **headers}, content=content
            )
            async with asyncio.timeout(begins_within_s):
                response = await client.send(request, stream=True)
        try:
            yield Answer(response)
        finally:
            await response.aclose()


class _told:  # noqa: N801 - reads like the function that it is used as
    """What the HTTP library raises, as this module's own exceptions."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, httpx.ConnectTimeout):
            raise Unreachable("no connection could be made in time") from error
        if isinstance(error, httpx.ConnectError | httpx.InvalidURL | UnicodeError):
            raise Unreachable(str(error) or type(error).__name__) from error
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            raise Silent from error
        if isinstance(error, httpx.HTTPError):
            raise BrokenOff(str(error) or type(error).__name__) from error


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Trusts whom this machine trusts; reading all of that takes long enough to do it once."""
    return ssl.create_default_context()


async def read(body: bytes) -> Any:
    """What `parsed` gives, without holding up the loop if the body is large. Raises ValueError."""
    if len(body) <= _AT_ONCE_BYTES:
        return parsed(body)
    return await asyncio.to_thread(parsed, body)


def parsed(body: bytes) -> Any:
    """Strict JSON from elsewhere. Raises ValueError."""
    try:
        return _STRICT.decode(body.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _itself(found: dict[str, Any]) -> dict[str, Any]:
    return found


def _integer(text: str) -> int:
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        shown = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
        raise ValueError(f"{shown} is too large for a number")
    return number


#: The parser holds the interpreter lock for as long as it calls no function that is written in
#: Python, so that a thread alone would not help: it calls one for each number and each object.
_STRICT = json.JSONDecoder(
    parse_constant=_refuse, object_hook=_itself, parse_int=_integer, parse_float=_float
)
