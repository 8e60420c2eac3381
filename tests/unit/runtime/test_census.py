"""A census over task actors that are silent, out of reach or dead: nobody is passed over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from harmonia_actors.core import stimuli as st
from harmonia_actors.runtime.census import CensusTaker, CensusTimes
from harmonia_actors.runtime.orders import AttemptId, Found, Report
from harmonia_actors.runtime.silence import Failed, Gone, Patience, Silent
from tests.support.scripted_actors import settle

QUICK = Patience(again_s=0, again_s_max=0, silent_s_max=0.001)
FOR_EVER = 3_600.0


class Actor:
    """Has attempts; answers if it `listens`, after it has failed as often as there are errors."""

    def __init__(self, name: str, *running: AttemptId, ended: Sequence[Report] = ()) -> None:
        self.name = name
        self.running = running
        self.ended = ended
        self.errors: list[Exception] = []
        self.listens = asyncio.Event()
        self.listens.set()
        self.asked: list[list[tuple[str, int]]] = []

    async def census(self, asked: Sequence[tuple[str, int]], owner: str) -> Found:
        assert owner == "heir"
        self.asked.append(list(asked))
        await self.listens.wait()
        if self.errors:
            raise self.errors.pop(0)
        found: Found = {}
        for execution_id, _ in asked:
            running = [each for each in self.running if each[0] == execution_id]
            ended = [each for each in self.ended if each.execution_id == execution_id]
            if running or ended:
                found[execution_id] = (running, ended)
        return found


class Pool:
    def __init__(self, *actors: Actor) -> None:
        self.all = list(actors)
        self.errors: list[Exception] = []
        self.ended: list[str] = []
        self.listed = 0

    async def actors(self) -> Sequence[Actor]:
        self.listed += 1
        if self.errors:
            raise self.errors.pop(0)
        return list(self.all)

    async def lost(self, name: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.ended.append(name)
        for actor in self.all:
            if actor.name == name:
                actor.errors = [Gone("it was ended")]
                actor.listens.set()


def taker(pool: Pool, silence_s: float = FOR_EVER) -> CensusTaker[Actor]:
    return CensusTaker(pool, "heir", CensusTimes(QUICK, silence_s))


async def names(census: CensusTaker[Actor], execution_id: str = "e") -> list[str]:
    return [actor.name for actor, _, _ in await census.take(execution_id, 2)]


async def test_all_tell_what_they_have() -> None:
    ended = Report("e", st.AttemptStopped(3, 1, 1))
    pool = Pool(Actor("a", ("e", 1, 1)), Actor("b", ended=[ended]), Actor("c", ("f", 1, 1)))
    told = [(actor.name, *rest) for actor, *rest in await taker(pool).take("e", 2)]
    assert told == [("a", [("e", 1, 1)], []), ("b", [], [ended])]
    assert [actor.asked for actor in pool.all] == [[[("e", 2)]]] * 3, "all know the epoch"


async def test_an_actor_that_is_silent_is_waited_for() -> None:
    pool = Pool(Actor("a", ("e", 1, 1)), Actor("b", ("e", 2, 1)))
    pool.all[1].listens.clear()
    waiting = asyncio.ensure_future(names(taker(pool)))
    await settle()
    assert not waiting.done()
    pool.all[1].listens.set()
    assert await waiting == ["a", "b"]
    assert pool.ended == []


async def test_an_actor_out_of_reach_is_asked_again_and_one_that_is_dead_is_not() -> None:
    pool = Pool(Actor("a", ("e", 1, 1)), Actor("b", ("e", 2, 1)))
    pool.all[0].errors = [Silent("the line was cut"), Failed("a defect")] * 20
    pool.all[1].errors = [Gone("killed")]
    assert await names(taker(pool)) == ["a"]
    assert len(pool.all[1].asked) == 1


async def test_a_pool_that_is_silent_is_asked_until_it_answers() -> None:
    pool = Pool(Actor("a", ("e", 1, 1)))
    pool.errors = [Silent("it restarts")] * 200
    assert await names(taker(pool)) == ["a"]
    assert pool.listed == 201


async def test_an_actor_that_stays_silent_is_ended_before_it_is_given_up() -> None:
    pool = Pool(Actor("a", ("e", 1, 1)), Actor("b", ("e", 2, 1)))
    pool.all[1].listens.clear()
    assert await names(taker(pool, silence_s=0.01)) == ["a"]
    assert pool.ended == ["b"]
    assert len(pool.all[1].asked) == 2, "its death was heard from itself"


async def test_an_actor_that_answers_although_it_was_to_be_ended_counts() -> None:
    class Spared(Pool):
        async def lost(self, name: str) -> None:
            self.ended.append(name)
            self.all[0].listens.set()

    pool = Spared(Actor("a", ("e", 1, 1)))
    pool.all[0].listens.clear()
    assert await names(taker(pool, silence_s=0.01)) == ["a"]
    assert pool.ended == ["a"]


async def test_its_end_is_asked_for_until_the_pool_has_heard() -> None:
    pool = Pool(Actor("a", ("e", 1, 1)))
    pool.all[0].listens.clear()
    census = asyncio.ensure_future(names(taker(pool, silence_s=0.01)))
    await settle()
    pool.errors = [Silent("it restarts"), Silent("it restarts")]
    assert await census == []
    assert pool.ended == ["a"]


async def test_a_thousand_executions_are_asked_for_in_two_calls() -> None:
    pool = Pool(*(Actor(f"a{n}", (f"e{n}", 1, 1)) for n in range(5)))
    census = taker(pool)
    told = await asyncio.gather(*(names(census, f"e{n}") for n in range(1_000)))
    assert told == [[f"a{n}"] if n < 5 else [] for n in range(1_000)]
    assert {len(actor.asked) for actor in pool.all} <= {1, 2}
    assert pool.listed <= 2


async def test_what_comes_while_actors_are_asked_is_asked_next() -> None:
    """Also its own census may not begin before it has the execution: the epoch is a new one."""
    pool = Pool(Actor("a", ("e", 1, 1), ("f", 1, 1)))
    pool.all[0].listens.clear()
    census = taker(pool)
    first = asyncio.ensure_future(names(census, "e"))
    await settle()
    later = [asyncio.ensure_future(names(census, each)) for each in ("f", "g")]
    await settle()
    pool.all[0].listens.set()
    assert [await first, *[await each for each in later]] == [["a"], ["a"], []]
    assert pool.all[0].asked == [[("e", 2)], [("f", 2), ("g", 2)]]
