"""What a task may ask for, how requests fall into classes, and what can never be met."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harmonia_actors.core.resources import Capacity, ResourceRequest

GIB = 2**30
STEP = 256 * 2**20

quantities = st.integers(1, 10**9).map(lambda units: units / 10_000)
names = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=20)


@st.composite
def requests(draw: st.DrawFn) -> ResourceRequest:
    customs = draw(st.dictionaries(names.map(lambda name: f"x-{name}"), quantities, max_size=4))
    share = st.integers(0, 10_000).map(lambda units: units / 10_000)
    return ResourceRequest(
        num_cpus=draw(st.one_of(st.just(0.0), quantities)),
        num_gpus=draw(st.one_of(share, st.integers(1, 64).map(float))),
        memory_bytes=draw(st.integers(0, 2**45)),
        custom=tuple(sorted(customs.items())),
    )


def test_nothing_asked_is_one_cpu() -> None:
    assert ResourceRequest.parse({}) == ResourceRequest.DEFAULT == ResourceRequest(num_cpus=1.0)
    assert ResourceRequest.DEFAULT.options() == {"num_cpus": 1}


def test_every_key_of_the_json_form() -> None:
    raw = {"num_cpus": 2, "num_gpus": 0.5, "memory": "2GiB", "fpga": 1, "resources": {"disk": 0.5}}
    request = ResourceRequest.parse(raw)
    assert request.custom == (("disk", 0.5), ("fpga", 1.0))
    assert request.options() == {
        "num_cpus": 2,
        "num_gpus": 0.5,
        "memory": 2 * GIB,
        "resources": {"disk": 0.5, "fpga": 1},
    }
    assert request.describe() == "2 CPUs, 0.5 GPU, 2 GiB of memory, 0.5 of 'disk' and 1 of 'fpga'"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1_000, 1_000),
        ("1000", 1_000),
        ("2 kB", 2_000),
        ("2KiB", 2_048),
        ("1.5GiB", 3 * GIB // 2),
        ("1.5g", 1_500_000_000),
        ("4Gi", 4 * GIB),
        ("0", 0),
        (1.5, 2),
    ],
)
def test_memory_in_bytes_or_in_words(text: object, size: int) -> None:
    assert ResourceRequest.parse({"memory": text}).memory_bytes == size


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"num_cpus": -1}, ["num_cpus", "-1", "from 0"]),
        ({"num_cpus": "2"}, ["num_cpus", "'2'", "number"]),
        ({"num_cpus": True}, ["num_cpus", "True", "number"]),
        ({"num_cpus": None}, ["num_cpus", "None", "number"]),
        ({"num_cpus": float("nan")}, ["num_cpus", "nan"]),
        ({"num_cpus": float("inf")}, ["num_cpus", "inf"]),
        ({"num_cpus": 0.00001}, ["num_cpus", "1e-05", "0.0001"]),
        ({"num_gpus": 1.5}, ["num_gpus", "1.5", "1 or 2"]),
        ({"memory": "lots"}, ["memory", "lots", "2GiB"]),
        ({"memory": -5}, ["memory", "-5", "from 0"]),
        ({"memory": float("nan")}, ["memory", "nan"]),
        ({"memory": float("inf")}, ["memory", "inf", "from 0"]),
        ({"memory": 10**400}, ["memory", "from 0"]),
        ({"memory": "9" * 400}, ["memory", "from 0"]),
        ({"memory": "9" * 300 + "TiB"}, ["memory", "from 0"]),
        ({"num_cpus": 10**400}, ["num_cpus", "from 0"]),
        ({"memory": [1]}, ["memory", "[1]"]),
        ({"resources": 3}, ["resources", "3", "object"]),
        ({"resources": {"fpga": 1}, "fpga": 2}, ["fpga", "twice"]),
        ({"fpga": 0}, ["fpga", "0", "left out"]),
        ({"fpga": "one"}, ["fpga", "'one'", "number"]),
        ({"": 1}, ["1 to 128"]),
        ({"a\nb": 1}, ["printable"]),
        ({"x" * 129: 1}, ["1 to 128"]),
        ({"num_cpu": 1}, ["num_cpu ", "use num_cpus"]),
        ({"CPU": 1}, ["CPU", "use num_cpus"]),
        ({"resources": {"GPU": 1}}, ["GPU", "use num_gpus"]),
        ({f"r{i}": 1 for i in range(33)}, ["33", "at most 32"]),
    ],
)
def test_a_bad_request_is_told_field_value_and_way_out(
    raw: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(ValueError) as caught:
        ResourceRequest.parse(raw)
    for words in said:
        assert words in str(caught.value)


@given(requests())
def test_options_are_a_request_again(request: ResourceRequest) -> None:
    assert ResourceRequest.parse(request.options()) == request
    assert pickle.loads(pickle.dumps(request)) == request  # noqa: S301 - Ray carries requests so


@given(requests())
def test_a_class_has_at_least_what_is_asked_and_less_than_a_step_more(
    request: ResourceRequest,
) -> None:
    found = request.quantised()
    assert 0 <= found.memory_bytes - request.memory_bytes < STEP
    assert found.quantised() == found
    assert found.class_key() == request.class_key()
    assert set(found.demand()) == set(request.demand())


@given(requests(), requests())
def test_classes_have_one_key_each(left: ResourceRequest, right: ResourceRequest) -> None:
    assert (left.class_key() == right.class_key()) == (left.quantised() == right.quantised())


def test_keys_of_classes_do_not_change_between_releases() -> None:
    raw = {"num_cpus": 0.5, "num_gpus": 1, "memory": 300 * 2**20, "a,b=c": 2}
    assert ResourceRequest.DEFAULT.class_key() == "cpu=1"
    assert ResourceRequest.parse(raw).class_key() == "cpu=0.5,gpu=1,memory=512MiB,a%2Cb%3Dc=2"


@given(requests())
def test_a_place_that_has_exactly_what_is_asked_is_enough(request: ResourceRequest) -> None:
    assume(request.demand())
    demand = request.demand()
    assert Capacity(nodes={"a": demand}).can_ever_meet(request)
    assert Capacity(nodes={"a": {}}, node_types=(demand,)).can_ever_meet(request)
    for name in demand:
        less = {**demand, name: demand[name] - 0.0001}
        if name != "memory":
            assert not Capacity(nodes={"a": less, "b": {name: demand[name]}}).can_ever_meet(
                request
            ) or (len(demand) == 1)


def test_what_can_never_be_met_is_told_with_the_most_there_is() -> None:
    capacity = Capacity(
        nodes={"a": {"CPU": 2, "memory": 4 * GIB}, "b": {"CPU": 4, "memory": 2 * GIB}}
    )
    asked = ResourceRequest.parse({"num_cpus": 8, "num_gpus": 1, "memory": "1GiB"})
    assert not capacity.can_ever_meet(asked)
    assert capacity.explain(asked) == (
        "the task asks for 8 CPUs, 1 GPU and 1 GiB of memory, but the most on one node is "
        "4 CPUs and 0 GPUs; ask for less, or add such a node"
    )


def test_what_no_one_node_has_together_is_told_so() -> None:
    capacity = Capacity(
        nodes={"a": {"CPU": 2, "memory": 4.0 * GIB}}, node_types=({"CPU": 4, "memory": 2.0 * GIB},)
    )
    asked = ResourceRequest.parse({"num_cpus": 4, "memory": "4GiB"})
    assert not capacity.can_ever_meet(asked)
    assert "no node or node type has them all together" in capacity.explain(asked)


def test_a_cluster_without_nodes_is_told_so() -> None:
    assert not Capacity().can_ever_meet(ResourceRequest.DEFAULT)
    assert "no node" in Capacity().explain(ResourceRequest.DEFAULT)


def test_nothing_is_impossible_while_it_is_unknown_what_may_join() -> None:
    assert Capacity(nodes={"a": {"CPU": 1}}, complete=False).can_ever_meet(
        ResourceRequest(num_cpus=9)
    )


def test_a_node_is_found_that_meets_every_request() -> None:
    capacity = Capacity(
        nodes={
            "b": {"CPU": 2, "GPU": 1},
            "a": {"CPU": 4, "GPU": 1},
            "head": {},
            "c": {"CPU": 8},
        },
        node_types=({"CPU": 64, "GPU": 8},),
    )
    cpu, gpu = ResourceRequest.DEFAULT, ResourceRequest(num_gpus=1)
    assert capacity.nodes_for([cpu]) == ["a", "b", "c"]
    assert capacity.nodes_for([cpu, gpu]) == ["a", "b"]
    assert capacity.nodes_for([gpu, ResourceRequest(num_cpus=3)]) == ["a"]
    assert capacity.nodes_for([gpu, ResourceRequest(num_cpus=8)]) == []


places = st.fixed_dictionaries(
    {name: st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0]) for name in ("CPU", "GPU", "fpga")}
)
small_requests = st.builds(
    ResourceRequest,
    num_cpus=st.sampled_from([0.0, 1.0, 3.0]),
    num_gpus=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    memory_bytes=st.sampled_from([0, GIB]),
    custom=st.sampled_from([(), (("fpga", 0.5),), (("fpga", 2.0),), (("disk", 1.0),)]),
)


@given(st.lists(small_requests, min_size=1, max_size=4), st.lists(places, max_size=4))
def test_what_covers_requests_is_met_where_each_of_them_is(
    several: list[ResourceRequest], nodes: list[dict[str, float]]
) -> None:
    capacity = Capacity({f"n{i}": {"memory": 2.0 * GIB, **node} for i, node in enumerate(nodes)})
    covering = ResourceRequest.covering(several)
    assert capacity.nodes_for([covering]) == capacity.nodes_for(several)
    assert ResourceRequest.parse(covering.options()) == covering


def test_capacity_knows_its_nodes() -> None:
    capacity = Capacity(nodes={"a": {"CPU": 1.5}, "b": {"CPU": 2}})
    assert capacity.total_cpus() == 3
    assert capacity.has_node("a")
    assert not capacity.has_node("c")


@pytest.mark.parametrize(
    ("request_", "node", "count"),
    [
        (ResourceRequest.DEFAULT, "", 10),
        (ResourceRequest(num_cpus=3), "", 3),
        (ResourceRequest(num_cpus=3), "a", 1),
        (ResourceRequest(num_cpus=3), "gone", 0),
        (ResourceRequest(num_cpus=0, num_gpus=1), "", 2),
        (ResourceRequest(num_cpus=1, num_gpus=1), "", 2),
        (ResourceRequest(num_cpus=0, num_gpus=0.6), "", 2),
        (ResourceRequest(num_cpus=0, num_gpus=0.25), "", 8),
        (ResourceRequest(num_cpus=0, num_gpus=2), "b", 1),
        (ResourceRequest(num_cpus=9), "", 0),
        (ResourceRequest(num_cpus=0), "", None),
    ],
)
def test_how_many_the_nodes_can_hold(
    request_: ResourceRequest, node: str, count: int | None
) -> None:
    nodes = {"a": {"CPU": 4.0}, "b": {"CPU": 6.0, "GPU": 2.0}}
    assert Capacity(nodes).can_hold(request_, node) == count
    larger = Capacity(nodes, node_types=({"CPU": 64.0, "GPU": 8.0},))
    assert larger.can_hold(request_, node) == (count if node else None), "more nodes may come"
    assert Capacity(nodes, complete=False).can_hold(request_, "") is None
    assert Capacity(nodes, node_types=({"TPU": 1.0},)).can_hold(request_, node) == count


HERE, THERE = {"CPU": 1.0, "node:10.0.0.1": 1.0}, {"node:__internal_head__": 1.0, "CPU": 1.0}


def test_a_node_is_found_again_after_a_restart_of_the_cluster() -> None:
    """Ray gives it another id each time."""
    place = Capacity({"first": HERE, "other": THERE}).place_of("first")
    assert place == "first@10.0.0.1"
    assert Capacity({"first": HERE, "0": HERE}).node_at(place) == "first"
    assert Capacity({"second": HERE, "other": THERE}).node_at(place) == "second"
    assert Capacity({"3": HERE, "2": HERE}).node_at(place) == "2", "both have its disks"
    assert Capacity({"other": THERE}).node_at(place) is None


def test_a_node_without_an_address_is_found_by_its_id_alone() -> None:
    capacity = Capacity({"other": THERE})
    assert capacity.place_of("other") == "other"
    assert capacity.node_at("other") == "other"
    assert Capacity({"another": THERE}).node_at("other") is None
