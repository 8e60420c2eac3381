"""`harmonia up --address`: onto a cluster that is there and off it again, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harmonia_serve.client import HarmoniaClient
from persistence.embedded import EmbeddedServer
from tests.support.clusters import several_raylets

HARMONIA = [sys.executable, "-m", "harmonia_serve.cli"]
LIMIT_S = 240.0

#: Somebody else's actor: made, or asked whether it still lives. Not by the test's own process,
#: which must not be connected to Ray.
NEIGHBOUR = """
import sys
import ray

ray.init(address=sys.argv[1], namespace="harmonia", logging_level="ERROR")

@ray.remote(num_cpus=0)
class Neighbour:
    def lives(self):
        return True

if sys.argv[2] == "make":
    actor = Neighbour.options(name="neighbour", lifetime="detached").remote()
else:
    actor = ray.get_actor("neighbour")
assert ray.get(actor.lives.remote())
print(sorted(entry["name"] for entry in ray.util.list_named_actors(all_namespaces=True)))
"""


def run(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env={**os.environ, **environ},
    )


def neighbour(address: str, doing: str) -> str:
    """Names of all named actors on the cluster, once the neighbour has answered."""
    found = run(sys.executable, "-c", NEIGHBOUR, address, doing)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.fixture
def cluster() -> Iterator[Any]:
    with several_raylets({"num_cpus": 2}) as found:
        yield found


@pytest.mark.timeout(600)
def test_a_running_cluster_is_used_and_left_as_it_was(
    cluster: Any, redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    environ = {"HARMONIA_REDIS_URL": redis_server.url, "HARMONIA_NAMESPACE": "harmonia"}
    address = ["--address", cluster.address]
    where = ["--data-dir", str(tmp_path / "data")]
    neighbour(cluster.address, "make")

    up = run(*HARMONIA, "up", "--detach", "--json", *address, *where, **environ)
    assert up.returncode == 0, up.stderr
    assert "Serve does not run on this cluster yet" in up.stderr
    assert redis_server.url not in up.stderr + up.stdout
    with HarmoniaClient(data_dir=tmp_path / "data") as client:
        assert client.url == json.loads(up.stdout)["url"]
        execution = client.run(
            {"name": "x", "tasks": {"a": {"component": "harmonia", "action": "noop"}}}
        )
        assert execution.wait(timeout=60)["status"] == "completed"
    assert "harmonia:" in neighbour(cluster.address, "ask")

    down = run(*HARMONIA, "down", *address, *where, **environ)
    assert down.returncode == 0, down.stderr
    assert neighbour(cluster.address, "ask").strip() == "['neighbour']"

    # A second node could not reach an embedded store: refused, and the way out is named.
    cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    cluster.wait_for_nodes()
    environ = {"HARMONIA_REDIS_URL": "", "HARMONIA_NAMESPACE": "harmonia"}
    refused = run(*HARMONIA, "up", *address, *where, **environ)
    assert refused.returncode == 1
    assert "2 nodes" in refused.stderr
    assert "--redis-url" in refused.stderr
    assert neighbour(cluster.address, "ask").strip() == "['neighbour']"
