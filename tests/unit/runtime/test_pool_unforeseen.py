"""Errors that nobody has foreseen: the pool goes on following whoever lives."""

from __future__ import annotations

from tests.support.scripted_actors import settle, until
from tests.unit.runtime.pool_rig import DEFAULT, World, until_counts


async def test_an_unforeseen_error_does_not_end_the_following_of_an_actor(world: World) -> None:
    pool = await world.warm_pool()
    held = await pool.acquire("x", DEFAULT, 1)
    before = len(world.cluster.created)
    await world.actor(held).cut(KeyError("unforeseen"))
    await settle()
    assert world.actor(held).kills == 0, "it lives, and may run something"
    await world.actor(held).die()
    await until(lambda: len(world.cluster.created) == before + 1)
    assert held[0][0][0] not in [name for name, _, _ in await pool.actors()]


async def test_an_actor_whose_start_cannot_be_understood_is_ended_and_replaced(
    world: World,
) -> None:
    pool = world.pool()
    await pool.begin()
    odd = next(iter(world.cluster.created.values()))
    odd.odd_answer = "nothing that is a node and a class"
    await odd.start()
    await until(lambda: odd.kills == 1)
    world.clock.at_ms += 2_000
    await until(lambda: len(world.cluster.created) == 4)


async def test_an_unforeseen_error_does_not_end_the_following_of_a_holder(world: World) -> None:
    pool = await world.warm_pool()
    held = await pool.acquire("x", DEFAULT, 1)
    await world.cluster.holders["x"].cut(KeyError("unforeseen"))
    await settle()
    await world.cluster.holders["x"].die()
    await settle()
    await world.actor(held).cut(KeyError("unforeseen"), KeyError("unforeseen"))
    await world.actor(held).settle()
    await until_counts(pool, idle=3)
