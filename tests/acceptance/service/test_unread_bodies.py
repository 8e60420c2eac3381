"""Who sends on after a refusal is not read for ever, with the real proxy in front."""

from __future__ import annotations

import select
import socket
from urllib.parse import urlsplit

import pytest

from tests.support.running import RunningService

_CHUNK = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
_BYTES_MAX = 200_000_000
#: A connection that takes nothing in for so long takes no more.
_STILL_S = 5.0


@pytest.mark.parametrize("path", ["/api/harmonia/workflows", "/events/harmonia/x", "/health"])
def test_a_body_without_an_end_is_not_read_for_ever(service: RunningService, path: str) -> None:
    where = urlsplit(service.url)
    start = f"POST {path} HTTP/1.1\r\nHost: {where.netloc}\r\nX-API-Key: garbage\r\n"
    sent, answer = 0, b""
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        connection.sendall(f"{start}Transfer-Encoding: chunked\r\n\r\n".encode())
        connection.setblocking(False)
        rest = _CHUNK
        while sent < _BYTES_MAX:
            readable, writable, _ = select.select([connection], [connection], [], _STILL_S)
            if not readable and not writable:
                break
            try:
                if readable:
                    piece = connection.recv(65_536)
                    if not piece:
                        break
                    answer += piece
                elif writable:
                    count = connection.send(rest)
                    sent += count
                    rest = rest[count:] or _CHUNK
            except OSError:
                break
    assert sent < _BYTES_MAX
    # 429 if other tests have just failed to authenticate too often.
    assert answer.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 429 ")), answer[:100]
    assert service.api.get("/workflows", params={"limit": 1}).status_code == 200
