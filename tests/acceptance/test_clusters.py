"""Harmonia on clusters of several nodes: files that stay together, and nodes that come and go."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from harmonia_serve.client import HarmoniaClient, ValidationFailed
from harmonia_serve.client.execution import Execution
from persistence.embedded import EmbeddedServer
from tests.support.clusters import fake_cloud, several_raylets, until
from tests.support.data_server import DataServer, data_server
from tests.support.running import free_port

HARMONIA = [sys.executable, "-m", "harmonia_serve.cli"]
EXAMPLE = Path(__file__).parents[2] / "examples" / "data_processing_workflow.json"
LIMIT_S = 240.0
#: An execution's node is drawn by lot: by then, all on one of two is a matter of one in 2**19.
EXECUTIONS_MAX = 20
AT_ONCE = 4
#: Some seconds of work for one CPU.
FIBONACCI = 37

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def data() -> Iterator[DataServer]:
    with data_server() as server:
        yield server


def harmonia(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*HARMONIA, *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """This process on the cluster, to see what Ray itself says of it."""
    ray.init(address, namespace="looking", log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def deployed(
    address: str, data_dir: Path, redis_url: str, namespace: str, **settings: str
) -> Iterator[HarmoniaClient]:
    """Harmonia on the cluster at this address; afterwards off it, and that is made sure of."""
    environ = {"HARMONIA_NAMESPACE": namespace, **settings}
    where = ["--address", address, "--data-dir", str(data_dir)]
    harmonia(
        *("up", *where, "--port", str(free_port())),
        *("--redis-url", redis_url, "--detach"),
        **environ,
    )
    with HarmoniaClient(data_dir=data_dir) as client:
        yield client
    assert actors_of(namespace)
    harmonia("down", *where, HARMONIA_REDIS_URL=redis_url, **environ)
    assert actors_of(namespace) == []


def actors_of(namespace: str) -> list[str]:
    """Names of an installation's actors that the cluster has."""
    entries = ray.util.list_named_actors(all_namespaces=True)
    return [e["name"] for e in entries if namespace in (e["namespace"], e["name"].split(":")[0])]


def nodes_alive() -> list[dict[str, Any]]:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


# Files stay together ---------------------------------------------------------------------------


def test_each_execution_has_its_files_on_one_node_and_executions_spread(
    data: DataServer, redis_server: EmbeddedServer, redis_namespace: str, tmp_path: Path
) -> None:
    head, *workers = {"num_cpus": 0}, {"num_cpus": 1}, {"num_cpus": 1}
    with (
        several_raylets(head, *workers) as cluster,
        connected(cluster.address),
        deployed(
            cluster.address,
            tmp_path / "data",
            redis_server.url,
            redis_namespace,
            HARMONIA_WORKSPACE_PER_NODE="true",
        ) as client,
    ):
        workflow_id = client.create_workflow(json.loads(EXAMPLE.read_text()))["workflow_id"]
        nodes: dict[str, str] = {}
        while len(set(nodes.values())) < len(workers):
            assert len(nodes) < EXECUTIONS_MAX, f"all executions were on one node: {nodes}"
            started = [start(client, workflow_id, data) for _ in range(AT_ONCE)]
            for execution in started:
                done = execution.wait(timeout=120)
                assert done["status"] == "completed", json.dumps(done)
                nodes[execution.id] = only_directory(tmp_path / "data" / "workspaces", execution)
        able = {node["NodeID"][:12] for node in nodes_alive() if node["Resources"].get("CPU")}
        assert set(nodes.values()) == able

        # The service runs somewhere, so that at least one of the two nodes is another one.
        for execution_id, node in nodes.items():
            here = tmp_path / "data" / "workspaces" / node / execution_id
            check_files(client.execution(execution_id), here)
        survive_the_death_of_a_node(cluster, client)


def survive_the_death_of_a_node(cluster: Any, client: HarmoniaClient) -> None:
    """Whatever ran there, Harmonia's own actors or tasks, goes on somewhere else."""
    task = {"component": "harmonia", "action": "fibonacci", "input": {"n": FIBONACCI}}
    work = {"name": "work", "tasks": {"work": task}}
    workflow_id = client.create_workflow(work)["workflow_id"]
    started = [client.execution(client.execute(workflow_id, {})["execution_id"]) for _ in range(8)]
    until(
        lambda: sum(is_running(execution) for execution in started) >= 2,
        "a task running on each of the two nodes",
        60,
    )
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    attempts = 0
    for execution in started:
        done = execution.wait(timeout=120)
        assert done["status"] == "completed", json.dumps(done)
        assert execution.audit()["violations"] == []
        attempts += done["task_status"]["work"]["attempt"]
    assert attempts > len(started), "nothing ran on the node that was killed"


def is_running(execution: Execution) -> bool:
    return bool(execution.refresh()["task_status"]["work"]["status"] == "running")


def start(client: HarmoniaClient, workflow_id: str, data: DataServer) -> Execution:
    values = {"data_url": data.data_url, "output_file": "data.csv", "analysis_type": "detailed"}
    return client.execution(client.execute(workflow_id, values)["execution_id"])


def only_directory(workspaces: Path, execution: Execution) -> str:
    """The node that has the execution's directory: no other may have one."""
    found = [place.parent.name for place in workspaces.glob(f"*/{execution.id}")]
    assert len(found) == 1, f"{execution.id} has files on {len(found)} nodes: {found}"
    return found[0]


def check_files(execution: Execution, here: Path) -> None:
    """What the API gives of the files is what lies on the node, and the report is among it."""
    listed = {entry["path"]: entry["size"] for entry in execution.files()["items"]}
    there = {str(p.relative_to(here)): p.stat().st_size for p in here.rglob("*") if p.is_file()}
    assert listed == there
    report = execution.refresh()["output"]["report_file"]
    assert {"data.csv", str(Path(report).relative_to(here))} <= set(listed)
    for path in listed:
        assert execution.read_file(path) == (here / path).read_bytes()


# What a crash leaves behind is found on each node ----------------------------------------------


def test_what_others_left_is_found_on_whichever_node_it_is(
    data: DataServer, redis_server: EmbeddedServer, redis_namespace: str, tmp_path: Path
) -> None:
    head, *workers = {"num_cpus": 0}, {"num_cpus": 1}, {"num_cpus": 1}
    workspaces = tmp_path / "data" / "workspaces"
    with (
        several_raylets(head, *workers) as cluster,
        connected(cluster.address),
        deployed(
            cluster.address,
            tmp_path / "data",
            redis_server.url,
            redis_namespace,
            HARMONIA_WORKSPACE_PER_NODE="true",
            HARMONIA_JANITOR_INTERVAL_S="1",
            HARMONIA_JANITOR_ORPHAN_AGE_S="60",
        ) as client,
    ):
        workflow = {"name": "held", "tasks": {"held": data.held("gate")}}
        workflow_id = client.create_workflow(workflow)["workflow_id"]
        started: list[Execution] = []
        # Each uses files, so that it waits for the node that it was given, where one runs at most.
        while len(held := nodes_that_hold(workspaces, started)) < len(workers):
            assert len(started) < EXECUTIONS_MAX, f"all executions were on one node: {held}"
            started.append(client.execution(client.execute(workflow_id, {})["execution_id"]))
            until(lambda: where_it_is(started[-1]), "it runs, or waits for a CPU", 60)
        started.append(client.execution(client.execute(workflow_id, {})["execution_id"]))
        until(lambda: where_it_is(started[-1]), "it waits for a CPU", 60)

        left = leave_behind(workspaces, started[0].id)
        kill_the_pool(cluster)
        data.open("gate")
        for execution in started:
            done = execution.wait(timeout=120)
            assert done["status"] == "completed", json.dumps(done)
            # The new pool took over what runs on both nodes, and ended only what never began.
            assert done["task_status"]["held"]["attempt"] == 1
            assert execution.audit()["violations"] == []
        until(lambda: not any(place.exists() for place in left), "what was left is removed", 150)
        for execution in started:
            assert "held.csv" in {entry["path"] for entry in execution.files()["items"]}
        others = [workspaces / node["NodeID"][:12] / "somebody-else-s" for node in nodes_alive()]
        assert all(place.exists() for place in others)


def where_it_is(execution: Execution) -> str:
    """Whether its task runs, or what it waits for; "" before either is known."""
    task = execution.refresh()["task_status"]["held"]
    return "running" if task["status"] == "running" else task.get("waiting", "")


def nodes_that_hold(workspaces: Path, started: list[Execution]) -> set[str]:
    """The nodes on which one of them runs."""
    running = [execution.id for execution in started if where_it_is(execution) == "running"]
    return {place.parent.name for one in running for place in workspaces.glob(f"*/{one}")}


def leave_behind(workspaces: Path, known: str) -> list[Path]:
    """On each node a workspace whose execution the store has lost, and one of somebody else."""
    left = []
    for number, node in enumerate(nodes_alive()):
        here = workspaces / node["NodeID"][:12]
        lost = here / f"exec-{number:08}{known[13:]}"
        for place in (lost, here / "somebody-else-s"):
            place.mkdir(parents=True)
            (place / "file.txt").write_text("left")
        left.append(lost)
    return left


def kill_the_pool(cluster: Any) -> None:
    """The process that knows which task actors there are; Ray starts another one."""
    former = pools(cluster)
    assert former
    for process in former:
        process.kill()
    until(lambda: pools(cluster) and pools(cluster) != former, "another pool", 60)


def pools(cluster: Any) -> list[psutil.Process]:
    found = []
    for node in cluster.list_all_nodes():
        (raylet,) = node.all_processes["raylet"]
        for process in psutil.Process(raylet.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                # One that is just ending has no command line any more.
                if "".join(process.cmdline()[:1]).startswith("ray::TaskPool"):
                    found.append(process)
    return found


# Nodes come and go -----------------------------------------------------------------------------


def fpga_task(task: dict[str, Any], quantity: int = 1) -> dict[str, Any]:
    return {**task, "resources": {"num_cpus": 1, "fpga": quantity}}


def test_queued_tasks_bring_a_node_and_their_end_takes_it_away(
    data: DataServer, redis_server: EmbeddedServer, redis_namespace: str, tmp_path: Path
) -> None:
    with (
        fake_cloud({"board": {"CPU": 2, "fpga": 1}}, head_cpus=1, workers_max=1) as address,
        connected(address),
        deployed(
            address,
            tmp_path / "data",
            redis_server.url,
            redis_namespace,
            HARMONIA_WORKSPACE_PER_NODE="true",
            HARMONIA_TASK_ACTORS_MIN="1",
            HARMONIA_TASK_ACTOR_IDLE_S="1",
        ) as client,
    ):
        assert len(nodes_alive()) == 1
        never = {"name": "never", "tasks": {"a": fpga_task(data.held("never"), quantity=2)}}
        with pytest.raises(ValidationFailed, match="fpga"):
            client.run(never)

        # They use files, which the node that is there could have: they wait for the other one.
        tasks = {name: fpga_task(data.held(name)) for name in ("one", "two")}
        tasks["after"] = {**data.held("after"), "depends_on": ["one", "two"]}
        execution = client.run({"name": "boards", "tasks": tasks})
        until(lambda: waiting(execution) == {"one", "two"}, "both tasks wait", 30)
        until(lambda: running(execution), "the first task runs", 120)
        # There is one board, so that one task runs and the other waits for it.
        assert sorted(node["Resources"].get("fpga", 0) for node in nodes_alive()) == [0, 1]
        assert len(running(execution)) == 1
        free = ray.available_resources()  # type: ignore[no-untyped-call]
        assert free.get("fpga", 0) == 0
        (board,) = (node["NodeID"] for node in nodes_alive() if "fpga" in node["Resources"])

        for name in tasks:
            data.open(name)
        done = execution.wait(timeout=60)
        assert done["status"] == "completed", json.dumps(done)
        assert only_directory(tmp_path / "data" / "workspaces", execution) == board[:12]
        until(lambda: len(nodes_alive()) == 1, "the idle node goes", 120)
        assert not any("fpga" in node["Resources"] for node in nodes_alive())

        plain = {"component": "harmonia", "action": "echo", "input": {"value": 1}}
        done = client.run({"name": "plain", "tasks": {"a": fpga_task(plain)}}).wait(timeout=120)
        assert done["status"] == "completed", json.dumps(done)


def waiting(execution: Execution) -> set[str]:
    tasks = execution.refresh()["task_status"]
    return {name for name, task in tasks.items() if "fpga" in task.get("waiting", "")}


def running(execution: Execution) -> set[str]:
    tasks = execution.refresh()["task_status"]
    return {name for name, task in tasks.items() if task["status"] == "running"}
