"""A refusal comes before the body: whoever sends on is read for a while and then cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
from fastapi import FastAPI

from tests.unit.serve.conftest import API, Serve

#: Each is refused without a look at its body: a bad key, an unknown path, a wrong method.
REFUSED = {
    "bad key": ("POST", f"{API}/workflows", "garbage", 401),
    "no key": ("POST", "/health", "", 401),
    "unknown path": ("POST", f"{API}/nothing", None, 404),
    "wrong method": ("DELETE", f"{API}/workflows", None, 405),
    "no scope": ("POST", f"{API}/keys", None, 403),
}
refused = pytest.mark.parametrize("what", REFUSED)


def head(what: str, key: str, *more: str) -> bytes:
    method, path, other, _ = REFUSED[what]
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: harmonia.test",
        f"X-API-Key: {key if other is None else other}",
        "Content-Type: application/json",
        *more,
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


async def connected(host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    name, port = host.split(":")
    return await asyncio.open_connection(name, int(port))


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        start = await reader.readuntil(b"\r\n\r\n")
        size = int(start.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        return start + await reader.readexactly(size)


@refused
async def test_a_body_without_an_end_is_cut_off(
    what: str, app: FastAPI, serve: Serve, key: str
) -> None:
    async with serve(app) as served:
        reader, writer = await connected(served.host)
        writer.write(head(what, key, "Transfer-Encoding: chunked"))
        chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        sent = 0

        async def send() -> None:
            nonlocal sent
            while sent < 500_000_000:
                writer.write(chunk)
                await writer.drain()
                sent += len(chunk)

        sending = asyncio.ensure_future(send())
        try:
            answer = await answer_of(reader)
            assert answer.startswith(f"HTTP/1.1 {REFUSED[what][3]} ".encode())
            assert b"connection: close" in answer.lower()
            with suppress(ConnectionError):
                async with asyncio.timeout(10):
                    await sending
            assert sent < 100_000_000
        finally:
            sending.cancel()
            writer.close()


@refused
async def test_a_body_that_stands_still_is_given_up(
    what: str, app: FastAPI, serve: Serve, key: str
) -> None:
    async with serve(app) as served:
        reader, writer = await connected(served.host)
        writer.write(head(what, key, "Content-Length: 99") + b"{")
        answer = await answer_of(reader)
        assert answer.startswith(f"HTTP/1.1 {REFUSED[what][3]} ".encode())
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


@refused
async def test_after_a_short_body_the_connection_is_kept(
    what: str, app: FastAPI, serve: Serve, key: str
) -> None:
    async with serve(app) as served:
        reader, writer = await connected(served.host)
        for _ in range(3):
            writer.write(head(what, key, "Content-Length: 2") + b"{}")
            answer = await answer_of(reader)
            assert answer.startswith(f"HTTP/1.1 {REFUSED[what][3]} ".encode())
            assert b"connection: close" not in answer.lower()
        writer.close()


@refused
async def test_who_sends_all_before_reading_sees_the_answer(
    what: str, app: FastAPI, serve: Serve, key: str
) -> None:
    method, path, other, status = REFUSED[what]

    async def body() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 50_000

    headers = {"X-API-Key": key if other is None else other, "Content-Type": "application/json"}
    async with serve(app) as served, httpx.AsyncClient(base_url=served.http) as client:
        answer = await client.request(method, path, content=body(), headers=headers)
        assert answer.status_code == status
        assert "error" in answer.json()


async def test_who_asks_first_is_not_told_to_send(app: FastAPI, serve: Serve, key: str) -> None:
    async with serve(app) as served:
        reader, writer = await connected(served.host)
        more = ("Content-Length: 9999", "Expect: 100-continue")
        writer.write(head("bad key", key, *more))
        answer = await answer_of(reader)
        assert answer.startswith(b"HTTP/1.1 401 ")
        writer.close()
