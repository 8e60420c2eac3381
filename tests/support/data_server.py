"""A web server on loopback for workflows under test: a real data file, and gates that hold tasks.

A task that fetches `/held/NAME` gets the file once the test opens the gate of that name, and runs
until then. Nothing is fetched from beyond this machine, and nobody looks at a clock.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["DataServer", "data_server"]

_PENGUINS = Path(__file__).parents[2] / "examples" / "penguins.csv"
_HELD_S_MAX = 120.0


class DataServer:
    """Where the server is, and its gates."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.data_url = f"{url}/penguins.csv"
        self._gates: defaultdict[str, threading.Event] = defaultdict(threading.Event)

    def held_url(self, name: str) -> str:
        """Where the data file is to be had once the gate is opened."""
        return f"{self.url}/held/{name}"

    def held(self, name: str) -> dict[str, Any]:
        """A task that runs until the gate is opened."""
        command = f"curl --silent --show-error --fail -o held.csv {self.held_url(name)}"
        return {
            "component": "ergon",
            "action": "execute_command",
            "input": {"command": command},
        }

    def open(self, name: str) -> None:
        """Let everybody through who is held at this gate, or will be."""
        self._gates[name].set()

    def open_all(self) -> None:
        """Hold nobody any longer."""
        for gate in list(self._gates.values()):
            gate.set()

    def pass_gate(self, name: str) -> bool:
        """Wait at a gate; False if it was not opened in time."""
        return self._gates[name].wait(_HELD_S_MAX)


@contextlib.contextmanager
def data_server() -> Iterator[DataServer]:
    """The server in a thread, until the context ends."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, _, gate = self.path.partition("/held/")
            if not gate and self.path != "/penguins.csv":
                self._answer(404, b"")
            elif gate and not there.pass_gate(gate):
                self._answer(503, b"")
            else:
                self._answer(200, _PENGUINS.read_bytes())

        def _answer(self, status: int, content: bytes) -> None:
            # A task that was stopped has left the connection.
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *_: Any) -> None:  # noqa: A002 - the library's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    there = DataServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield there
    finally:
        there.open_all()
        server.shutdown()
        server.server_close()
        thread.join()
