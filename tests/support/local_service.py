"""The real service without Ray, behind a real server on a free port, in a thread of its own.

For tests of what clients see that need neither actors nor a store that lasts.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harmonia_actors.components.contract import Component
from harmonia_actors.runtime.service.keys import make_first_key
from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from persistence.memory_store import MemoryStore
from tests.support.local import LocalInstallation
from tests.unit.serve.conftest import serve_app

__all__ = ["LocalService", "local_service"]


@dataclass(frozen=True)
class LocalService:
    """Where it is, and a key that may do everything."""

    url: str
    api_key: str


@contextmanager
def local_service(
    directory: Path,
    modules: Sequence[str] = (),
    components: Sequence[Component] = (),
    settings: Settings | None = None,
) -> Iterator[LocalService]:
    """Serve until the context ends, with `components` and those that `modules` have."""
    begun: Future[tuple[LocalService, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        store = MemoryStore()
        key = await make_first_key(store, int(time.time() * 1000))
        assert key is not None
        end = asyncio.Event()
        async with (
            LocalInstallation(
                store, directory, modules=modules, components=components
            ) as installation,
            serve_app(build_app(installation.gateway, settings or Settings())) as served,
        ):
            begun.set_result((LocalService(served.http, key), asyncio.get_running_loop(), end))
            await end.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if begun.done():
                raise
            begun.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    service, loop, end = begun.result(30)
    try:
        yield service
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(30)
