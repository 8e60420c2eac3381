"""What a cluster has and may get, read from real Ray clusters: raylets, and a cloud that scales."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from harmonia_actors.actors.capacity import CapacityReader, read_capacity
from harmonia_actors.actors.node_files import node_at
from harmonia_actors.core.resources import Capacity, ResourceRequest
from tests.support.clusters import fake_cloud, several_raylets, until

FPGA = ResourceRequest.parse({"num_cpus": 2, "fpga": 1})


class Asked:
    """An actor of whatever class: says where it is and what it sees of the cluster."""

    def node_id(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    def capacity(self) -> Capacity:
        return read_capacity()


def alive() -> int:
    return sum(node["Alive"] for node in ray.nodes())


def asked(request: ResourceRequest, **options: Any) -> Any:
    return ray.remote(Asked).options(**request.options(), **options).remote()


def check_places(capacity: Capacity) -> None:
    """A node is found by its id, or after a restart by its address, which Ray tells of each."""
    here = ray.get_runtime_context().get_node_id()
    for node_id in capacity.nodes:
        place = capacity.place_of(node_id)
        known, _, address = place.partition("@")
        assert (known, bool(address)) == (node_id, True)
        assert asyncio.run(node_at(place)) == node_id
        assert asyncio.run(node_at(f"of-an-earlier-cluster@{address}")) in {here, *capacity.nodes}
    assert asyncio.run(node_at("gone@203.0.113.1")) == "gone"
    assert asyncio.run(node_at("")) == ""


def test_every_raylet_is_counted_and_without_an_autoscaler_nothing_else() -> None:
    nodes = ({"num_cpus": 0}, {"num_cpus": 1, "resources": {"disk": 2}}, {"num_cpus": 2})
    with several_raylets(*nodes) as cluster:
        ray.init(cluster.address, namespace="capacity", log_to_driver=False, logging_level="ERROR")
        try:
            capacity = read_capacity()
            assert capacity.total_cpus() == 3
            assert len(capacity.nodes) == 3
            assert (capacity.node_types, capacity.complete) == ((), True)
            assert capacity.can_ever_meet(ResourceRequest.parse({"disk": 2}))
            assert not capacity.can_ever_meet(ResourceRequest.parse({"disk": 2, "num_cpus": 2}))
            check_places(capacity)
            on_worker = ray.get(asked(ResourceRequest.parse({"disk": 1})).capacity.remote())
            assert on_worker == capacity
        finally:
            ray.shutdown()


@pytest.fixture(scope="module")
def cloud() -> Iterator[str]:
    with fake_cloud({"board": {"CPU": 2, "fpga": 1}, "gpu": {"CPU": 1, "GPU": 2}}) as address:
        ray.init(address, namespace="capacity", log_to_driver=False, logging_level="ERROR")
        try:
            yield address
        finally:
            ray.shutdown()


def test_types_that_the_autoscaler_may_add_are_seen(cloud: str) -> None:
    capacity = read_capacity()
    found = [{k: v for k, v in each.items() if "memory" not in k} for each in capacity.node_types]
    assert found == [{"CPU": 2, "fpga": 1}, {"CPU": 1, "GPU": 2}]
    assert len(capacity.nodes) == 1
    assert capacity.total_cpus() == 0
    assert capacity.can_ever_meet(FPGA)
    assert capacity.can_ever_meet(ResourceRequest.parse({"num_gpus": 2}))
    for raw in ({"num_cpus": 3}, {"num_gpus": 3}, {"fpga": 1, "num_gpus": 1}, {"tape": 1}):
        assert not capacity.can_ever_meet(ResourceRequest.parse(raw))


def test_declared_types_go_before_those_found(cloud: str) -> None:
    capacity = read_capacity([{"CPU": 64}])
    assert capacity.node_types == ({"CPU": 64},)


def test_a_waiting_actor_brings_a_node_and_its_end_takes_it_away(cloud: str) -> None:
    before = alive()
    reader = CapacityReader()
    assert not any("fpga" in node for node in reader.read().nodes.values())
    actor = asked(FPGA, name="waiting", lifetime="detached")
    node_id = ray.get(actor.node_id.remote(), timeout=60)
    there = reader.read()
    assert there.has_node(node_id)
    assert alive() == before + 1
    # From the new node, too, the types are seen, by way of the head.
    assert ray.get(actor.capacity.remote(), timeout=30) == there
    ray.kill(actor)
    until(lambda: alive() == before, "the idle node goes", 60)
    assert not reader.read().has_node(node_id)


def test_an_actor_that_waits_for_what_never_comes_can_be_given_up(cloud: str) -> None:
    before = alive()
    never = ResourceRequest.parse({"tape": 1})
    actor = asked(never, name="never", lifetime="detached")
    ready, waiting = ray.wait([actor.node_id.remote()], timeout=0.5)
    assert (len(ready), len(waiting)) == (0, 1)
    ray.kill(ray.get_actor("never"))
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(waiting[0], timeout=30)
    until(lambda: "never" not in ray.util.list_named_actors(), "its name is free again")
    assert alive() == before
