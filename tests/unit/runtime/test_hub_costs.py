"""What following costs a replica and the store: nothing is read or held that nobody needs."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from harmonia_actors.core.requests import StreamEvent
from tests.support.scripted_actors import until
from tests.unit.runtime.event_hub_rig import World, heal_soon, seqs


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    heal_soon(monkeypatch)
    found = World()
    await found.log.create()
    yield found
    await found.hub.close()


def events_in_memory() -> int:
    gc.collect()
    return sum(isinstance(each, StreamEvent) for each in gc.get_objects())


async def follow(world: World, seen: list[int]) -> None:
    """A client that holds nothing itself; `seen` gets the number of the last event of a batch."""
    async for batch in world.hub.events(world.log.name, after=0):
        if batch:
            seen.append(batch[-1].index)
        del batch


async def test_clients_that_wait_hold_nothing_that_they_were_sent(world: World) -> None:
    before = events_in_memory()
    seen: list[list[int]] = [[], []]
    clients = [asyncio.ensure_future(follow(world, each)) for each in seen]

    async def commit(count: int, *, last: bool = False) -> None:
        await world.log.commit(count, last=last)
        await until(lambda: [each[-1:] for each in seen] == [[len(world.log.bodies)]] * 2)

    await world.log.commit(1_200, tell=False)
    await commit(1, last=False)
    await commit(3)
    kept = world.hub._topics[world.log.name].recent
    assert events_in_memory() == before + len(kept)
    # What is kept for those who come goes when there is no room, and what was made of it with it.
    world.hub._recent_bytes_max = 0
    await commit(1)
    assert not kept
    assert events_in_memory() == before
    await commit(0, last=True)
    await asyncio.gather(*clients)


async def test_whoever_follows_reads_nothing_of_what_an_execution_was_given(world: World) -> None:
    """Its input may have megabytes, and there may be a thousand of them."""
    read: list[str] = []

    async def whole(execution_id: str, *, rows: bool = True) -> None:
        read.append(execution_id)

    world.store.read_execution = whole  # type: ignore[method-assign,assignment]
    await world.log.commit(3)
    clients = [asyncio.ensure_future(world.receive(after)) for after in (0, 3)]
    await until(lambda: world.hub._topics and world.hub._topics["exec-1"].known == 3)
    await world.log.commit(1, last=True)
    assert [seqs(await client) for client in clients] == [[1, 2, 3, 4, 5], [4, 5]]
    assert read == []
