"""A store server of the suite's own, and what a store counts. For whoever needs a Redis.

Runs in the environment of each peer that has the `redis` package.
"""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import Any

__all__ = ["Store", "counters", "free_port"]

_START_S = 15.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


class Store:
    """A server in `directory`. `fsync`: always, everysec, or empty for memory only."""

    def __init__(self, binary: str, directory: Path, fsync: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        durable = ["--appendonly", "yes", "--appendfsync", fsync] if fsync else []
        command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(directory), "--logfile", "", "--maxmemory-policy", "noeviction"]
        self._process = subprocess.Popen([*command, *durable], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                raise RuntimeError(f"{binary} does not answer at {self.url}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def counters(client: Any) -> dict[str, float]:
    """Commands, and bytes in, out and written to the log, since the server started."""
    stats = client.info("stats")
    calls = {
        name.removeprefix("cmdstat_"): found["calls"]
        for name, found in client.info("commandstats").items()
    }
    return {
        "commands": sum(calls.values()) - calls.get("info", 0),
        "bytes_in": stats["total_net_input_bytes"],
        "bytes_out": stats["total_net_output_bytes"],
        "log_bytes": client.info("persistence").get("aof_current_size", 0),
    }
