"""What a dispatcher does with answers that never come, and with attempts that come back to it."""

from __future__ import annotations

from dataclasses import replace

from tests.support.scripted_actors import ScriptedLease, order, settle, until
from tests.unit.runtime.test_dispatcher import Desk, orders


async def test_an_answer_that_cannot_be_had_is_a_death() -> None:
    async with Desk() as desk:
        actor = desk.leases.add()
        await desk.learn(actor, 0.01)
        desk.start(*orders(1, 2, 3))
        await until(actor.running)
        actor.break_with(RuntimeError("out of memory"))
        await until(lambda: len(desk.told()) == 2)
        assert sorted(desk.told()) == ["AttemptLost 1 1", "AttemptLost 2 1"]
        assert desk.leases.dead == [actor.name]
        other = desk.leases.add()
        await until(other.running)
        assert (actor.batches, other.batches) == ([[1, 2]], [[3]])


async def test_what_waits_is_asked_for_again_whatever_a_request_ends_with() -> None:
    async with Desk() as desk:
        desk.leases.errors += [RuntimeError("no such thing"), OSError("a broken line")]
        desk.start(order(1))
        await until(lambda: not desk.leases.errors)
        actor = desk.leases.add()
        await until(actor.running)
        actor.end(1)
        await until(desk.told)
        assert desk.told() == ["AttemptSucceeded 1 1"]


async def test_a_batch_has_so_many_bytes() -> None:
    async with Desk() as desk:
        actor = desk.leases.add()
        await desk.learn(actor, 0.000_001)
        desk.start(*(replace(order(n), input=b"x" * 3_000_000) for n in range(1, 6)))
        await until(actor.running)
        assert actor.batches == [[1, 2]]


async def test_an_attempt_of_its_own_that_is_adopted_is_told_once_and_its_actor_is_free() -> None:
    async with Desk() as desk:
        actor = desk.leases.add()
        desk.start(order(1))
        await until(actor.running)
        desk.dispatcher.adopt(ScriptedLease(actor), [("exec-1", 1, 1)])
        await settle()
        actor.end(1)
        await until(desk.told)
        await until(lambda: desk.leases.released == [actor.name])
        assert desk.told() == ["AttemptSucceeded 1 1"]
        assert desk.dispatcher.idle()
