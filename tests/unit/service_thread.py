"""The HTTP surfaces over a gateway in memory, served by a real server in a thread of its own.

Sync callers (the client, the command line) can talk to it from the test's own thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from tests.unit.serve.conftest import serve_app
from tests.unit.serve.gateway import MemoryGateway

T = TypeVar("T")

SMALL_WORKFLOW: dict[str, Any] = {
    "name": "small",
    "tasks": {
        "first": {"component": "ergon", "action": "execute_command", "input": {"command": "true"}},
        "second": {
            "component": "ergon",
            "action": "execute_command",
            "input": {"command": "true"},
            "depends_on": ["first"],
        },
    },
}


class Service:
    """A running service: where it is, a key for it, and the gateway behind it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, gateway: MemoryGateway, url: str) -> None:
        self.loop = loop
        self.gateway = gateway
        self.url = url
        self.key = gateway.add_key("read", "execute", "write", "admin")

    def perform(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the service's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def emit(self, execution_id: str, kind: str, **data: Any) -> None:
        """Append an event to an execution, as the engine would."""
        self.perform(self.gateway.append(execution_id, kind, data))

    def finish(self, execution_id: str, status: str = "completed", **fields: Any) -> None:
        """Let an execution end, with its last event."""
        self.gateway.executions[execution_id] |= {"status": status, **fields}
        self.emit(execution_id, f"execution_{status}", **fields)


@contextmanager
def running_service(settings: Settings | None = None) -> Iterator[Service]:
    """A service on a free port, until the context ends."""
    found: list[Service] = []
    ready = threading.Event()
    holder: dict[str, Any] = {}

    async def serve() -> None:
        gateway = MemoryGateway()
        end = holder["end"] = asyncio.Event()
        async with serve_app(build_app(gateway, settings or Settings())) as served:
            found.append(Service(asyncio.get_running_loop(), gateway, served.http))
            ready.set()
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        if not ready.wait(20):
            raise RuntimeError("the service did not start")
        yield found[0]
    finally:
        found[0].loop.call_soon_threadsafe(holder["end"].set)
        thread.join(20)
