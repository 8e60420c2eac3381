"""Who gets which task actor: the pool's decisions as tables of what happens and what follows."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from harmonia_actors.core.resources import Capacity, ResourceRequest
from harmonia_actors.runtime.orders import QueueKey
from harmonia_actors.runtime.pool_effects import (
    CreateActor,
    Effect,
    Grant,
    KillActor,
    Recall,
    Refuse,
)
from harmonia_actors.runtime.slots import PoolLimits, SlotPool

DEFAULT = QueueKey()
SHARED = QueueKey(shared=True)
BIG = QueueKey(ResourceRequest(num_cpus=2))
BIG_SHARED = QueueKey(ResourceRequest(num_cpus=2), shared=True)
GPU = QueueKey(ResourceRequest(num_gpus=1))
ON_A = QueueKey(node_id="a")
FOUR_CPUS = Capacity(nodes={"a": {"CPU": 4.0, "memory": 8e9}})
LIMITS = PoolLimits(warm_min=2, actors_max=10, idle_ms=60_000, room_after_ms=1_000)


class Pool:
    """A pool whose effects are kept as text, and whose actors get ready when the test says so."""

    def __init__(self, limits: PoolLimits = LIMITS, capacity: Capacity = FOUR_CPUS) -> None:
        numbers = itertools.count(1)
        self.pool = SlotPool(limits, capacity, lambda: f"ns:task-{next(numbers)}")
        self.now_ms = 0
        self.tickets: dict[int, str] = {}

    def ask(self, holder: str, key: QueueKey = DEFAULT, want: int = 1) -> list[str]:
        ticket, effects = self.pool.ask(holder, key, want, self.now_ms)
        self.tickets[ticket] = holder
        return self.shown(effects)

    def give(self, holder: str, *numbers: int) -> list[str]:
        names = [f"ns:task-{number}" for number in numbers]
        return self.shown(self.pool.give_back(holder, names, self.now_ms))

    def ready(self, *numbers: int, node: str = "a") -> list[str]:
        found = []
        for number in numbers:
            found += self.pool.actor_ready(f"ns:task-{number}", node, self.now_ms)
        return self.shown(found)

    def died(self, number: int) -> list[str]:
        return self.shown(self.pool.actor_died(f"ns:task-{number}", self.now_ms))

    def tick(
        self,
        after_ms: int = 0,
        capacity: Capacity | None = None,
        limits: PoolLimits | None = None,
    ) -> list[str]:
        self.now_ms += after_ms
        return self.shown(self.pool.tick(self.now_ms, capacity, limits))

    def shown(self, effects: list[Effect]) -> list[str]:
        return [self._shown(effect) for effect in effects]

    def _shown(self, effect: Effect) -> str:
        match effect:
            case CreateActor(name, key):
                more = " shared" if key.shared else ""
                more += f" on {key.node_id}" if key.node_id else ""
                return f"create {number(name)}{more}"
            case KillActor(name):
                return f"kill {number(name)}"
            case Grant(ticket, names):
                return f"grant {self.tickets.get(ticket, '?')} {','.join(map(number, names))}"
            case Refuse(ticket, reason):
                return f"refuse {reason}"
            case Recall(holder, _, count):
                return f"recall {holder} {count}"


def number(name: str) -> str:
    return name.removeprefix("ns:task-")


@pytest.fixture
def pool() -> Pool:
    return warm()


def warm() -> Pool:
    """Two warm actors (1 and 2) and the shared one (3)."""
    made = Pool()
    assert made.tick() == ["create 1", "create 2", "create 3 shared"]
    assert made.ready(1, 2, 3) == []
    return made


def asked(made: Pool, holder: str, key: QueueKey = DEFAULT, want: int = 1) -> list[str]:
    """As `ask`, with the grant's holder in it even if it came at once."""
    return [text.replace("grant ?", f"grant {holder}") for text in made.ask(holder, key, want)]


# The floor and growth ----------------------------------------------------------------------------


def test_what_is_warm_is_given_at_once(pool: Pool) -> None:
    assert asked(pool, "x") == ["grant x 1"]
    assert asked(pool, "y") == ["grant y 2"]


def test_several_are_given_together_and_more_are_on_their_way(pool: Pool) -> None:
    assert asked(pool, "x", want=4) == ["grant x 1,2", "create 4", "create 5"]


def test_no_more_are_made_than_there_are_cpus(pool: Pool) -> None:
    asked(pool, "x", want=2)
    assert asked(pool, "x", want=50) == ["create 4", "create 5"]
    assert pool.ready(4) == ["grant x 4"]
    assert pool.ready(5) == []
    assert asked(pool, "x", want=50) == ["grant x 5"]
    assert asked(pool, "x", want=50) == []


def test_beyond_the_cpus_only_if_nodes_may_be_added() -> None:
    limits = PoolLimits(warm_min=1, actors_max=100, idle_ms=1, pending_max=3)
    scaled = Pool(limits, Capacity({"a": {"CPU": 1.0}}, ({"CPU": 8.0},)))
    scaled.tick()
    scaled.ready(1)
    asked(scaled, "x")
    assert asked(scaled, "x", want=50) == ["create 3", "create 4", "create 5"]


def test_the_ceiling_holds() -> None:
    limits = PoolLimits(warm_min=0, actors_max=3, idle_ms=60_000)
    small = Pool(limits, Capacity({"a": {"CPU": 99.0, "GPU": 9.0}}))
    assert small.ask("x", GPU, 9) == ["create 1", "create 2", "create 3"]


def test_the_ceiling_moves_with_the_cluster() -> None:
    small = Pool(PoolLimits(warm_min=0, actors_max=1, idle_ms=1), Capacity({"a": {"CPU": 1.0}}))
    assert small.ask("x", want=3) == ["create 1"]
    grown = Capacity({"a": {"CPU": 1.0}, "b": {"CPU": 8.0}})
    told = small.tick(0, grown, PoolLimits(warm_min=0, actors_max=3, idle_ms=1))
    assert told == ["create 2", "create 3"]


def test_the_shared_actor_takes_no_place_below_the_ceiling() -> None:
    full = Pool(PoolLimits(warm_min=2, actors_max=2, idle_ms=60_000))
    assert full.tick() == ["create 1", "create 2", "create 3 shared"]
    asked(full, "x", SHARED)
    assert full.ready(1, 2, 3) == ["grant x 3"]


def test_the_floor_stays_below_the_ceiling() -> None:
    low = Pool(PoolLimits(warm_min=4, actors_max=3, idle_ms=60_000))
    assert low.tick() == ["create 1", "create 2", "create 3", "create 4 shared"]


def test_at_the_ceiling_an_idle_actor_leaves_its_place_to_a_class_that_has_none() -> None:
    full = Pool(PoolLimits(warm_min=2, actors_max=2, idle_ms=60_000))
    full.tick()
    full.ready(1, 2, 3)
    assert full.ask("x", BIG) == []
    assert full.tick(1) == ["kill 1", "create 4"]
    assert full.tick(1) == [], "one place is enough, and the floor does not take it back"
    assert full.ready(4) == ["grant x 4"]
    assert full.tick(1) == []


def test_at_the_ceiling_a_busy_actor_leaves_its_place_when_it_is_given_back() -> None:
    full = Pool(PoolLimits(warm_min=2, actors_max=2, idle_ms=60_000))
    full.tick()
    full.ready(1, 2, 3)
    asked(full, "x", want=2)
    assert full.ask("x", want=1) == [], "his own class has its places"
    assert full.ask("y", BIG) == []
    assert full.tick(1) == ["recall x 1"]
    assert full.give("x", 1) == ["kill 1", "create 4"], "before those who have actors already"


def test_at_the_ceiling_one_after_the_other_is_asked_until_one_leaves_its_place() -> None:
    """What the first one runs may take hours."""
    full = Pool(PoolLimits(warm_min=2, actors_max=2, idle_ms=60_000))
    full.tick()
    full.ready(1, 2, 3)
    asked(full, "x")
    asked(full, "y")
    assert full.ask("z", BIG) == []
    assert [full.tick(1), full.tick(1), full.tick(1)] == [["recall x 1"], ["recall y 1"], []]
    assert full.give("y", 2) == ["kill 2", "create 4"]
    full.ask("w")
    assert full.give("x", 1) == ["grant w 1"], "nobody needs another place"


def test_nobody_leaves_a_place_that_cannot_be_used_now() -> None:
    room = Capacity({"a": {"CPU": 99.0, "GPU": 9.0}})
    full = Pool(PoolLimits(warm_min=2, actors_max=3, idle_ms=60_000), room)
    full.tick()
    full.ready(1, 2, 3)
    assert full.ask("x", BIG) == ["create 4"]
    assert full.died(4) == [], "it is tried again in a second"
    assert full.ask("y", GPU) == ["create 5"]
    assert full.ready(5) == ["grant y 5"]
    assert full.tick(999) == []
    assert full.tick(1) == ["kill 1", "create 6"]


def test_at_the_ceiling_the_class_that_has_most_is_asked() -> None:
    wide = Capacity({"a": {"CPU": 99.0, "GPU": 9.0}})
    full = Pool(PoolLimits(warm_min=0, actors_max=4, idle_ms=60_000), wide)
    full.ask("x", BIG)
    assert full.ready(1) == ["grant x 1"]
    full.ask("y", GPU, 3)
    assert full.ready(2)[:1] == ["grant y 2"]
    full.ready(3, 4)
    assert asked(full, "y", GPU, 2) == ["grant y 3,4"]
    full.ask("z")
    assert "recall y 1" in full.tick(1)
    assert full.give("y", 3) == ["kill 3", "create 6"]


def test_what_only_waits_leaves_its_place_to_a_class_that_has_none() -> None:
    scaled = Capacity({"a": {"CPU": 9.0}}, ({"CPU": 1.0, "GPU": 1.0},))
    full = Pool(PoolLimits(warm_min=0, actors_max=3, idle_ms=60_000), scaled)
    assert full.ask("x", GPU, 3) == ["create 1", "create 2", "create 3"]
    assert full.ask("y", BIG) == []
    assert full.tick(1) == ["kill 1", "create 4"]
    assert full.tick(1) == []


def test_what_was_idle_for_long_ends_down_to_the_floor(pool: Pool) -> None:
    asked(pool, "x", want=4)
    pool.ready(4, 5)
    asked(pool, "x", want=2)
    pool.give("x", 1, 2, 4, 5)
    assert pool.tick(59_999) == []
    ended = pool.tick(1)
    assert len(ended) == 2
    assert all(text.startswith("kill") for text in ended)
    assert pool.pool.counts() == {"starting": 0, "idle": 3, "leased": 0, "requests": 0}


def test_the_floor_is_kept_when_actors_die(pool: Pool) -> None:
    assert pool.died(1) == ["create 4"]


def test_an_actor_that_dies_while_starting_is_not_tried_again_at_once() -> None:
    failing = Pool(PoolLimits(warm_min=1, actors_max=4, idle_ms=60_000))
    failing.tick()
    failing.ready(2)
    waits = []
    for name in (1, 3, 4, 5):
        assert failing.died(name) == []
        waited = 0
        while not failing.tick(500):
            waited += 500
        waits.append(waited + 500)
    assert waits == [1_000, 2_000, 4_000, 8_000]


def test_an_unknown_actor_that_reports_ready_is_ended(pool: Pool) -> None:
    assert pool.ready(99) == ["kill 99"]


# Giving back and fairness ------------------------------------------------------------------------


def test_the_oldest_request_is_served_first(pool: Pool) -> None:
    asked(pool, "x", want=2)
    pool.ask("y")
    pool.ask("z")
    assert pool.give("x", 1, 2)[:2] == ["grant y 1", "grant z 2"]


def test_whoever_has_most_is_asked_to_give_one_back(pool: Pool) -> None:
    asked(pool, "x", want=2)
    assert pool.ask("y") == ["create 4", "recall x 1"]
    assert pool.tick() == [], "he is asked once, until he answers"
    assert pool.give("x", 1) == ["grant y 1"]


def test_while_one_is_busy_the_next_one_is_asked(pool: Pool) -> None:
    asked(pool, "x", want=2)
    assert pool.ask("w") == ["create 4", "recall x 1"]
    assert pool.ready(4) == ["grant w 4"]
    assert pool.ask("y") == ["create 5", "recall w 1"]


def test_nobody_takes_from_those_who_have_no_more_than_himself() -> None:
    even = Pool(capacity=Capacity({"a": {"CPU": 2.0}}))
    even.tick()
    even.ready(1, 2, 3)
    asked(even, "x")
    asked(even, "y")
    assert even.ask("x") == []


def test_only_the_holder_can_give_back(pool: Pool) -> None:
    asked(pool, "x")
    pool.give("stranger", 1)
    assert pool.pool.held_by("x") == ["ns:task-1"]


def test_a_dead_holder_waits_for_nothing(pool: Pool) -> None:
    asked(pool, "x", want=2)
    pool.ask("y")
    pool.pool.forget_requests("y", 0)
    granted = [text for text in pool.give("x", 1, 2) if "grant" in text]
    assert granted == []
    assert pool.pool.counts()["requests"] == 0


def test_a_withdrawn_request_is_not_served(pool: Pool) -> None:
    asked(pool, "x", want=2)
    ticket, _ = pool.pool.ask("y", DEFAULT, 1, 0)
    pool.pool.withdraw(ticket)
    assert [text for text in pool.give("x", 1) if "grant" in text] == []


# Other classes -----------------------------------------------------------------------------------


def test_another_class_gets_an_actor_of_its_own(pool: Pool) -> None:
    assert pool.ask("x", BIG) == ["create 4"]
    assert pool.ready(4) == ["grant x 4"]
    pool.give("x", 4)
    assert asked(pool, "y", BIG) == ["grant y 4"]


def test_a_shared_actor_with_resources_of_its_own_makes_room_when_nobody_uses_it() -> None:
    made = Pool(capacity=TWO_CPUS)
    made.tick()
    made.ask("x", BIG_SHARED)
    made.tick(1_000)
    made.tick(1)
    assert made.ready(4) == ["grant x 4"]
    assert asked(made, "y", BIG_SHARED) == ["grant y 4"]
    assert made.ask("z", BIG) == ["create 5"]
    assert made.tick(1_000) == ["recall x 1", "recall y 1"]
    assert made.give("x", 4) == []
    assert made.give("y", 4) == ["kill 4"]


def test_a_shared_actor_with_resources_of_its_own_ends_when_it_is_idle(pool: Pool) -> None:
    asked(pool, "x", BIG_SHARED)
    pool.ready(4)
    assert pool.tick(60_000) == [], "it is in use, however long"
    assert pool.give("x", 4) == []
    assert pool.tick(59_999) == []
    assert pool.tick(1) == ["kill 4"]


def test_a_holder_of_several_leases_of_a_shared_actor_gives_each_back(pool: Pool) -> None:
    for _ in range(2):
        asked(pool, "x", BIG_SHARED)
    pool.ready(4)
    assert pool.pool.held_by("x") == ["ns:task-4", "ns:task-4"]
    pool.give("x", 4)
    assert pool.tick(60_000) == []
    pool.give("x", 4)
    assert pool.tick(60_000) == ["kill 4"]


def test_requests_that_differ_little_share_a_class(pool: Pool) -> None:
    pool.ask("x", QueueKey(ResourceRequest(memory_bytes=300_000_000)))
    pool.ready(4)
    pool.give("x", 4)
    assert asked(pool, "y", QueueKey(ResourceRequest(memory_bytes=400_000_000))) == ["grant y 4"]


TWO_CPUS = Capacity(nodes={"a": {"CPU": 2.0}})


@pytest.fixture
def full() -> Pool:
    """A node that two warm actors (1 and 2) fill."""
    made = Pool(capacity=TWO_CPUS)
    made.tick()
    made.ready(1, 2, 3)
    return made


def test_idle_actors_make_room_for_one_that_cannot_start(full: Pool) -> None:
    full.ask("x", BIG)
    assert full.tick(999) == []
    assert full.tick(1) == ["kill 1"]
    assert full.tick(1) == ["kill 2"]
    assert full.tick(1) == []
    assert full.ready(4) == ["grant x 4"]


def test_leased_actors_make_room_when_they_are_given_back(full: Pool) -> None:
    asked(full, "x", want=2)
    full.ask("y", BIG)
    assert full.tick(1_000) == ["recall x 1"]
    assert full.tick(500) == ["recall x 1"]
    assert full.tick(500) == [], "enough will come"
    assert full.give("x", 1) == ["kill 1"]
    assert full.tick(500) == []
    assert full.give("x", 2) == ["kill 2"]


def test_nobody_makes_room_where_there_is_some(pool: Pool) -> None:
    """On a machine that is busy, an actor takes its time to start."""
    pool.ask("x", BIG)
    assert pool.tick(9_999) == []
    assert pool.tick(1) == ["kill 1"], "others must have taken it"


GPU_ALONE = QueueKey(ResourceRequest(num_cpus=0, num_gpus=1))


@pytest.fixture
def workstation() -> Pool:
    """Eight warm actors and the shared one on a node with a GPU."""
    node = Capacity(nodes={"a": {"CPU": 8.0, "GPU": 1.0}})
    made = Pool(PoolLimits(warm_min=8, actors_max=32, idle_ms=60_000, room_after_ms=1_000), node)
    made.tick()
    made.ready(*range(1, 10))
    return made


def test_nobody_ends_for_those_who_wait_for_each_other(workstation: Pool) -> None:
    assert workstation.ask("x", GPU_ALONE, 10) == ["create 10"], "more could never start"
    assert workstation.ready(10) == ["grant x 10"]
    assert workstation.ask("x", GPU_ALONE, 9) == []
    asked(workstation, "y", want=5)
    for _ in range(100):
        assert workstation.tick(500) == []


def test_only_those_make_room_who_hold_what_is_short(workstation: Pool) -> None:
    workstation.ask("x", GPU_ALONE)
    workstation.ready(10)
    half = QueueKey(ResourceRequest(num_cpus=0, num_gpus=0.5))
    assert workstation.ask("y", half, 9) == ["create 11", "create 12"]
    assert workstation.tick(1_000) == ["recall x 1"]
    assert workstation.tick(500) == []
    assert workstation.give("x", 10) == ["kill 10"]


def test_only_those_make_room_who_are_where_it_could_start() -> None:
    two = Capacity({"a": {"CPU": 2.0}, "b": {"CPU": 2.0, "GPU": 1.0}})
    made = Pool(PoolLimits(warm_min=4, actors_max=10, idle_ms=60_000, room_after_ms=1_000), two)
    made.tick()
    made.ready(1, 2, 5, node="a")
    made.ready(3, 4, node="b")
    made.ask("x", GPU)
    assert made.tick(1_000) == ["kill 3"]
    assert made.ready(6, node="b") == ["grant x 6"]
    made.ask("y", replace(BIG, node_id="a"))
    assert made.tick(1_000) == ["kill 1"]
    assert made.tick(1) == ["kill 2"]


def test_the_next_one_is_helped_if_the_first_cannot_be() -> None:
    node = Capacity({"a": {"CPU": 2.0, "GPU": 1.0, "fpga": 1.0}})
    made = Pool(capacity=node)
    made.tick()
    made.ready(1, 2, 3)
    made.ask("y", QueueKey(ResourceRequest(num_cpus=0, custom=(("fpga", 1.0),))))
    made.ask("z", BIG)
    assert made.tick(1_000) == ["kill 1"], "nobody here holds the fpga"


def test_nobody_makes_room_for_what_takes_none() -> None:
    made = Pool(capacity=TWO_CPUS)
    made.tick()
    made.ready(1, 2)
    made.ask("x", SHARED)
    assert made.tick(50_000) == []


def test_no_more_of_a_class_are_made_than_the_nodes_can_hold() -> None:
    wide = PoolLimits(warm_min=0, actors_max=100, idle_ms=1)
    three = {"a": {"CPU": 4.0}, "b": {"CPU": 6.0}}
    assert len(Pool(wide, Capacity(three)).ask("x", QueueKey(ResourceRequest(3)), 50)) == 3
    on_a = QueueKey(ResourceRequest(3), "a")
    assert Pool(wide, Capacity(three)).ask("x", on_a, 50) == ["create 1 on a"]
    grows = Capacity(three, ({"CPU": 8.0},))
    assert len(Pool(wide, grows).ask("x", QueueKey(ResourceRequest(3)), 50)) == 8
