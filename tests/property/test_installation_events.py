"""Random commits of several executions, clients that come, go and resume: each gets its suffix.

Whatever a client asked for and did not get, a gap stands where it is missing; and there is no gap
where nothing is missing.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as some

from harmonia_actors.core import jsontext
from harmonia_actors.core.cursors import Cursor, parse_cursor
from harmonia_actors.core.events import event_status
from harmonia_actors.runtime.installation_events import InstallationEvents
from harmonia_serve.event_filters import Filter, installation_filter
from harmonia_serve.queries import InstallationStreamQuery
from persistence.memory_store import MemoryStore
from tests.support.many_logs import ManyLogs, Said
from tests.support.scripted_actors import settle

QUERIES = [
    InstallationStreamQuery(),
    InstallationStreamQuery(logs=True),
    InstallationStreamQuery(type="task_log", task="a"),
    InstallationStreamQuery(type="task_failed", logs=True),
    InstallationStreamQuery(type="task_started,execution_cancelled"),
    InstallationStreamQuery(task="a"),
    InstallationStreamQuery(workflow_id="wf-1", status="retrying,running"),
    InstallationStreamQuery(task="b", type="task_failed", workflow_id="wf-2"),
]


def matches(query: InstallationStreamQuery, said: Said) -> bool:
    """The filter in plain words."""
    event = said.event
    return (
        is_of_type(query, event.type)
        and (query.task is None or getattr(event, "task_name", None) == query.task)
        and (query.workflow_id is None or said.workflow_id == query.workflow_id)
        and (
            query.status is None
            or event_status(event.type, event.data("e")) in query.status.split(",")
        )
    )


def is_of_type(query: InstallationStreamQuery, kind: str) -> bool:
    if kind == "task_log" and query.logs:
        return True
    return kind != "task_log" if query.type is None else kind in query.type.split(",")


@dataclass
class Client:
    """Takes batches, cuts them anywhere, and comes again after the last thing that it heard."""

    hub: InstallationEvents
    query: InstallationStreamQuery
    luck: random.Random
    #: None until the service has said where the stream is.
    cursor: str | None
    #: How many events had been said when it began to live on what came.
    begun: int = 0
    #: What it got: ids of events, or None for a gap.
    got: list[tuple[str, int] | None] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            await self.connect(follow=True)

    async def connect(self, *, follow: bool) -> None:
        wanted: Filter = installation_filter(self.query)
        after = None if self.cursor is None else parse_cursor(self.cursor)
        patience = self.luck.choice([1, 4, 20, 400]) if follow else 10**9
        async with aclosing(self.hub.events(after=after, follow=follow)) as batches:
            async for batch in batches:
                for event in batch:
                    if patience == 0:
                        return
                    if event.type == "end":
                        continue
                    if wanted(event):
                        self._take(event.type, event.body)
                        patience -= 1
                    # A position is told now and then; every event tells it.
                    if wanted(event) or self.cursor is None or self.luck.random() < 0.3:
                        self.cursor = event.cursor

    def _take(self, kind: str, body: bytes) -> None:
        envelope = jsontext.decode(body)
        is_gap = kind == "gap"
        self.got.append(None if is_gap else (envelope["execution_id"], envelope["seq"]))


@dataclass
class World:
    luck: random.Random
    #: Whether the log is trimmed and executions expire.
    loses: bool
    clients: list[tuple[Client, asyncio.Task[None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        entries = self.luck.choice([3, 8]) if self.loses else 10_000
        store = MemoryStore(log_entries_max=entries)
        self.logs = ManyLogs(store, with_lines=True)
        recent = self.luck.choice([0, 1_000, 16_000_000])
        self.hub = InstallationEvents(store, recent_bytes_max=recent)

    async def step(self, number: int) -> None:
        luck, logs = self.luck, self.logs
        match luck.randrange(9):
            case 0:
                await logs.create(f"exec-{number}", luck.choice(["wf-1", "wf-2"]))
            case 1 | 2 | 3 | 4 if logs.live:
                last = luck.random() < 0.2
                count = 600 if luck.random() < 0.05 else luck.randrange(1, 8)
                await logs.commit(luck.choice(logs.live), count, last=last)
            case 5 | 6:
                await self.join(is_live=luck.random() < 0.4)
            case 7 if self.loses:
                await logs.expire()
            case _:
                await settle(luck.randrange(1, 8))

    async def join(self, *, is_live: bool) -> None:
        query, begun = self.luck.choice(QUERIES), len(self.logs.said) if is_live else 0
        client = Client(self.hub, query, self.luck, None if is_live else "0", begun)
        self.clients.append((client, asyncio.ensure_future(client.run())))
        # It is there from when the service has answered.
        await settle(3)

    async def end(self) -> None:
        """Whoever still waits is cut, and comes once more to look at what there is."""
        for client, task in self.clients:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.connect(follow=False)
        await self.hub.close()


async def go(seed: int) -> None:
    luck = random.Random(seed)
    world = World(luck, loses=luck.random() < 0.5)
    for number in range(40):
        await world.step(number)
    await world.end()
    for client, _ in world.clients:
        check(client, world.logs.said, loses=world.loses)


def check(client: Client, said: list[Said], *, loses: bool) -> None:
    wanted = [one.id for one in said[client.begun :] if matches(client.query, one)]
    events = [one for one in client.got if one is not None]
    if not loses:
        assert client.got == wanted
        return
    at = {one: place for place, one in enumerate(wanted)}
    places = [at[one] for one in events]
    assert places == sorted(set(places)), "a repeat, or out of order"
    # Between two events that do not follow each other, and before or after all, stands a gap.
    marked: list[int | None] = [-1, *(None if g is None else at[g] for g in client.got)]
    marked.append(len(wanted))
    for one, next_one in pairwise([place for place in marked if place is not None]):
        if next_one > one + 1:
            begin = marked.index(one)
            assert None in marked[begin : marked.index(next_one, begin + 1)], "silence"
    if client.query == InstallationStreamQuery(logs=True):
        check_gaps_are_real(marked)


def check_gaps_are_real(marked: list[int | None]) -> None:
    """Without a filter, something is missing where a gap is."""
    places = [place for place in marked if place is not None]
    for before, after in pairwise(places):
        between = marked[marked.index(before) + 1 : marked.index(after, marked.index(before) + 1)]
        assert not between or after > before + 1, "a gap where nothing is missing"


@settings(max_examples=60, deadline=None)
@given(some.integers(0, 2**32))
def test_each_client_gets_the_filtered_suffix_of_the_log(seed: int) -> None:
    asyncio.run(go(seed))


@given(some.integers(1, 10**15 - 1), some.integers(1, 10**15 - 1), some.integers(1, 10**9 - 1))
def test_a_cursor_comes_back_from_its_text_in_the_same_order(
    at_ms: int, number: int, taken: int
) -> None:
    whole, part = Cursor(at_ms, number), Cursor(at_ms, number, taken)
    assert parse_cursor(whole.text) == whole
    assert parse_cursor(part.text) == part
    assert Cursor() < Cursor(at_ms, number - 1) < part < whole < Cursor(at_ms, number + 1, 1)


@given(some.integers(0, 10**15 - 1), some.integers(1, 10**9 - 1))
def test_the_log_counts_from_one_so_nothing_is_part_of_entry_zero(at_ms: int, taken: int) -> None:
    assert parse_cursor(f"{at_ms}-0") == Cursor(at_ms, 0)
    assert parse_cursor(f"{at_ms}-0.{taken}") is None
    assert parse_cursor(f"{at_ms}-00.{taken}") is None


@given(some.text(max_size=40) | some.from_regex(r"[0-9.\-]{0,12}"))
def test_any_other_text_is_no_cursor(text: str) -> None:
    cursor = parse_cursor(text)
    assert cursor is None or text == "0" or text.isascii()
