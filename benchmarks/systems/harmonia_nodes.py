"""Harmonia on a Ray cluster of three nodes, raylets of one CPU each, all on this machine.

It shows that placement, pools and batches work across nodes; not what three machines would give.
The store is on none of the nodes, as on a real cluster.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from typing import Any

import redis

from benchmarks.systems.harmonia import SETTINGS, Harmonia
from benchmarks.systems.serving import serve
from benchmarks.systems.store import Store, free_port

_NODES = 3
_COMMAND_S = 300.0
_OBJECT_STORE_BYTES = 100_000_000


class HarmoniaOnNodes(Harmonia):
    """The service on a cluster that it has joined."""

    def __init__(self) -> None:
        super().__init__("always")
        self._cluster: Any = None
        self._address: list[str] = []

    def start(self) -> dict[str, Any]:
        token = self._directory / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(self._directory)}
        from ray.cluster_utils import Cluster

        self._own_store = Store(os.environ["BENCH_STORE_BINARY"], self._directory, "always")
        self._cluster = Cluster(shutdown_at_exit=True)
        for _ in range(_NODES):
            self._cluster.add_node(
                num_cpus=1,
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                dashboard_agent_listen_port=0,
            )
        self._cluster.wait_for_nodes()
        self._address = ["--address", self._cluster.address, "--data-dir", str(self._data_dir)]
        port = free_port()
        components = ["--components", "benchmarks.harmonia_component"]
        self._command("up", "--detach", "--port", str(port), *components)
        connection = json.loads((self._data_dir / "connection.json").read_text())
        self._connect(f"http://127.0.0.1:{port}", connection["api_key"])
        facts: dict[str, Any] = redis.Redis.from_url(self._own_store.url).info("server")
        return {"store": facts["redis_version"], "fsync": "always", "nodes": _NODES}

    def _command(self, verb: str, *more: str) -> None:
        assert self._own_store is not None
        environment = os.environ | SETTINGS | {"HARMONIA_REDIS_URL": self._own_store.url}
        subprocess.run(
            [sys.executable, "-m", "harmonia_serve.cli", verb, *self._address, *more],
            env=environment,
            stdout=sys.stderr,
            timeout=_COMMAND_S,
            check=True,
        )

    def stop(self) -> None:
        try:
            if self._address:
                self._command("down")
        finally:
            if self._cluster is not None:
                self._cluster.shutdown()
            super().stop()


if __name__ == "__main__":
    serve(HarmoniaOnNodes())
