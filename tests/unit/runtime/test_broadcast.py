"""The broadcaster: what readers get and what they lose, and which of several has an execution."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from harmonia_actors.runtime import event_hub
from harmonia_actors.runtime.broadcast import LEFT_OUT, Broadcast, BroadcastLimits, UnknownReader
from harmonia_actors.runtime.shards import ShardedSink, shard_of
from tests.support.scripted_actors import settle, until
from tests.unit.runtime.event_hub_rig import World, count_reads, seqs


async def test_a_reader_gets_what_it_follows_once() -> None:
    broadcast = Broadcast()
    broadcast.follow("r", ["a"])
    broadcast.publish([("a", 1, [b"1"]), ("b", 1, [b"x"]), ("a", 2, [b"2"])])
    assert list(await broadcast.pull("r", 0)) == [("a", 1, [b"1"]), ("a", 2, [b"2"])]
    assert list(await broadcast.pull("r", 0)) == []
    broadcast.unfollow("r", ["a"])
    broadcast.publish([("a", 3, [b"3"])])
    assert list(await broadcast.pull("r", 0)) == []


async def test_a_pull_waits_for_what_comes() -> None:
    broadcast = Broadcast()
    broadcast.follow("r", ["a"])
    pull = asyncio.ensure_future(broadcast.pull("r", 60))
    await settle()
    assert not pull.done()
    broadcast.publish([("a", 1, [b"1"])])
    assert list(await pull) == [("a", 1, [b"1"])]


async def test_an_unknown_reader_is_told_so() -> None:
    with pytest.raises(UnknownReader):
        await Broadcast().pull("nobody", 0)


@pytest.mark.parametrize(
    "limits", [BroadcastLimits(buffered_events_max=3), BroadcastLimits(buffered_bytes_max=30)]
)
async def test_a_reader_that_does_not_fetch_loses_and_holds_up_nobody(
    limits: BroadcastLimits,
) -> None:
    broadcast = Broadcast(limits)
    broadcast.follow("slow", ["a"])
    for seq in range(1, 8):
        broadcast.publish([("a", seq, [b"0123456789"])])
    assert [seq for _, seq, _ in await broadcast.pull("slow", 0)] == [1, 2, 3]
    assert broadcast.counts()["dropped"] == 4
    broadcast.publish([("a", 8, [b"8"])])
    assert [seq for _, seq, _ in await broadcast.pull("slow", 0)] == [8]


async def test_a_reader_that_went_away_is_forgotten() -> None:
    broadcast = Broadcast(BroadcastLimits(reader_idle_s=0))
    broadcast.follow("r", ["a"])
    await settle()
    broadcast.forget_idle()
    assert broadcast.counts() == {"readers": 0, "followed": 0, "published": 0, "dropped": 0}


async def test_it_says_whether_anybody_follows_anything() -> None:
    broadcast = Broadcast(BroadcastLimits(reader_idle_s=0))
    assert not broadcast.is_wanted
    await broadcast.wanted(0)
    waiting = asyncio.ensure_future(broadcast.wanted(60))
    broadcast.follow("r", [])
    await settle()
    assert not waiting.done()
    broadcast.follow("r", ["a", "b"])
    await waiting
    broadcast.unfollow("r", ["a"])
    assert broadcast.is_wanted
    broadcast.unfollow("r", ["b"])
    assert not broadcast.is_wanted
    broadcast.follow("r", ["a"])
    await settle()
    broadcast.forget_idle()
    assert not broadcast.is_wanted


async def test_whoever_follows_hears_that_events_may_have_been_left_out() -> None:
    broadcast = Broadcast()
    broadcast.follow("r", ["a"])
    broadcast.publish([("b", 1, [b"x"])], 3)
    assert list(await broadcast.pull("r", 0)) == [("a", LEFT_OUT, ())]


async def test_an_event_that_was_not_kept_back_is_read_from_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was forgotten before whoever told the broadcaster knew that somebody follows it."""
    monkeypatch.setattr(event_hub, "_LOOK_S", 3_600.0)
    monkeypatch.setattr(event_hub, "_SOON_S", 0.01)
    world = World()
    await world.log.create()
    reads = count_reads(world)
    client = asyncio.ensure_future(world.receive())
    # Two of the client's own, and the one look after it has been followed.
    await until(lambda: len(reads) == 3)
    await settle(20)
    await world.log.commit(1, last=True, tell=False)
    world.feed.broadcast.publish([], 1)
    try:
        async with asyncio.timeout(20):
            assert seqs(await client) == [1, 2]
    finally:
        await world.hub.close()


async def test_a_new_replica_frees_what_was_kept_for_one_that_is_gone() -> None:
    broadcast = Broadcast(BroadcastLimits(reader_idle_s=0))
    broadcast.follow("gone", ["a", "b"])
    broadcast.publish([("a", 1, [b"1"])])
    await settle()
    broadcast.follow("new", ["a"])
    assert broadcast.counts() == {"readers": 1, "followed": 1, "published": 1, "dropped": 0}
    broadcast.publish([("a", 2, [b"2"])])
    assert list(await broadcast.pull("new", 0)) == [("a", 2, [b"2"])]


def test_shards_share_all_executions_and_stay_the_same() -> None:
    names = [f"exec-{number}" for number in range(1_000)]
    counts = [sum(shard_of(name, 4) == shard for name in names) for shard in range(4)]
    assert min(counts) > 150
    assert {shard_of(name, 1) for name in names} == {0}
    assert [shard_of(f"exec-{number}", 5) for number in range(6)] == [0, 4, 3, 2, 0, 2]


class Told:
    """A sink that notes whom it was told of."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def publish(self, execution_id: str, first_seq: int, bodies: Sequence[bytes]) -> None:
        assert (first_seq, bodies) == (1, [b"1"])
        self.names.add(execution_id)


@pytest.mark.parametrize("count", [1, 3])
def test_each_execution_is_told_to_the_broadcaster_that_has_it(count: int) -> None:
    sinks = [Told() for _ in range(count)]
    names = {f"exec-{number}" for number in range(50)}
    for name in names:
        ShardedSink(sinks).publish(name, 1, [b"1"])
    for shard, sink in enumerate(sinks):
        assert sink.names == {name for name in names if shard_of(name, count) == shard}
