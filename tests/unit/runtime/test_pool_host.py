"""The pool of task actors over a cluster whose lines break and whose processes fall silent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harmonia_actors.core.resources import Capacity, ResourceRequest
from harmonia_actors.runtime.orders import QueueKey
from harmonia_actors.runtime.pool_host import HolderLost, PoolHost
from harmonia_actors.runtime.silence import Failed, NotFound, Patience, Silent
from tests.support.scripted_actors import settle, until
from tests.support.scripted_cluster import ScriptedCluster
from tests.unit.runtime.pool_rig import (
    DEFAULT,
    TWO_CPUS,
    World,
    counts,
    given,
    until_answered,
    until_counts,
)

SHARED = QueueKey(shared=True)
BIG = QueueKey(ResourceRequest(num_cpus=2))
GPU = QueueKey(ResourceRequest(num_gpus=1))


async def test_a_question_whose_answer_was_lost_is_answered_with_the_same_actors(
    world: World,
) -> None:
    """Or what was granted first would count as in use for as long as its holder lives."""
    pool = await world.warm_pool()
    first = await pool.acquire("x", DEFAULT, 1, "1")
    assert await pool.acquire("x", DEFAULT, 1, "1") == first
    second = await pool.acquire("x", DEFAULT, 1, "2")
    assert second != first
    waiting = [asyncio.ensure_future(pool.acquire("x", DEFAULT, 1, "3")) for _ in range(2)]
    await settle()
    assert (await counts(pool))["requests"] == 1
    await pool.release("x", given(second, "2"))
    assert [await each for each in waiting] == [second, second]
    assert await counts(pool) == {"leased": 2, "idle": 1}


async def test_what_is_given_back_twice_is_given_back_once(world: World) -> None:
    pool = await world.warm_pool()
    ((name, _, _),), _ = await pool.acquire("x", DEFAULT, 1, "1")
    await pool.release("x", [(name, "1")])
    assert (await pool.acquire("x", DEFAULT, 1, "2"))[0][0][0] == name
    await pool.release("x", [(name, "1")])
    assert (await counts(pool))["leased"] == 1, "it is his again"
    await pool.release("x", [(name, "2")])
    assert "leased" not in await counts(pool)


async def test_what_is_not_wanted_any_more_is_not_granted(world: World) -> None:
    pool = await world.warm_pool()
    held = await pool.acquire("x", DEFAULT, 2, "1")
    later = asyncio.ensure_future(pool.acquire("x", DEFAULT, 1, "2"))
    await until_counts(pool, leased=2, idle=1, requests=1)
    for _ in range(2):
        await pool.withdraw("x", "2")
    assert (await later)[0] == ()
    await pool.release("x", given(held, "1"))
    assert await counts(pool) == {"idle": 3}


async def test_what_was_granted_and_is_not_wanted_is_free_again_but_only_once(
    world: World,
) -> None:
    pool = await world.warm_pool()
    await pool.acquire("x", DEFAULT, 2, "1")
    await pool.withdraw("x", "1")
    assert await counts(pool) == {"idle": 3}
    await pool.acquire("x", DEFAULT, 2, "2")
    await pool.withdraw("x", "1")
    assert await counts(pool) == {"idle": 1, "leased": 2}


async def test_a_question_that_comes_after_its_withdrawal_is_void(world: World) -> None:
    pool = await world.warm_pool()
    await pool.withdraw("x", "1")
    assert (await pool.acquire("x", DEFAULT, 1, "1"))[0] == ()
    assert await counts(pool) == {"idle": 3}


async def test_what_was_answered_long_ago_is_forgotten_while_an_older_question_waits(
    world: World,
) -> None:
    """Or the pool would grow for as long as one waits for a node that is not there yet."""
    world.cluster = ScriptedCluster(
        Capacity({"a": {"CPU": 2.0}}, node_types=({"CPU": 1.0, "GPU": 1.0},))
    )
    world.cluster.add_holder("x")
    pool = await world.warm_pool()
    oldest = asyncio.ensure_future(pool.acquire("x", GPU, 1, "oldest"))
    await until_counts(pool, requests=1, starting=1, idle=3)
    for number in range(150):
        granted, _ = await pool.acquire("x", DEFAULT, 1, f"asked {number}")
        await pool.release("x", [(name, f"asked {number}") for name, _, _ in granted])
    await pool.acquire("x", DEFAULT, 1, "asked 149")
    assert "leased" not in await counts(pool), "its answer is known still"
    await pool.acquire("x", DEFAULT, 1, "asked 0")
    assert (await counts(pool))["leased"] == 1, "it was forgotten, and is a question like any other"
    again = asyncio.ensure_future(pool.acquire("x", GPU, 1, "oldest"))
    await settle()
    assert (await counts(pool))["requests"] == 1, "what waits is not forgotten"
    await pool.withdraw("x", "oldest")
    assert await oldest == await again == await pool.acquire("x", GPU, 1, "oldest")


async def test_what_was_withdrawn_long_ago_is_forgotten(world: World) -> None:
    pool = await world.warm_pool()
    for number in range(150):
        await pool.withdraw("x", f"{number}")
    assert (await pool.acquire("x", DEFAULT, 1, "149"))[0] == ()
    assert (await pool.acquire("x", DEFAULT, 1, "0"))[0] != ()


async def test_what_a_dead_holder_withdraws_is_not_there(world: World) -> None:
    pool = await world.warm_pool()
    await pool.acquire("x", DEFAULT, 2, "1")
    later = asyncio.ensure_future(pool.acquire("x", DEFAULT, 1, "2"))
    await until_counts(pool, leased=2, idle=1, requests=1)
    await world.cluster.holders["x"].die()
    with pytest.raises(HolderLost):
        await later
    await pool.withdraw("x", "2")
    await until_counts(pool, leased=2, idle=1)


def waits(pool: PoolHost, holder: str, key: QueueKey = DEFAULT) -> asyncio.Future[Any]:
    return asyncio.ensure_future(pool.acquire(holder, key, 1))


# Holders -----------------------------------------------------------------------------------------


async def test_actors_are_granted_and_given_back(world: World) -> None:
    pool = await world.warm_pool()
    granted, reason = await pool.acquire("x", DEFAULT, 2)
    assert [(node, handle) for _, node, handle in granted] == [
        ("a", f"handle of {name}") for name, _, _ in granted
    ]
    assert reason == ""
    later = waits(pool, "y")
    await until(lambda: world.cluster.recalls)
    assert world.cluster.recalls == [("x", 1)]
    await pool.release("x", [(granted[0][0], "")])
    assert (await later)[0] == [granted[0]]


async def test_what_can_never_be_is_refused_with_the_reason(world: World) -> None:
    pool = await world.warm_pool()
    granted, reason = await pool.acquire("x", QueueKey(ResourceRequest(num_gpus=1)), 1)
    assert granted == ()
    assert "1 GPU" in reason


async def test_a_holder_that_cannot_be_reached_keeps_its_requests_and_its_actors(
    world: World,
) -> None:
    pool = await world.warm_pool()
    held = await pool.acquire("x", DEFAULT, 2)
    later = waits(pool, "x")
    for error in (Silent("no line"), Failed("broken"), NotFound("the head restarts")):
        await world.cluster.holders["x"].cut(error, error)
        await settle()
    await until_counts(pool, leased=2, idle=1, requests=1)
    assert not later.done()
    await pool.release("x", given(held))
    assert (await later)[1] == ""


@pytest.mark.parametrize("how", ["died", "no such name"])
async def test_a_dead_holder_frees_what_it_had_and_leaves_nobody_waiting(
    world: World, how: str
) -> None:
    pool = await world.warm_pool()
    held = await pool.acquire("x", DEFAULT, 2)
    later = waits(pool, "x")
    await until_counts(pool, leased=2, idle=1, requests=1)
    if how == "died":
        await world.cluster.holders["x"].die()
    else:
        life = world.cluster.holders.pop("x")
        await life.cut(Silent("no line"))
    with pytest.raises(HolderLost):
        await later
    await until_counts(pool, leased=2, idle=1)
    await world.actor(held).settle()
    await until_counts(pool, leased=1, idle=2)


async def test_a_holder_that_was_taken_for_dead_is_served_when_it_asks_again(world: World) -> None:
    pool = await world.warm_pool()
    life = world.cluster.holders.pop("y")
    with pytest.raises(HolderLost):
        await waits(pool, "y", BIG)
    world.cluster.holders["y"] = life
    assert (await pool.acquire("y", DEFAULT, 1))[1] == ""
    await settle()
    await until_counts(pool, leased=1, idle=2, starting=1)


# Task actors -------------------------------------------------------------------------------------


async def test_an_actor_that_cannot_be_reached_is_not_dead(world: World) -> None:
    pool = await world.warm_pool()
    held = await pool.acquire("x", DEFAULT, 1)
    before = dict(world.cluster.created)
    await world.actor(held).cut(*[Silent("no line")] * 20)
    await settle()
    await until_counts(pool, leased=1, idle=2)
    assert world.cluster.created == before
    assert world.actor(held).kills == 0
    await world.actor(held).die()
    await until(lambda: len(world.cluster.created) == len(before) + 1)


async def test_an_actor_that_is_given_up_is_ended_so_that_it_holds_no_cpu(world: World) -> None:
    pool = world.pool(patience=Patience(again_s=0.001, again_s_max=0.001, silent_s_max=0.01))
    await pool.begin()
    first = next(iter(world.cluster.created.values()))
    await first.cut(*[Silent("no line")] * 10_000)
    await until(lambda: first.kills == 1)
    await until_counts(pool, starting=2)
    world.clock.at_ms += 1_000
    await until(lambda: len(world.cluster.created) == 4)


async def test_what_is_lost_is_ended_and_nothing_else_is(world: World) -> None:
    pool = await world.warm_pool()
    held = await pool.acquire("x", DEFAULT, 1)
    await pool.lost(held[0][0][0])
    assert world.actor(held).kills == 1
    names = [name for name, _, _ in await pool.actors()]
    assert held[0][0][0] not in names
    await pool.lost("task-of-an-earlier-pool")
    await pool.lost(held[0][0][0])
    assert [actor.kills for actor in world.cluster.created.values() if actor.kills] == [1]


async def test_whoever_loses_an_actor_hears_if_it_could_not_be_ended(world: World) -> None:
    """He tries again: what may still run in it must not be started a second time."""
    pool = world.pool(patience=Patience(again_s=0.001, again_s_max=0.001, silent_s_max=0.01))
    await pool.begin()
    for actor in list(world.cluster.created.values()):
        await actor.start()
    await pool.ready()
    held = await pool.acquire("x", DEFAULT, 1)
    world.actor(held).kill_errors = [Silent("no head")] * 10_000
    with pytest.raises(Silent):
        await pool.lost(held[0][0][0])
    assert held[0][0] in await pool.actors()
    world.actor(held).kill_errors = []
    await pool.lost(held[0][0][0])
    assert held[0][0] not in await pool.actors()


async def test_an_actor_that_cannot_be_created_is_tried_again_later(world: World) -> None:
    world.cluster.create_errors = [ValueError("the name is taken"), RuntimeError("no thread")]
    pool = world.pool()
    await pool.begin()
    assert len(world.cluster.created) == 1
    await settle()
    world.clock.at_ms += 2_000
    await until(lambda: len(world.cluster.created) == 3)


# A pool after another ----------------------------------------------------------------------------


async def test_what_an_earlier_pool_left_is_adopted_as_it_is(world: World) -> None:
    for name, key in (("old-1", DEFAULT), ("old-2", DEFAULT), ("old-3", SHARED)):
        await world.cluster.add_left(name, key).start()
    pool = world.pool(adopt_s=5)
    await pool.ready()
    assert world.cluster.created == {}
    assert [name for name, _, _ in await pool.actors()] == ["old-1", "old-2", "old-3"]
    await until_counts(pool, leased=2, idle=1)
    await world.cluster.found[0][0].settle()
    assert (await pool.acquire("x", DEFAULT, 1))[0] == [("old-1", "a", "handle of old-1")]
    assert (await pool.acquire("x", SHARED, 1))[0] == [("old-3", "a", "handle of old-3")]


async def test_a_silent_actor_is_neither_ended_nor_forgotten(world: World) -> None:
    """It may run something for hours that holds its process: also that must be asked for."""
    busy = world.cluster.add_left("busy", BIG)
    pool = world.pool()
    await pool.begin()
    assert ("busy", "", "handle of busy") in await pool.actors()
    assert busy.kills == 0

    async def is_known() -> bool:
        return ("busy", "a", "handle of busy") in await pool.actors()

    await busy.start("a")
    await until_answered(is_known)
    await busy.settle()
    assert (await pool.acquire("x", BIG, 1))[0] == [("busy", "a", "handle of busy")]


async def test_an_actor_that_had_not_started_is_ended(world: World) -> None:
    """It ran nothing, and whoever wanted it asks the new pool."""
    waiting = world.cluster.add_left("waiting", BIG, started=False)
    pool = world.pool()
    await pool.begin()
    await until(lambda: waiting.kills == 1)
    assert "waiting" not in [name for name, _, _ in await pool.actors()]


async def test_a_start_that_failed_is_made_again_whole(world: World) -> None:
    await world.cluster.add_left("old").start()
    world.cluster.left_errors = [Silent("the head does not answer")]
    world.cluster.has = Silent("no capacity")
    pool = world.pool(adopt_s=5)
    with pytest.raises(Silent):
        await pool.begin()
    world.cluster.has = TWO_CPUS
    with pytest.raises(Silent):
        await pool.acquire("x", DEFAULT, 1)
    await pool.begin()
    assert [name for name, _, _ in await pool.actors()] == ["old"]
    assert len(world.cluster.created) == 2


async def test_the_pool_goes_on_when_the_cluster_cannot_be_read(world: World) -> None:
    pool = await world.warm_pool()
    world.cluster.has = AttributeError("an empty file")
    ticket = waits(pool, "x", BIG)
    await until(lambda: len(world.cluster.created) == 4)
    world.clock.at_ms += 60_000
    await until(lambda: any(actor.kills for actor in world.cluster.created.values()))
    await list(world.cluster.created.values())[3].start()
    assert (await ticket)[1] == ""


async def test_limits_follow_the_cluster(world: World) -> None:
    pool = await world.warm_pool()
    world.cluster.has = Capacity({"a": {"CPU": 2.0}, "b": {"CPU": 3.0}})
    await until(lambda: len(world.cluster.created) == 6)
    assert (await pool.capacity()).total_cpus() == 5


async def test_a_release_that_is_repeated_late_frees_nothing_that_was_granted_since(
    world: World,
) -> None:
    """However much was given back meanwhile: its holder may repeat it for as long as he likes."""
    pool = await world.warm_pool()
    first, _ = await pool.acquire("x", DEFAULT, 2, "first")
    late = [(name, "first") for name, _, _ in first]
    await pool.release("x", late)
    for number in range(150):
        granted, _ = await pool.acquire("x", DEFAULT, 1, f"asked {number}")
        await pool.release("x", [(name, f"asked {number}") for name, _, _ in granted])
    await pool.acquire("x", DEFAULT, 2, "again")
    await pool.release("x", late)
    assert (await counts(pool))["leased"] == 2, "they are his again"


async def test_a_release_that_an_earlier_pool_has_heard_frees_nothing_in_a_later_one(
    world: World,
) -> None:
    pool = await world.warm_pool()
    ((name, _, _),), _ = await pool.acquire("x", DEFAULT, 1, "1")
    await pool.release("x", [(name, "1")])
    await pool.close()
    for actor in world.cluster.created.values():
        world.cluster.found.append((actor, True))
    heir = world.pool(adopt_s=5)
    await heir.begin()
    for actor in world.cluster.created.values():
        await actor.settle()
    await until_counts(heir, idle=3)
    await heir.acquire("x", DEFAULT, 2, "2")
    await heir.release("x", [(name, "1")])
    assert (await counts(heir))["leased"] == 2


async def test_who_goes_on_with_what_was_anothers_cannot_give_back_what_it_was_not_granted(
    world: World,
) -> None:
    """A successor uses what its dead predecessor had, beside what it has of the same actor."""
    pool = await world.warm_pool()
    assert pool._made is not None
    ((name, _, _),), _ = await pool.acquire("x", SHARED, 1, "1")
    await pool.release("x", [(name, "")])
    assert pool._made.held_by("x") == [name]
    await pool.release("x", [(name, "1")])
    assert pool._made.held_by("x") == []


async def test_a_question_that_was_answered_long_ago_has_the_same_answer_while_it_is_held(
    world: World,
) -> None:
    """Or what it was granted would be held by nobody for as long as its holder lives."""
    pool = await world.warm_pool()
    first = await pool.acquire("x", DEFAULT, 1, "first")
    for number in range(150):
        granted, _ = await pool.acquire("x", DEFAULT, 1, f"asked {number}")
        await pool.release("x", [(name, f"asked {number}") for name, _, _ in granted])
    assert await pool.acquire("x", DEFAULT, 1, "first") == first
    assert (await counts(pool))["leased"] == 1


async def test_what_was_granted_long_ago_and_is_not_wanted_is_given_back(world: World) -> None:
    """Its answer was lost, and its holder has asked for much else before he gave it up."""
    pool = await world.warm_pool()
    await pool.acquire("x", DEFAULT, 1, "first")
    for number in range(150):
        granted, _ = await pool.acquire("x", DEFAULT, 1, f"asked {number}")
        await pool.release("x", [(name, f"asked {number}") for name, _, _ in granted])
    await pool.withdraw("x", "first")
    assert "leased" not in await counts(pool)


async def test_what_a_dead_holder_had_is_asked_after_for_as_long_as_it_lives(world: World) -> None:
    """Nobody else would ever free it."""
    pool = world.pool(patience=Patience(again_s=0, again_s_max=0, silent_s_max=0))
    await pool.begin()
    for actor in list(world.cluster.created.values()):
        await actor.start()
    held = await pool.acquire("x", DEFAULT, 1)
    world.actor(held).settled_errors += [Silent("away")] * 3
    await world.cluster.holders["x"].die()
    await until(lambda: not world.actor(held).settled_errors)
    await world.actor(held).settle()
    await until_counts(pool, idle=3)
    assert world.actor(held).kills == 0
