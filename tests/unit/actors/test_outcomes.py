"""How outcomes are left in inboxes: what the waiting thread is spared, and what it survives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from harmonia_actors.actors.outcomes import OutcomeKeeper
from persistence.errors import StaleOwner, StoreError, StoreUnavailable
from persistence.memory_store import MemoryStore
from persistence.store import InboxEntry
from tests.support.scripted_actors import order

ENTRY = InboxEntry("outcome:0:1", b"{}")


class ScriptedStore(MemoryStore):
    """Takes entries in, refuses them, or never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.refusal: StoreError | None = None
        self.refuses_once = False
        self.is_silent = False

    async def append_inbox(
        self, execution_id: str, entry: InboxEntry, *, epoch: int | None = None
    ) -> str:
        self.asked += 1
        if self.is_silent:
            await asyncio.Event().wait()
        if self.refusal is not None:
            refusal = self.refusal
            self.refusal = None if self.refuses_once else refusal
            raise refusal
        return "owner"


class Bench:
    """A keeper with its store and a clock that stands still."""

    def __init__(self) -> None:
        self.store = ScriptedStore()
        self.now_s = 0.0
        self.keeper = OutcomeKeeper(lambda: self.store, wait_ms=20, now_s=lambda: self.now_s)

    def keep(self) -> bool:
        return self.keeper(order(0), ENTRY)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.keeper.close()


def test_what_the_store_has_taken_is_durable(bench: Bench) -> None:
    assert [bench.keep(), bench.keep()] == [True, True]


def test_a_store_that_does_not_answer_is_not_waited_for_again_at_once(bench: Bench) -> None:
    """The outcome that waits here is one that its owner does not know."""
    bench.store.is_silent = True
    assert [bench.keep(), bench.keep()] == [False, False]
    assert bench.store.asked == 1
    bench.store.is_silent = False
    bench.now_s = 60.0
    assert bench.keep()


def test_a_store_that_is_away_is_left_alone_for_a_while(bench: Bench) -> None:
    bench.store.refusal = StoreUnavailable("it restarts")
    assert [bench.keep(), bench.keep()] == [False, False]
    assert bench.store.asked == 2, "once more at once, and not for the next"


def test_a_connection_that_was_closed_meanwhile_is_made_anew(bench: Bench) -> None:
    """No loop runs between two outcomes that could learn of it: the server may have restarted."""
    assert bench.keep()
    bench.store.refusal = StoreUnavailable("connection closed by server")
    bench.store.refuses_once = True
    assert [bench.keep(), bench.keep()] == [True, True]


def test_an_action_with_a_loop_of_its_own_is_no_matter(bench: Bench) -> None:
    async def wait() -> None:
        await asyncio.sleep(0)

    assert bench.keep()
    asyncio.run(wait())
    assert bench.keep()


def test_a_refusal_of_one_says_nothing_of_the_next(bench: Bench) -> None:
    bench.store.refusal = StaleOwner("its epoch is 2 now")
    assert not bench.keep()
    bench.store.refusal = None
    assert bench.keep()


def test_an_action_that_leaves_a_loop_behind_ends_the_stretch_only(bench: Bench) -> None:
    """Some libraries keep a loop running below the thread that has called them."""
    left = asyncio.new_event_loop()
    asyncio._set_running_loop(left)
    try:
        assert not bench.keep()
    finally:
        asyncio._set_running_loop(None)
        left.close()
