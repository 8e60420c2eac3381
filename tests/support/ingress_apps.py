"""Three small applications behind an ingress; they note in a file which of their calls have ended.

A module of its own, because Serve's replicas import what it names; they cannot import a program.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse

__all__ = ["events_app", "rest_app", "websocket_app"]

BEAT_S = 0.05
#: All answers of Harmonia have this header: by that they are told from those of Serve itself.
_OWN = {"X-Content-Type-Options": "nosniff"}


def rest_app(ended: Path) -> FastAPI:
    """Answers at "/": what it sees of a request, any status, and a call that does not end."""
    app = FastAPI(openapi_url=None)

    @app.get("/seen")
    async def seen(request: Request) -> dict[str, Any]:
        host = request.client.host if request.client else ""
        return {"client": host, "headers": dict(request.headers), "pid": os.getpid()}

    @app.get("/status/{code}")
    async def status(code: int) -> JSONResponse:
        return JSONResponse({"error": {"code": f"own_{code}"}}, code, _OWN)

    @app.get("/endless")
    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            note(ended, "rest")

    @app.get("/die")
    async def die() -> None:
        os._exit(1)

    @app.get("/{path:path}")
    async def unknown(path: str) -> JSONResponse:
        error = {"code": "not_found", "details": {"path": path}}
        return JSONResponse({"error": error}, 404, _OWN)

    return app


def websocket_app(ended: Path) -> FastAPI:
    """Sends numbers until the client goes.

    It learns of that by receiving, as Harmonia's own streams do: while HAProxy does not know a
    replica yet, Serve's own proxy passes connections on, which lets messages sent to a client that
    has gone vanish without an error.
    """
    app = FastAPI(openapi_url=None)

    @app.websocket("/{name}")
    async def numbers(socket: WebSocket, name: str) -> None:
        await socket.accept()
        gone = asyncio.ensure_future(socket.receive())
        try:
            number = 0
            while not gone.done():
                await socket.send_json({"name": name, "number": number})
                number += 1
                await asyncio.wait([gone], timeout=BEAT_S)
        finally:
            gone.cancel()
            note(ended, "websocket")

    return app


def events_app(ended: Path) -> FastAPI:
    """Streams numbered events until the client goes."""
    app = FastAPI(openapi_url=None)

    @app.get("/{name}")
    async def events(name: str) -> StreamingResponse:
        async def stream() -> Any:
            try:
                number = 0
                while True:
                    yield f"id: {number}\ndata: {name}\n\n"
                    number += 1
                    await asyncio.sleep(BEAT_S)
            finally:
                note(ended, "events")

        return StreamingResponse(stream(), media_type="text/event-stream")

    return app


def note(file: Path, word: str) -> None:
    with file.open("a") as lines:
        lines.write(f"{word}\n")
