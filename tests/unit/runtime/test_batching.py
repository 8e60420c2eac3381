"""What goes to a task actor by one call: what is not worth two, and what comes together."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from harmonia_actors.runtime.orders import QueueKey
from tests.support.desk import Desk
from tests.support.scripted_actors import order, settle, until

SHARED = QueueKey(shared=True)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with Desk() as found:
        yield found


async def test_what_is_not_worth_a_call_is_not_shared_out(desk: Desk) -> None:
    first, second = desk.leases.add(), desk.leases.add()
    first.seconds = second.seconds = 0.0005
    desk.start(order(900), order(901))
    await until(lambda: first.running() and second.running())
    first.end(first.running()[0])
    second.end(second.running()[0])
    await until(desk.dispatcher.idle)
    await settle()
    desk.start(order(0), order(1), order(2))
    await until(first.running)
    await settle()
    assert (first.batches[-1], second.batches[-1]) == ([0, 1, 2], [901])


async def test_what_executions_start_in_one_moment_goes_by_one_call(desk: Desk) -> None:
    actor = desk.leases.add(shared=True)
    desk.start(order(0, SHARED))
    await until(actor.running)
    for number in (1, 2, 3):
        desk.start(order(number, SHARED, execution=f"exec-{number}"))
    await until(lambda: len(actor.running()) == 4)
    assert actor.batches == [[0], [1, 2, 3]]


async def test_what_is_worth_a_call_is_shared_with_an_actor_that_is_yet_to_be_had(
    desk: Desk,
) -> None:
    first = desk.leases.add()
    await desk.learn(first, 0.005)
    second = desk.leases.add()
    desk.start(order(0), order(1))
    await until(lambda: first.running() and second.running())
    assert (first.batches[-1], second.batches[-1]) == ([0], [1])


async def test_what_nobody_else_comes_for_is_done_by_whoever_is_held(desk: Desk) -> None:
    only = desk.leases.add()
    await desk.learn(only, 0.005)
    desk.start(order(0), order(1))
    for batches in ([[0]], [[0], [1]]):
        await until(lambda batches=batches: only.batches == batches)
        await until(only.running)
        only.end(only.running()[0])
    await until(desk.dispatcher.idle)
