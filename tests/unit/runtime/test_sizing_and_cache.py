"""How many execution actors there are, which outputs are kept, how long actions last."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from harmonia_actors.runtime.durations import Durations
from harmonia_actors.runtime.output_cache import OutputCache
from harmonia_actors.runtime.sizing import (
    LeaseWatch,
    OwnerView,
    SizingLimits,
    SizingPlan,
    owners_max,
    plan_owners,
)
from tests.support.scripted_actors import order

LIMITS = SizingLimits(least=2, most=5, spare=1, idle_s=60)


@pytest.mark.parametrize(
    ("ceiling", "least", "cpus", "most"),
    [
        (0, 2, 0.0, 4),
        (0, 2, 2.0, 4),
        (0, 2, 8.0, 16),
        (0, 2, 1_000.0, 100),
        (0, 6, 2.0, 6),
        (3, 2, 64.0, 3),
    ],
)
def test_the_ceiling_follows_the_cpus_unless_it_is_set(
    ceiling: int, least: int, cpus: float, most: int
) -> None:
    assert owners_max(ceiling, least, cpus) == most


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
        ([busy("a"), busy("b")], 50, 0, SizingPlan(4, (), (), pick_up=True)),
        ([busy("a"), busy("b")], 2, 3, SizingPlan(0, (), (), pick_up=True)),
        ([busy("a"), busy("b")], 2, 4, SizingPlan(0, (), (), pick_up=True)),
        ([busy(str(i)) for i in range(5)], 0, 0, SizingPlan(1, (), (), pick_up=False)),
        ([busy(str(i)) for i in range(5)], 0, 1, SizingPlan(0, (), (), pick_up=False)),
        ([busy(str(i)) for i in range(6)], 9, 0, SizingPlan(1, (), (), pick_up=True)),
        ([busy(str(i)) for i in range(6)], 9, 1, SizingPlan(0, (), (), pick_up=True)),
        ([busy(str(i)) for i in range(7)], 9, 0, SizingPlan(0, (), (), pick_up=True)),
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
    ("alive", "expired", "hung", "is_orphaned"),
    [
        (True, True, False, False),
        (False, False, False, False),
        (False, True, False, True),
        (True, False, False, False),
        (True, True, True, True),
        (True, False, True, False),
    ],
)
def test_only_those_without_a_lease_are_succeeded_and_only_if_they_are_dead_or_hung(
    alive: bool, expired: bool, hung: bool, is_orphaned: bool
) -> None:
    owner = OwnerView("o", 3, alive=alive, expired=expired, idle_s=0, hung=hung)
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
    idle_names = {o.name for o in owners if o.alive and o.load == 0 and not o.expired}
    for_suspects = 1 if waiting and not idle_names and not starting else 0
    most = LIMITS.most + LIMITS.spare + for_suspects
    assert plan.create == 0 or starting + serving + plan.create <= most
    assert serving - len(plan.retire) >= LIMITS.least or not plan.retire
    assert set(plan.retire) <= idle_names
    assert not (plan.retire and plan.create)


# Hung owners -------------------------------------------------------------------------------------


def looks(*seen: dict[str, bool] | None, after_s: float = 5, step_s: float = 1) -> list[set[str]]:
    """Who is hung after each look; None is one that fails."""
    watch = LeaseWatch(after_s, gap_s_max=5)
    found = []
    for number, expired in enumerate(seen):
        if expired is None:
            watch.failed()
        else:
            watch.looked(expired, 1_000 + number * step_s)
        found.append(set(watch.hung))
    return found


OUT, HAS = {"o": True}, {"o": False}


def test_an_owner_without_a_lease_in_every_look_is_hung() -> None:
    assert looks(*[OUT] * 7) == [set()] * 5 + [{"o"}] * 2


def test_an_owner_that_renews_in_between_is_not() -> None:
    assert looks(*[OUT] * 5, HAS, *[OUT] * 5)[-1] == set()


def test_after_a_look_that_failed_all_begins_anew() -> None:
    """The store was away: all leases have run out, and all owners are about to renew them."""
    everybody = {"a": True, "b": True}
    assert looks(*[everybody] * 4, None, *[everybody] * 5)[-1] == set()
    assert looks(*[everybody] * 4, None, *[everybody] * 6)[-1] == {"a", "b"}


def test_looks_too_far_apart_say_nothing_of_the_time_between() -> None:
    assert looks(*[OUT] * 20, step_s=6)[-1] == set()


def test_one_that_is_hung_stays_so_until_it_renews_or_dies() -> None:
    """Once its executions are another's, the store does not know it any more."""
    assert looks(*[OUT] * 6, {}, None, {})[-1] == {"o"}
    assert looks(*[OUT] * 6, {}, HAS)[-1] == set()
    watch = LeaseWatch(0, gap_s_max=5)
    assert watch.looked(OUT, 1) == {"o"}
    watch.forget("o")
    assert watch.hung == frozenset()


@given(some.lists(some.sampled_from(["out", "has", "gone", "failed"]), max_size=40))
def test_nobody_is_hung_whose_last_looks_do_not_say_so(kinds: list[str]) -> None:
    seen = {"out": OUT, "has": HAS, "gone": {}, "failed": None}
    hung = looks(*(seen[kind] for kind in kinds))
    for number, found in enumerate(hung):
        if found and not (number and hung[number - 1]):
            assert kinds[number - 5 : number + 1] == ["out"] * 6


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
