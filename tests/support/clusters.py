"""Ray clusters for tests: several raylets on one machine, or a fake cloud that scales.

Every cluster demands the token of the test run (`ray_environment`) and lives in a directory of
its own. What a test starts is ended by process id: `ray stop` would end the clusters of others
on the machine, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

__all__ = ["fake_cloud", "several_raylets", "until"]

STORE_BYTES = 80 * 2**20

#: The autoscaler wants them, empty or not.
_COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


def until(condition: Callable[[], Any], what: str, within_s: float = 30.0) -> Any:
    """The condition's first value that is true; an error that says what did not come about."""
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(0.05)


@contextlib.contextmanager
def several_raylets(*nodes: Mapping[str, Any]) -> Iterator[Any]:
    """A cluster of one raylet for each of `nodes`, the head first; three at most.

    Each is what `ray.cluster_utils.Cluster.add_node` takes (`num_cpus`, `resources`, …). Gives
    the `Cluster`; the caller connects and disconnects.
    """
    if not 1 <= len(nodes) <= 3:
        raise ValueError(f"{len(nodes)} raylets; from 1 to 3 fit a small machine")
    from ray.cluster_utils import Cluster

    common: dict[str, Any] = {
        "object_store_memory": STORE_BYTES,
        "include_dashboard": False,
        "dashboard_agent_listen_port": 0,
    }
    directory = Path(tempfile.mkdtemp(prefix="hm-ray-", dir="/tmp"))
    (directory / "ray").mkdir()
    cluster = Cluster(shutdown_at_exit=True)
    try:
        with _temporary_directory_of_ray(directory):
            for node in nodes:
                cluster.add_node(**common, **node)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _temporary_directory_of_ray(directory: Path) -> Iterator[None]:
    """Ray notes there which cluster is this machine's; others' notes must not be overwritten."""
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = str(directory)
    try:
        yield
    finally:
        os.environ.pop("RAY_TMPDIR")
        if before is not None:
            os.environ["RAY_TMPDIR"] = before


@contextlib.contextmanager
def fake_cloud(
    node_types: Mapping[str, Mapping[str, float]],
    *,
    head_resources: Mapping[str, float] | None = None,
    head_cpus: int = 0,
    idle_s: float = 1.0,
    workers_max: int = 2,
) -> Iterator[str]:
    """A head, by itself without CPUs, whose autoscaler adds raylets of these types: its address.

    `node_types` maps a name to the resources of one node; two nodes of a type at most.
    """
    directory = Path(tempfile.mkdtemp(prefix="hm-ray-", dir="/tmp"))
    from ray.util import get_node_ip_address

    address = f"{get_node_ip_address()}:{_free_port()}"
    config = directory / "autoscaling.yaml"
    config.write_text(json.dumps(_cloud(address, node_types, head_cpus, idle_s, workers_max)))
    head = subprocess.Popen(
        _start_head(address, config, directory, head_cpus, head_resources or {}),
        env=_cloud_environment(),
        stdin=subprocess.DEVNULL,
        stdout=(directory / "start.log").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        _wait_for_head(head, address, directory / "start.log")
        yield address
    finally:
        _end_all(head, address)
        shutil.rmtree(directory, ignore_errors=True)


def _cloud(
    address: str,
    node_types: Mapping[str, Mapping[str, float]],
    head_cpus: int,
    idle_s: float,
    workers_max: int,
) -> dict[str, Any]:
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

    head = "ray.head.default"
    types = {
        name: {
            "resources": {"object_store_memory": STORE_BYTES, **resources},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 2,
        }
        for name, resources in node_types.items()
    }
    return {
        "cluster_name": "fake",
        "max_workers": workers_max,
        "idle_timeout_minutes": idle_s / 60,
        "upscaling_speed": 100.0,
        "provider": {
            # Named as a stranger's: Ray's wheel lacks the default configuration of its own fake.
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
        },
        "available_node_types": {
            **types,
            head: {"resources": {"CPU": head_cpus}, "node_config": {}, "max_workers": 0},
        },
        "head_node_type": head,
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        **{name: [] for name in _COMMANDS},
    }


def _start_head(
    address: str, config: Path, directory: Path, cpus: int, resources: Mapping[str, float]
) -> Sequence[str]:
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        f"--port={address.rpartition(':')[2]}",
        f"--autoscaling-config={config}",
        f"--temp-dir={directory}",
        f"--object-store-memory={STORE_BYTES}",
        f"--resources={json.dumps(dict(resources))}",
        f"--num-cpus={cpus}",
        "--include-dashboard=false",
        "--disable-usage-stats",
        "--dashboard-agent-listen-port=0",
        "--min-worker-port=0",
        "--max-worker-port=0",
    ]


def _cloud_environment() -> dict[str, str]:
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

    return {
        **os.environ,
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }


def _wait_for_head(head: subprocess.Popen[bytes], address: str, log: Path) -> None:
    host, _, port = address.rpartition(":")

    def answers() -> bool:
        if head.poll() is not None:
            raise AssertionError(f"ray start ended: {log.read_text()}")
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((host, int(port))) == 0

    until(answers, f"Ray's head at {address}", 60)


def _end_all(head: subprocess.Popen[bytes], address: str) -> None:
    """End the head, the nodes that its autoscaler started, and all their processes."""
    mine = {process.pid: process for process in _descendants(head.pid)}
    for process in psutil.process_iter(["cmdline"]):
        if any(address in word for word in process.info["cmdline"] or []):
            mine[process.pid] = process
            mine |= {child.pid: child for child in _descendants(process.pid)}
    for process in mine.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    head.kill()
    head.wait()
    psutil.wait_procs(list(mine.values()), timeout=10)


def _descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
