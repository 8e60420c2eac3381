"""How many execution actors there are, which outputs are kept, how long actions last."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from harmonia_actors.runtime.durations import Durations
from harmonia_actors.runtime.output_cache import OutputCache
from harmonia_actors.runtime.sizing import OwnerView, SizingLimits, SizingPlan, plan_owners
from tests.support.scripted_actors import order

LIMITS = SizingLimits(least=2, most=5, spare=1, idle_s=60)


def busy(name: str = "b") -> OwnerView:
    return OwnerView(name, 1, alive=True, expired=False, idle_s=0)


def idle(name: str = "i", seconds: float = 0) -> OwnerView:
    return OwnerView(name, 0, alive=True, expired=False, idle_s=seconds)


@pytest.mark.parametrize(
    ("owners", "waiting", "starting", "expected"),
    [
        ([], 0, 0, SizingPlan(2, (), (), pick_up=False)),
        ([], 0, 2, SizingPlan(0, (), (), pick_up=False)),
        ([idle("a"), idle("b")], 0, 0, SizingPlan(0, (), (), pick_up=False)),
        ([busy("a"), busy("b")], 0, 0, SizingPlan(1, (), (), pick_up=False)),
        ([busy("a"), idle("b")], 0, 0, SizingPlan(0, (), (), pick_up=False)),
        ([busy("a"), busy("b")], 2, 0, SizingPlan(3, (), (), pick_up=True)),
        ([busy("a"), busy("b")], 50, 0, SizingPlan(3, (), (), pick_up=True)),
        ([busy("a"), busy("b")], 2, 3, SizingPlan(0, (), (), pick_up=True)),
        ([busy(str(i)) for i in range(5)], 9, 0, SizingPlan(0, (), (), pick_up=True)),
        ([idle("a", 99), idle("b", 70), idle("c", 80)], 0, 0, SizingPlan(0, ("a",), (), False)),
        ([busy("x"), idle("a", 5), idle("b", 70)], 0, 0, SizingPlan(0, ("b",), (), False)),
        ([busy("x"), idle("a", 5), idle("b", 59)], 0, 0, SizingPlan(0, (), (), False)),
    ],
)
def test_as_many_owners_as_are_needed(
    owners: list[OwnerView], waiting: int, starting: int, expected: SizingPlan
) -> None:
    found = plan_owners(
        owners, waiting=waiting, starting=starting, serving=len(owners), limits=LIMITS
    )
    assert found == expected


@pytest.mark.parametrize(
    ("alive", "expired", "is_orphaned"),
    [(True, True, False), (False, False, False), (False, True, True), (True, False, False)],
)
def test_only_the_dead_whose_lease_has_run_out_are_succeeded(
    alive: bool, expired: bool, is_orphaned: bool
) -> None:
    owner = OwnerView("o", 3, alive=alive, expired=expired, idle_s=0)
    plan = plan_owners([owner], waiting=0, starting=0, serving=2, limits=LIMITS)
    assert plan.orphan == (("o",) if is_orphaned else ())


@given(
    some.lists(
        some.builds(
            OwnerView,
            name=some.uuids().map(str),
            load=some.integers(0, 3),
            alive=some.booleans(),
            expired=some.booleans(),
            idle_s=some.floats(0, 1_000),
        ),
        max_size=8,
    ),
    some.integers(0, 20),
    some.integers(0, 5),
)
def test_a_plan_stays_within_its_bounds(
    owners: list[OwnerView], waiting: int, starting: int
) -> None:
    serving = sum(owner.alive for owner in owners)
    plan = plan_owners(owners, waiting=waiting, starting=starting, serving=serving, limits=LIMITS)
    assert plan.create == 0 or starting + serving + plan.create <= LIMITS.most
    assert serving - len(plan.retire) >= LIMITS.least or not plan.retire
    idle_names = {o.name for o in owners if o.alive and o.load == 0 and not o.expired}
    assert set(plan.retire) <= idle_names
    assert not (plan.retire and plan.create)


# The cache ---------------------------------------------------------------------------------------


def test_what_was_used_longest_ago_goes_first() -> None:
    cache = OutputCache(3 * (100 * 5 + 300))
    for name in "abc":
        cache.put(("e", name), name.upper(), 100)
    assert cache.get(("e", "a")) == ("A",)
    cache.put(("e", "d"), "D", 100)
    found = {name: cache.get(("e", name)) for name in "abcd"}
    assert found == {"a": ("A",), "b": None, "c": ("C",), "d": ("D",)}


def test_none_is_a_value_like_any_other() -> None:
    cache = OutputCache(10_000)
    cache.put(("e", "a"), None, 4)
    assert cache.get(("e", "a")) == (None,)
    assert cache.get(("e", "b")) is None


def test_what_would_fill_the_cache_alone_is_not_kept() -> None:
    cache = OutputCache(1_000)
    cache.put(("e", "small"), 1, 10)
    cache.put(("e", "huge"), 2, 1_000)
    assert cache.get(("e", "huge")) is None
    assert cache.get(("e", "small")) == (1,)


@given(some.lists(some.tuples(some.integers(0, 9), some.integers(0, 400)), max_size=60))
def test_the_cache_stays_within_its_size(puts: list[tuple[int, int]]) -> None:
    cache = OutputCache(5_000)
    sizes: dict[int, int] = {}
    for name, size in puts:
        sizes.setdefault(name, size)
        cache.put(("e", str(name)), name, size)
        if cache.get(("e", str(name))) is None:
            sizes.pop(name)
        kept = [s for n, s in sizes.items() if cache.get(("e", str(n))) is not None]
        sizes = {n: s for n, s in sizes.items() if cache.get(("e", str(n))) is not None}
        assert sum(s * 5 + 300 for s in kept) <= 5_000


# Durations ---------------------------------------------------------------------------------------


def test_an_action_is_taken_to_last_as_long_as_lately() -> None:
    durations = Durations()
    one = order(1)
    assert durations.expected_s(one, otherwise=7.0) == 7.0
    durations.learn([one, order(2)], 4.0)
    assert durations.expected_s(one, otherwise=7.0) == 2.0
    durations.learn([one], 1.0)
    assert durations.expected_s(one, otherwise=7.0) == 1.5
    durations.learn([], 9.0)
    durations.learn([one], 0.0)
    assert durations.expected_s(one, otherwise=7.0) > 0.7
