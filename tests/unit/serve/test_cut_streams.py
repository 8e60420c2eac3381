"""However a stream is cut, whoever resumes after what it was told has all that it wants, once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from harmonia_actors.core.cursors import parse_place
from harmonia_actors.runtime.event_hub import parse_event
from harmonia_actors.settings import Settings
from harmonia_serve.auth import Caller
from harmonia_serve.gateway import AnyEvent, Gateway, StreamEvent
from harmonia_serve.observation import Observation
from harmonia_serve.queries import EventStreamQuery
from harmonia_serve.streams import Ending, SlowReader, execution_stream
from tests.support.scripted_actors import settle
from tests.unit.runtime.event_hub_rig import World, heal_soon
from tests.unit.serve.gateway import MemoryGateway

PROGRESS, LOG, END = "task_progress", "task_log", "execution_cancelled"
#: What is asked for, and which types of event that is.
QUERIES: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {PROGRESS, END}),
    ({"logs": True}, {PROGRESS, LOG, END}),
    ({"type": LOG}, {LOG}),
    ({"type": PROGRESS}, {PROGRESS}),
    ({"type": END, "logs": True}, {LOG, END}),
    ({"task": "t"}, {PROGRESS}),
    ({"task": "t", "logs": True}, {PROGRESS, LOG}),
    ({"task": "nobody"}, set()),
    ({"status": "cancelled"}, {END}),
    ({"status": "cancelled", "logs": True}, {LOG, END}),
    ({"status": "failed"}, set()),
]
SETTINGS = Settings(
    stream_buffer_events_max=3,
    stream_buffer_bytes_max=600,
    stream_send_timeout_s=0.03,
    stream_heartbeat_s=0.002,
)


@dataclass
class Client:
    """A sink that takes its time, and now and then none at all; and what it goes on after."""

    luck: random.Random
    after: str
    bodies: list[bytes] = field(default_factory=list)
    #: Cuts the present stream.
    cut: Callable[[], object] = field(default=lambda: None)

    async def send_events(self, events: Sequence[AnyEvent]) -> None:
        await self._take_time()
        self.bodies += [event.body for event in events]
        self.after = events[-1].cursor
        await settle(self.luck.randrange(3))

    async def send_position(self, cursor: str) -> None:
        await settle(self.luck.randrange(3))
        self.after = cursor

    async def send_sign_of_life(self) -> None:
        await settle(1)

    async def _take_time(self) -> None:
        match self.luck.randrange(24):
            case 0:
                self.cut()
            case 1:
                await asyncio.Event().wait()
            case _:
                await settle(self.luck.randrange(4))


@dataclass
class Hubbed:
    """As much of the gateway as a stream of one execution needs."""

    world: World

    def events(
        self, execution_id: str, *, after: int, part: int
    ) -> AsyncIterator[Sequence[StreamEvent]]:
        return self.world.hub.events(execution_id, after=after, part=part)


async def follow(world: World, client: Client, query: dict[str, Any], caller: Caller) -> None:
    """Ask again after what was told last, until the service says that this was all."""
    asked = EventStreamQuery.model_validate(query)
    gateway = cast(Gateway, Hubbed(world))
    while True:
        place = parse_place(client.after)
        assert place is not None
        stream = execution_stream("sse", "exec-1", asked, place, gateway, SETTINGS)
        with Observation().open_stream("sse") as notes:
            subscription = stream.subscribe(SETTINGS, notes)
            gone = asyncio.get_running_loop().create_future()
            leave = [subscription.give_up, lambda gone=gone: gone.done() or gone.set_result(None)]
            client.cut = client.luck.choice(leave)
            try:
                if not await subscription.open(5):
                    return
                ending = await subscription.run(client, gone, caller)
            except SlowReader:
                continue
            finally:
                await subscription.aclose()
        if ending in (Ending.LAST_EVENT, Ending.NO_MORE):
            return


@pytest.mark.parametrize("seed", range(20))
async def test_each_client_gets_what_it_wants_once_and_in_order(
    monkeypatch: pytest.MonkeyPatch, gateway: MemoryGateway, seed: int
) -> None:
    heal_soon(monkeypatch)
    luck = random.Random(seed)
    world = World()
    await world.log.create()
    secret = gateway.add_key("read")
    caller = Caller(gateway, await gateway.authenticate(secret), secret)
    following: list[tuple[Client, int, set[str], asyncio.Task[None]]] = []
    for _ in range(30):
        match luck.randrange(6):
            case 0 | 1 | 2:
                lines = luck.choice([0, 0, 1, 4])
                await world.log.commit(luck.randrange(9), lines=lines, tell=luck.random() < 0.8)
            case 3 | 4:
                query, kinds = luck.choice(QUERIES)
                seen = luck.randrange(len(world.log.places))
                client = Client(luck, world.log.places[seen].text)
                task = asyncio.ensure_future(follow(world, client, query, caller))
                following.append((client, seen, kinds, task))
            case _:
                await settle(luck.randrange(1, 9))
    await world.log.commit(2, lines=2, last=True, tell=luck.random() < 0.5)
    for client, seen, kinds, task in following:
        async with asyncio.timeout(30):
            await task
        rest = world.log.bodies[seen:]
        assert client.bodies == [body for body in rest if parse_event(1, body).type in kinds]
    await world.hub.close()
