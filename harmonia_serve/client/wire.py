"""From the client's own terms to httpx's and back: shared by both transports, without I/O."""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import httpx

from harmonia_serve.client.errors import CannotBeSent, NotConfigured, ServiceUnreachable
from harmonia_serve.client.flows import Call, Reply
from harmonia_serve.client.location import Location

__all__ = [
    "FellIdle",
    "Patience",
    "check_json",
    "client_options",
    "destination_file",
    "reply_of",
    "request_options",
    "stream_timeout",
    "unreachable",
    "whole_or_nothing",
]

_CONNECT_S = 5.0

#: The service sends a sign of life every 15 s; a stream that is silent for longer is broken.
_SILENCE_S = 60.0


def client_options(location: Location, timeout_s: float) -> dict[str, Any]:
    """Arguments of an httpx client. The key goes into a header and nowhere else.

    Raises NotConfigured for a URL that httpx does not take.
    """
    try:
        httpx.URL(location.url)
    except httpx.InvalidURL as error:
        raise NotConfigured(f"the URL of the service cannot be used: {error}") from None
    headers = {"X-API-Key": location.api_key} if location.api_key else {}
    return {
        "base_url": location.url,
        "headers": headers,
        "timeout": httpx.Timeout(timeout_s, connect=_CONNECT_S),
        "follow_redirects": False,
        # A proxy named in the environment is for the outside, not for this machine.
        "trust_env": not _is_loopback(location.url),
    }


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def request_options(call: Call, timeout_s: float) -> dict[str, Any]:
    """Arguments of `request` for a call of a client with this timeout. Raises CannotBeSent."""
    headers: dict[str, str] = {}
    options: dict[str, Any] = {"method": call.method, "url": call.path, "headers": headers}
    options["params"] = {name: _query_text(value) for name, value in call.query.items()}
    if call.body is not None:
        options["content"] = _json(call.body)
        headers["Content-Type"] = "application/json"
    if call.idempotency_key is not None:
        headers["Idempotency-Key"] = call.idempotency_key
    most_s = timeout_s if call.timeout_s is None else call.timeout_s
    if call.most_s is not None:
        most_s = min(most_s, call.most_s)
    options["timeout"] = httpx.Timeout(most_s, connect=min(most_s, _CONNECT_S))
    return options


def _query_text(value: str | int) -> str:
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CannotBeSent(f"{text!r} is no text: it holds half a character") from None
    return text


def check_json(value: Any) -> None:
    """Raise CannotBeSent for what a request's body cannot hold."""
    _json(value)


def _json(body: Any) -> bytes:
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise CannotBeSent(f"JSON cannot say half a character, like {half!r}") from None
    except (ValueError, RecursionError) as error:
        raise CannotBeSent(f"JSON cannot say this: {error}") from None


def stream_timeout() -> httpx.Timeout:
    """How long a stream may be silent until it counts as broken."""
    return httpx.Timeout(_CONNECT_S, read=_SILENCE_S)


class FellIdle(Exception):
    """No event has come for as long as the follower wanted to wait."""


class Patience:
    """How long a follower waits for the next event, whatever signs of life the service sends.

    Time runs from the first bytes of the stream, for a service may take long to answer, and from
    each event that was handed over, for a follower may take long as well.
    """

    def __init__(self, idle_s: float | None) -> None:
        self._idle_s = idle_s
        self._since_s = time.monotonic()

    def attend(self, response: httpx.Response) -> None:
        """Look at the time whenever something comes, and when nothing comes for so long."""
        if self._idle_s is None:
            return
        self.renew()
        # From here on it is the time between two reads that counts, not that until the answer.
        response.request.extensions["timeout"]["read"] = min(self._idle_s, _SILENCE_S)
        if isinstance(response.stream, httpx.SyncByteStream):
            response.stream = _Attended(response.stream, self)
        else:
            response.stream = _AsyncAttended(response.stream, self)

    def renew(self) -> None:
        """An event has come, and the follower is done with it."""
        self._since_s = time.monotonic()

    def spend(self) -> None:
        """Raise FellIdle if there is none left."""
        if self._idle_s is not None and time.monotonic() - self._since_s >= self._idle_s:
            raise FellIdle


class _Attended(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, patience: Patience) -> None:
        self._stream = stream
        self._patience = patience

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._stream:
                yield chunk
                self._patience.spend()
        except httpx.ReadTimeout:
            self._patience.spend()
            raise

    def close(self) -> None:
        self._stream.close()


class _AsyncAttended(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, patience: Patience) -> None:
        self._stream = stream
        self._patience = patience

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                yield chunk
                self._patience.spend()
        except httpx.ReadTimeout:
            self._patience.spend()
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()


def reply_of(response: httpx.Response) -> Reply:
    """A response whose body has been read."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, response.content)


@contextmanager
def unreachable(url: str) -> Iterator[None]:
    """Turn what httpx raises when a connection fails into ServiceUnreachable."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise ServiceUnreachable(url, _reason(error), sent=False) from error
    except httpx.TransportError as error:
        raise ServiceUnreachable(url, _reason(error), sent=True) from error


def _reason(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__


def destination_file(path: str, destination: Path) -> Path:
    """Where a file of a workspace is saved: `destination`, or a file of its name in it."""
    return destination / PurePosixPath(path).name if destination.is_dir() else destination


@contextmanager
def whole_or_nothing(target: Path) -> Iterator[Path]:
    """A path to write to that becomes `target` if all goes well, and vanishes if not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield partial
        partial.replace(target)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
