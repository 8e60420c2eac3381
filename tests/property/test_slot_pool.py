"""Random holders over a random cluster: no actor has two of them, and every request is answered."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import note, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

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

HOLDERS = ("x", "y", "z")
DEFAULT = QueueKey()
KEYS = (
    DEFAULT,
    QueueKey(shared=True),
    QueueKey(ResourceRequest(num_cpus=2)),
    QueueKey(ResourceRequest(num_cpus=2), shared=True),
    QueueKey(ResourceRequest(num_cpus=0, custom=(("fpga", 1.0),))),
    QueueKey(ResourceRequest(num_cpus=0, num_gpus=1)),
    QueueKey(node_id="a"),
    QueueKey(node_id="b"),
)
CPUS = {"a": 2.0, "b": 3.0}
GPUS = {"a": 0.0, "b": 1.0}
CAPACITY = Capacity(
    nodes={name: {"CPU": cpus, "fpga": 1.0, "GPU": GPUS[name]} for name, cpus in CPUS.items()}
)
_ROUNDS_MAX = 400
_IDLE_MS = 5_000


class PoolMachine(RuleBasedStateMachine):
    """Plays the cluster (which starts actors where there is room) and the holders."""

    @initialize(
        warm_min=some.integers(0, 3),
        actors_max=some.sampled_from([2, 3, 4, 6, 12]),
        idle_ms=some.sampled_from([5_000, 10**9]),
    )
    def begin(self, warm_min: int, actors_max: int, idle_ms: int) -> None:
        limits = PoolLimits(warm_min, actors_max, idle_ms)
        self.actors_max = actors_max
        numbers = itertools.count(1)
        self.pool = SlotPool(limits, CAPACITY, lambda: f"task-{next(numbers)}")
        self.now_ms = 0
        self.starting: dict[str, QueueKey] = {}
        self.placed: dict[str, tuple[QueueKey, str]] = {}
        self.idle_since: dict[str, int] = {}
        #: What is just being given back: it may have been wanted for room before.
        self.given: list[str] = []
        self.leased: dict[str, str] = {}
        #: Of shared actors: (actor, holder) for each lease.
        self.shared: list[tuple[str, str]] = []
        self.waiting: dict[int, tuple[str, QueueKey, int]] = {}
        self.recalls: Counter[tuple[str, QueueKey]] = Counter()
        self.perform(self.pool.tick(0))

    # What happens ------------------------------------------------------------------------------

    @rule(holder=some.sampled_from(HOLDERS), key=some.sampled_from(KEYS), want=some.integers(1, 4))
    def ask(self, holder: str, key: QueueKey, want: int) -> None:
        ticket, effects = self.pool.ask(holder, key, want, self.now_ms)
        self.waiting[ticket] = (holder, key, want)
        self.perform(effects)

    @precondition(lambda self: self.leased)
    @rule(data=some.data())
    def give_back(self, data: some.DataObject) -> None:
        name = data.draw(some.sampled_from(sorted(self.leased)))
        self.give(self.leased[name], [name])

    @precondition(lambda self: self.shared)
    @rule(data=some.data())
    def give_back_shared(self, data: some.DataObject) -> None:
        name, holder = data.draw(some.sampled_from(sorted(set(self.shared))))
        self.give(holder, [name])

    @precondition(lambda self: self.starting)
    @rule(data=some.data())
    def place(self, data: some.DataObject) -> None:
        name = data.draw(some.sampled_from(sorted(self.starting)))
        self.try_to_place(name)

    @precondition(lambda self: self.placed or self.starting)
    @rule(data=some.data())
    def death(self, data: some.DataObject) -> None:
        name = data.draw(some.sampled_from(sorted([*self.placed, *self.starting])))
        self.forget(name)
        self.perform(self.pool.actor_died(name, self.now_ms))

    @precondition(lambda self: self.leased or self.shared or self.waiting)
    @rule(holder=some.sampled_from(HOLDERS))
    def holder_dies(self, holder: str) -> None:
        gone = [ticket for ticket, (who, _, _) in self.waiting.items() if who == holder]
        for ticket in gone:
            del self.waiting[ticket]
        self.perform(self.pool.forget_requests(holder, self.now_ms))
        names = self.pool.held_by(holder)
        leases = [*self.leased.items(), *self.shared]
        assert sorted(names) == sorted(name for name, who in leases if who == holder)
        self.give(holder, names)

    @rule(ms=some.sampled_from([10, 1_000, 6_000]))
    def tick(self, ms: int) -> None:
        self.now_ms += ms
        self.perform(self.pool.tick(self.now_ms))

    # The cluster and the holders ---------------------------------------------------------------

    def perform(self, effects: list[Effect]) -> None:
        note(str(effects))
        makes_place = len(self.placed) + len(self.starting) >= self.actors_max and any(
            map(self.has_none, (key for _, key, _ in self.waiting.values()))
        )
        for effect in effects:
            match effect:
                case CreateActor(name, key):
                    assert name not in self.starting
                    assert name not in self.placed
                    self.starting[name] = key
                case KillActor(name):
                    used_by = {*self.leased, *(shared for shared, _ in self.shared)}
                    assert name not in used_by, "ends what somebody uses"
                    if name in self.placed and self.now_ms - self.idle_since[name] < _IDLE_MS:
                        is_of_use = makes_place or self.makes_room(name)
                        assert is_of_use, "ends what is of no use to anybody"
                    self.forget(name)
                case Grant(ticket, names):
                    self.granted(ticket, names)
                case Refuse(ticket, reason):
                    raise AssertionError(f"refuses what could be met: {reason}")
                case Recall(holder, key, count):
                    self.recalls[(holder, key)] += count
        self.check()

    def granted(self, ticket: int, names: tuple[str, ...]) -> None:
        holder, key, want = self.waiting.pop(ticket)
        assert 1 <= len(names) <= want
        for name in names:
            made_for, node = self.placed[name]
            assert made_for.resources == key.resources.quantised()
            assert made_for.shared == key.shared
            assert key.node_id in ("", node)
            if key.shared:
                self.shared.append((name, holder))
            else:
                assert name not in self.leased, "has two holders"
                self.leased[name] = holder

    def give(self, holder: str, names: list[str]) -> None:
        self.given = names
        for name in names:
            if (name, holder) in self.shared:
                self.shared.remove((name, holder))
            self.leased.pop(name, None)
            self.idle_since[name] = self.now_ms
        self.perform(self.pool.give_back(holder, names, self.now_ms))
        self.given = []

    def makes_room(self, name: str) -> bool:
        """Whether something starts that needs what an actor holds, where it holds it."""
        key, node = self.placed[name]
        held = set(key.resources.demand())
        return name in self.given or any(
            held & set(other.resources.demand())
            and other.node_id in ("", node)
            and CAPACITY.can_hold(other.resources, node)
            for other in self.starting.values()
        )

    def has_none(self, key: QueueKey) -> bool:
        """Whether no actor serves this, or will."""
        there = [*self.starting.values(), *(made_for for made_for, _ in self.placed.values())]
        return not any(key.same_class(other) for other in there)

    def forget(self, name: str) -> None:
        self.starting.pop(name, None)
        self.placed.pop(name, None)
        self.leased.pop(name, None)
        self.shared = [lease for lease in self.shared if lease[0] != name]

    def try_to_place(self, name: str) -> bool:
        """Start the actor on a node that has what it needs, if there is one."""
        key = self.starting[name]
        for node, cpus in CPUS.items():
            there = [k for k, where in self.placed.values() if where == node]
            has_cpus = cpus - sum(used(k) for k in there) >= used(key)
            has_fpga = not key.resources.custom or not any(k.resources.custom for k in there)
            has_gpus = GPUS[node] - sum(k.resources.num_gpus for k in there) >= (
                key.resources.num_gpus
            )
            if key.node_id in ("", node) and has_cpus and has_fpga and has_gpus:
                del self.starting[name]
                self.placed[name] = (key, node)
                self.idle_since[name] = self.now_ms
                self.perform(self.pool.actor_ready(name, node, self.now_ms))
                return True
        return False

    def check(self) -> None:
        counts = self.pool.counts()
        assert counts["requests"] == len(self.waiting)
        assert counts["leased"] == len(self.leased)
        assert set(self.pool.names()) == set(self.starting) | set(self.placed)
        for key, count in Counter(self.starting.values()).items():
            could_start = CAPACITY.can_hold(key.resources, key.node_id)
            if key.resources != DEFAULT.resources and could_start is not None:
                assert count <= could_start, "more are to start than could ever"
        keys = [*self.starting.values(), *(key for key, _ in self.placed.values())]
        # Those for one node come beyond the ceiling if no other can serve, one of each class.
        assert sum(not key.shared and not key.node_id for key in keys) <= self.actors_max

    # The end -----------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Holders give back what they are asked for or are done with: all get their turn."""
        if not hasattr(self, "pool"):
            return
        for _ in range(_ROUNDS_MAX):
            if not self.waiting:
                return
            self.now_ms += 500
            self.perform(self.pool.tick(self.now_ms))
            for name in sorted(self.starting):
                if name in self.starting:
                    self.try_to_place(name)
            for name in sorted(self.leased):
                if name in self.leased:
                    self.give(self.leased[name], [name])
            for name, holder in sorted(self.shared):
                if (name, holder) in self.shared:
                    self.give(holder, [name])
        raise AssertionError(f"nobody answers {self.waiting}")


def used(key: QueueKey) -> float:
    """CPUs that an actor takes on a node; the shared one of the default class takes none."""
    is_light = key.shared and key.resources == DEFAULT.resources
    return 0.0 if is_light else key.resources.num_cpus


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
