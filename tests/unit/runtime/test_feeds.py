"""What a replica tells a broadcaster, whatever order that comes in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from harmonia_actors.runtime.broadcast import Broadcast
from harmonia_actors.runtime.feeds import FeedReader
from tests.support.scripted_actors import settle, until
from tests.unit.runtime.event_hub_rig import Feed


class Overtaken(Feed):
    """An actor may do a later call first."""

    def __init__(self) -> None:
        super().__init__(Broadcast())
        self.may_unfollow = asyncio.Event()

    async def unfollow(self, execution_ids: Sequence[str]) -> None:
        await self.may_unfollow.wait()
        await super().unfollow(execution_ids)


async def test_whoever_comes_while_the_last_one_leaves_is_told_of_events() -> None:
    """Else all its events would come as late as the next look into the log."""
    feed = Overtaken()
    heard: list[tuple[str, int, Sequence[bytes]]] = []
    missed: list[str] = []
    reader = FeedReader(feed, lambda *batch: heard.append(batch), missed.append)
    await reader.follow("a")
    reader.unfollow("a")
    await settle()
    await reader.follow("a")
    feed.publish("a", 1, [b"1"])
    await until(lambda: len(heard) == 1)
    feed.may_unfollow.set()
    await until(lambda: missed == ["a"])
    feed.publish("a", 2, [b"2"])
    await until(lambda: len(heard) == 2)
    assert heard == [("a", 1, [b"1"]), ("a", 2, [b"2"])]
    await reader.close()


async def test_what_nobody_follows_is_not_followed_again() -> None:
    feed = Overtaken()
    feed.may_unfollow.set()
    missed: list[str] = []
    reader = FeedReader(feed, lambda *_: None, missed.append)
    await reader.follow("a")
    reader.unfollow("a")
    await until(lambda: feed.broadcast.counts()["followed"] == 0)
    await settle(20)
    assert feed.broadcast.counts()["followed"] == 0
    assert missed == []
    await reader.close()
