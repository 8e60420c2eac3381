"""Task actors for nodes that may come, for one node or nobody, and for what can never be served."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.orders import QueueKey
from harmonia_actors.runtime.slots import PoolLimits
from tests.unit.runtime.test_slots import BIG, DEFAULT, GPU, ON_A, SHARED, Pool, asked, warm


@pytest.fixture
def pool() -> Pool:
    return warm()


# Shared, pinned, hopeless ------------------------------------------------------------------------


def test_the_shared_actor_is_everybodys(pool: Pool) -> None:
    assert asked(pool, "x", SHARED, 5) == ["grant x 3"]
    assert asked(pool, "y", SHARED) == ["grant y 3"]
    assert pool.give("x", 3) == []
    assert asked(pool, "z", SHARED) == ["grant z 3"]


def test_a_pinned_request_takes_an_actor_that_is_there() -> None:
    two = Capacity({"a": {"CPU": 2.0}, "b": {"CPU": 2.0}})
    pinned = Pool(capacity=two)
    pinned.tick()
    pinned.ready(1, node="b")
    pinned.ready(2, 3, node="a")
    assert asked(pinned, "x", ON_A) == ["grant x 2"]
    assert asked(pinned, "y", ON_A) == ["create 4 on a", "recall x 1"]
    assert pinned.ready(4, node="a") == ["grant y 4"]


def test_a_pinned_request_gets_an_actor_even_when_all_places_are_taken_elsewhere() -> None:
    two = Capacity({"a": {"CPU": 1.0}, "b": {"CPU": 1.0}})
    full = Pool(capacity=two)
    full.tick()
    full.ready(1, 2, 3, node="b")
    assert asked(full, "x", ON_A) == ["create 4 on a"]


def test_what_can_never_be_met_is_refused_at_once(pool: Pool) -> None:
    (refusal,) = pool.ask("x", GPU)
    assert refusal.startswith("refuse the task asks for 1 CPU and 1 GPU, but the most on one node")
    (refusal,) = pool.ask("x", QueueKey(node_id="gone"))
    assert "the node that holds the execution's workspace is gone" in refusal


def test_nothing_is_hopeless_while_it_is_not_known_what_may_come() -> None:
    open_ended = Pool(capacity=Capacity({"a": {"CPU": 1.0}}, complete=False))
    assert open_ended.ask("x", GPU) == ["create 1"]


def test_a_pinned_request_is_refused_when_its_node_goes(pool: Pool) -> None:
    asked(pool, "w", want=2)
    pool.ask("x", ON_A)
    gone = Capacity(nodes={"b": {"CPU": 4.0}})
    told = pool.tick(0, gone)
    assert [text for text in told if text.startswith("refuse")] != []
    assert pool.pool.counts()["requests"] == 0


def test_what_the_node_of_the_files_lacks_is_refused_although_another_has_it() -> None:
    two = Capacity({"a": {"CPU": 2.0}, "b": {"CPU": 2.0, "GPU": 1.0}})
    pool = Pool(capacity=two)
    (refusal,) = pool.ask("x", replace(GPU, node_id="a"))
    assert "asks for 1 CPU and 1 GPU, which the node" in refusal
    assert "configure a workspace directory that all nodes share" in refusal
    assert pool.ask("x", replace(GPU, node_id="b")) == ["create 1 on b"]


# Another pool process ----------------------------------------------------------------------------


def test_actors_of_an_earlier_pool_are_adopted() -> None:
    later = Pool()
    later.pool.adopt("ns:task-7", DEFAULT, "a", "x", 0)
    later.pool.adopt("ns:task-8", DEFAULT, "a", "", 0)
    later.pool.adopt("ns:task-9", SHARED, "a", "x", 0)
    assert later.tick() == [], "the floor is there already"
    assert later.pool.held_by("x") == ["ns:task-7", "ns:task-9"]
    assert asked(later, "y") == ["grant y 8"]
    assert asked(later, "z", SHARED) == ["grant z 9"]
    assert "create 1" in asked(later, "z")
    assert "grant z 7" in later.give("x", 7)


# Nodes that may come ------------------------------------------------------------------------------


def test_nobody_makes_room_for_what_only_a_node_that_is_added_can_have() -> None:
    scaled = Pool(capacity=Capacity({"a": {"CPU": 2.0}}, ({"CPU": 2.0, "GPU": 1.0},)))
    scaled.tick(0)
    assert [scaled.ready(1), scaled.ready(2)] == [[], []]
    assert scaled.ask("x", GPU) == ["create 4"]
    assert scaled.tick(5_000) == []
    scaled.pool.capacity = Capacity({"a": {"CPU": 2.0, "GPU": 1.0}})
    assert scaled.tick(1) == ["kill 1"]
    assert scaled.tick(1) == []


def test_an_actor_that_nobody_waits_for_any_more_is_no_demand(pool: Pool) -> None:
    ticket, effects = pool.pool.ask("x", BIG, 1, 0)
    assert pool.shown(effects) == ["create 4"]
    pool.pool.withdraw(ticket)
    assert pool.tick(60_000) == ["kill 4"]


def test_at_most_a_few_wait_for_resources_at_a_time() -> None:
    limits = PoolLimits(warm_min=0, actors_max=100, idle_ms=1, pending_max=3)
    wide = Pool(limits, Capacity({"a": {"CPU": 99.0, "GPU": 50.0}}))
    assert wide.ask("x", GPU, 50) == ["create 1", "create 2", "create 3"]
    assert wide.ready(1) == ["grant x 1", "create 4"], "one more is on its way instead"
