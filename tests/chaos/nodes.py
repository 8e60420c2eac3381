"""Harmonia on a cluster of several nodes, one of which goes: killed, or silent as without power."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil

from persistence.embedded import EmbeddedServer
from tests.chaos.run import SETTINGS
from tests.support.clusters import several_raylets
from tests.support.running import ROOT, RunningService, free_port, until

__all__ = ["NODES", "NodeFaults", "service_on_nodes"]

#: What may happen to a node, and the signal that all of its processes get at once. One that is
#: stopped answers nobody and closes no connection, like a machine without power.
NODES: Final = {
    "node of several killed": signal.SIGKILL,
    "node of several silent": signal.SIGSTOP,
}
_HARMONIA = [sys.executable, "-m", "harmonia_serve.cli"]
_DEPLOY_S = 240.0
_NOTICED_S = 180.0
_COUNT: Final = 3


class NodeFaults:
    """Lets a node of a cluster go."""

    def __init__(self, service: RunningService, cluster: Any) -> None:
        self.service = service
        #: When the last signal was sent that killed or stopped anything.
        self.landed_s = 0.0
        self._cluster = cluster
        self._gone: list[psutil.Process] = []
        self._notice: threading.Thread | None = None

    def land(self, kind: str) -> bool:
        """Let one land on the node that has the most of Harmonia's actors, the head left out."""
        head = self._cluster.head_node
        nodes = [node for node in self._cluster.list_all_nodes() if node is not head]
        doomed = max(map(_processes, nodes), key=lambda found: sum(_actors(found).values()))
        print(f"  it goes with {dict(sorted(_actors(doomed).items()))}", flush=True)
        for process in doomed:
            with contextlib.suppress(psutil.Error):
                process.send_signal(NODES[kind])
                self.landed_s = time.time()
        self._gone += doomed
        self._notice = threading.Thread(target=self._say_when_noticed)
        self._notice.start()
        return bool(doomed)

    def _say_when_noticed(self) -> None:
        """What Ray needs for it is no doing of ours."""
        until(lambda: self._alive() < _COUNT, _NOTICED_S, "Ray's notice of a dead node")
        print(f"  Ray knows it after {time.time() - self.landed_s:.1f} s", flush=True)

    def _alive(self) -> int:
        return sum(node["Alive"] for node in self._cluster.global_state.node_table())

    def over(self) -> None:
        """What stands still is ended: nobody misses it any more."""
        if self._notice is not None:
            self._notice.join()
        for process in self._gone:
            with contextlib.suppress(psutil.Error):
                process.kill()


def _processes(node: Any) -> list[psutil.Process]:
    """A node's processes, those first that would notice that others go."""
    (raylet,) = node.all_processes["raylet"]
    root = psutil.Process(raylet.process.pid)
    return [root, *root.children(recursive=True)]


def _actors(processes: list[psutil.Process]) -> Counter[str]:
    """Classes of actors among processes."""
    found: Counter[str] = Counter()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            word = next(iter(process.cmdline()), "")
            if word.startswith("ray::") and not word.startswith("ray::IDLE"):
                found[word.removeprefix("ray::").partition(".")[0]] += 1
    return found


@contextlib.contextmanager
def service_on_nodes(directory: Path) -> Iterator[NodeFaults]:
    """Harmonia on a head and two more nodes, with a store that is on none of them."""
    directory.mkdir()
    store = EmbeddedServer(directory / "store")
    store.start()
    # The raylets hand it on to the actors, which have to find the components.
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        with several_raylets(*[{"num_cpus": 1}] * _COUNT) as cluster:
            environ = {**os.environ, **SETTINGS, "HARMONIA_REDIS_URL": store.url}
            where = ["--address", cluster.address, "--data-dir", str(directory / "data")]
            faults = NodeFaults(_deploy(where, directory, environ), cluster)
            try:
                yield faults
            finally:
                faults.over()
                _run([*_HARMONIA, "down", *where], directory, environ)
    finally:
        store.stop()


def _deploy(where: list[str], directory: Path, environ: dict[str, str]) -> RunningService:
    port = free_port()
    process = _run(
        [
            *(*_HARMONIA, "up", *where, "--port", str(port), "--detach"),
            *("--components", "tests.support.actions"),
        ],
        directory,
        environ,
    )
    connection = json.loads((directory / "data" / "connection.json").read_text())
    return RunningService(
        f"http://127.0.0.1:{port}", connection["api_key"], directory / "data", process
    )


def _run(command: list[str], directory: Path, environ: dict[str, str]) -> subprocess.Popen[str]:
    """Run a command to its end. What it says goes to a file."""
    log = directory / "harmonia.log"
    with log.open("a") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=output, stderr=output, text=True
        )
        process.wait(_DEPLOY_S)
    assert process.returncode == 0, log.read_text()
    return process
