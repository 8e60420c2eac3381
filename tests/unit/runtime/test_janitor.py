"""The janitor removes what nobody needs, finds it again after a crash, and touches nothing else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harmonia_actors.runtime.files import WorkspaceFiles
from harmonia_actors.runtime.janitor import Janitor, JanitorLimits, Place, PlaceAway
from harmonia_actors.runtime.places import BlobPlace, DirectoryPlace
from persistence.blobs import FileBlobs
from persistence.errors import StoreUnavailable
from persistence.memory_store import MemoryStore
from persistence.retention import Tally
from persistence.store import Commit, NewExecution
from tests.support.owning import claim
from tests.support.scripted_actors import until

HOUR_MS = 3_600_000
DAY_S = 86_400.0


class AwayStore(MemoryStore):
    """A store that may be away."""

    away = False

    async def expire(self, *, age_ms: int, limit: int) -> int:
        if self.away:
            raise StoreUnavailable("away")
        return await super().expire(age_ms=age_ms, limit=limit)


class World:
    """A store with a clock, and what lies outside of it, in a directory."""

    def __init__(self, directory: Path) -> None:
        self.now_ms = 1_795_000_000_000
        self.store = AwayStore(lambda: self.now_ms)
        self.blobs = FileBlobs(directory / "blobs")
        self.files = WorkspaceFiles(directory / "workspaces")
        self.directory = directory
        self.places: list[Place] = [BlobPlace(self.blobs), DirectoryPlace(self.files)]

    async def janitor(self, **changed: object) -> Janitor:
        limits: dict[str, object] = {"retention_ms": HOUR_MS, "orphan_age_s": DAY_S, **changed}
        return Janitor(self.store, self.find_places, JanitorLimits(**limits))  # type: ignore[arg-type]

    async def find_places(self) -> Sequence[Place]:
        return self.places

    async def name(self, number: int) -> str:
        return f"exec-{number:04}-{await self.store.installation()}"

    async def live(self, number: int) -> str:
        """An execution that runs, with a blob and a file."""
        execution_id = await self.name(number)
        await self.store.put_definition("d", b"")
        await self.store.create_execution(NewExecution(execution_id, "d", {}), owners_max=1)
        self.leave(execution_id)
        return execution_id

    async def ended(self, number: int) -> str:
        execution_id = await self.live(number)
        loaded = await claim(self.store, execution_id, "o")
        assert loaded is not None
        await self.store.commit(Commit(execution_id, "o", loaded.epoch, 2, 1, release=True))
        return execution_id

    def leave(self, execution_id: str) -> None:
        """Something outside the store."""
        self.blobs.put(f"{execution_id}/0-1.json", b"x")
        self.files.workspace(execution_id).write_file("report.txt", b"x")

    def lies(self) -> tuple[list[str], list[str]]:
        """What is there: ids of blobs, ids of workspaces."""
        return self.blobs.first_parts("", 100), self.files.ids("", 100)

    def age(self, execution_id: str) -> None:
        """Let blobs look old. (A workspace's own time cannot be set: tests ask for a small age.)"""
        for path in (self.directory / "blobs" / execution_id).rglob("*"):
            os.utime(path, (0, 0))
        os.utime(self.directory / "blobs" / execution_id, (0, 0))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_what_has_ended_goes_after_its_time_and_all_of_it(world: World) -> None:
    janitor = await world.janitor()
    gone = await world.ended(1)
    live = await world.live(2)
    world.now_ms += HOUR_MS - 1
    assert await janitor.round() is False
    assert world.lies() == ([gone, live], [gone, live])
    world.now_ms += 1
    await janitor.round()
    assert world.lies() == ([live], [live])
    assert await world.store.tally() == Tally(live=1, ended=0, expired=1, garbage=0)


class RoomyStore(AwayStore):
    """Notes when it is asked to write anew what it keeps."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        super().__init__(now_ms)
        self.asked: list[tuple[int, Tally]] = []

    async def compact(self, *, bytes_min: int) -> bool:
        self.asked.append((bytes_min, await self.tally()))
        return True


async def test_room_is_made_on_the_stores_disk_once_nothing_more_is_due(world: World) -> None:
    store = world.store = RoomyStore(lambda: world.now_ms)
    for number in range(3):
        await world.ended(number)
    world.now_ms += HOUR_MS
    janitor = await world.janitor(round_max=2, compact_bytes_min=7)
    assert await janitor.round() is True
    assert store.asked == []
    assert await janitor.round() is False
    assert store.asked == [(7, Tally(live=0, ended=0, expired=3, garbage=0))]
    await (await world.janitor()).round()
    assert len(store.asked) == 1, "unless it may, it does not ask"


async def test_without_a_retention_nothing_expires(world: World) -> None:
    execution_id = await world.ended(1)
    world.now_ms += 10_000 * HOUR_MS
    await (await world.janitor(retention_ms=None)).round()
    assert world.lies() == ([execution_id], [execution_id])


async def test_what_a_checkpoint_holds_stays_and_goes_with_it(world: World) -> None:
    janitor = await world.janitor()
    execution_id = await world.ended(1)
    await world.store.create_checkpoint("c", execution_id, b"", [], None)
    world.now_ms += HOUR_MS
    await janitor.round()
    assert await world.store.read_execution(execution_id) is None
    assert world.lies() == ([execution_id], [execution_id])
    await (await world.janitor(orphan_age_s=0.001)).round()
    assert world.lies() == ([execution_id], [execution_id]), "nor is it an orphan"
    await world.store.delete_document("checkpoint", "c")
    await janitor.round()
    assert world.lies() == ([], [])


async def test_a_round_does_a_bounded_amount_and_says_that_there_is_more(world: World) -> None:
    janitor = await world.janitor(round_max=3)
    for number in range(7):
        await world.ended(number)
    world.now_ms += HOUR_MS
    expired = []
    more = True
    while more:
        more = await janitor.round()
        expired.append((await world.store.tally()).expired)
    assert expired[:3] == [3, 6, 7]
    assert world.lies() == ([], [])
    assert await janitor.round() is False


async def test_a_crash_before_the_removal_loses_nothing(world: World) -> None:
    execution_id = await world.ended(1)
    world.now_ms += HOUR_MS
    await world.store.expire(age_ms=HOUR_MS, limit=10)
    assert world.lies() == ([execution_id], [execution_id])
    await (await world.janitor()).round()
    assert world.lies() == ([], [])
    assert (await world.store.tally()).garbage == 0


async def test_a_crash_before_the_acknowledgement_loses_nothing(world: World) -> None:
    execution_id = await world.ended(1)
    world.now_ms += HOUR_MS
    await world.store.expire(age_ms=HOUR_MS, limit=10)
    await world.places[0].remove([execution_id], 0.0)
    await (await world.janitor()).round()
    assert world.lies() == ([], [])
    assert (await world.store.tally()).garbage == 0


@dataclass
class StubbornPlace:
    """A place that cannot be reached, or cannot remove some things."""

    name: str = "stubborn"
    away: bool = False
    keeps: set[str] = field(default_factory=set)
    asked: list[list[str]] = field(default_factory=list)

    async def ids(self, after: str, limit: int) -> Sequence[str]:
        self._check()
        return ()

    async def remove(self, ids: Sequence[str], older_than_s: float) -> Sequence[str]:
        self.asked.append(list(ids))
        self._check()
        return [one for one in ids if one not in self.keeps]

    async def remove_unfinished(self) -> None:
        self._check()

    def _check(self) -> None:
        if self.away:
            raise PlaceAway("no way there")


async def test_an_id_that_can_name_nothing_does_not_stop_the_others(world: World) -> None:
    execution_id = await world.ended(1)
    for odd in ("../out", ".", "a b"):
        await world.store.create_execution(NewExecution(odd, "d", {}), owners_max=1)
        loaded = await claim(world.store, odd, "o")
        assert loaded is not None
        await world.store.commit(Commit(odd, "o", loaded.epoch, 2, 1, release=True))
    (world.directory / "out").mkdir()
    world.now_ms += HOUR_MS
    await (await world.janitor()).round()
    assert (await world.store.tally()).garbage == 0
    assert execution_id not in world.lies()[0]
    assert (world.directory / "out").is_dir()


async def test_what_one_place_cannot_remove_is_tried_again_behind_all_others(world: World) -> None:
    janitor = await world.janitor()
    first, second = await world.ended(1), await world.ended(2)
    stubborn = StubbornPlace(keeps={first})
    world.places.append(stubborn)
    world.now_ms += HOUR_MS
    await janitor.round()
    assert await world.store.garbage(limit=9) == [first]
    world.now_ms += 1
    third = await world.ended(3)
    world.now_ms += HOUR_MS
    await janitor.round()
    assert await world.store.garbage(limit=9) == [first]
    stubborn.keeps.clear()
    assert await janitor.round() is False
    assert await world.store.garbage(limit=9) == []
    assert stubborn.asked == [[first, second], [first, third], [first]]


async def test_while_a_place_is_away_nothing_is_forgotten(world: World) -> None:
    janitor = await world.janitor()
    away = StubbornPlace(away=True)
    world.places.insert(0, away)
    execution_id = await world.ended(1)
    world.now_ms += HOUR_MS
    assert await janitor.round() is False, "not at once again"
    assert await world.store.garbage(limit=9) == [execution_id]
    assert world.lies() == ([], []), "the others did their part"
    away.away = False
    await janitor.round()
    assert await world.store.garbage(limit=9) == []


async def test_the_sweep_finds_what_the_store_does_not_know(world: World) -> None:
    orphan = await world.name(7)
    world.leave(orphan)
    live, ended = await world.live(1), await world.ended(2)
    for one in (orphan, live, ended):
        world.age(one)
    janitor = await world.janitor(orphan_age_s=0.001)
    await asyncio.to_thread(_let_a_moment_pass, world.directory)
    await janitor.round()
    assert world.lies() == ([live, ended], [live, ended])


async def test_the_sweep_leaves_what_is_young_and_what_is_not_ours(world: World) -> None:
    young = await world.name(7)
    foreign = "exec-0001-000000000000"
    for one in (young, foreign):
        world.leave(one)
    world.age(foreign)
    await (await world.janitor()).round()
    assert world.lies() == ([foreign, young], [foreign, young])
    await asyncio.to_thread(_let_a_moment_pass, world.directory)
    await (await world.janitor(orphan_age_s=0.001)).round()
    assert world.lies() == ([foreign], [foreign])


async def test_the_sweep_goes_on_where_it_was_and_begins_again(world: World) -> None:
    janitor = await world.janitor(orphan_age_s=0.001, round_max=2)
    live = [await world.live(number) for number in range(4)]
    orphans = [await world.name(number) for number in (5, 6, 7)]
    for one in orphans:
        world.leave(one)
    await asyncio.to_thread(_let_a_moment_pass, world.directory)
    left = []
    for _ in range(4):
        await janitor.round()
        left.append(len(world.lies()[0]))
    assert left == [7, 7, 5, 4]
    late = await world.name(0) + await world.store.installation()
    world.leave(late)
    await asyncio.to_thread(_let_a_moment_pass, world.directory)
    for _ in range(3):
        await janitor.round()
    assert world.lies() == (live, live)


async def test_the_janitor_never_dies_of_what_goes_wrong(world: World) -> None:
    janitor = await world.janitor()
    world.store.away = True
    failures = iter([RuntimeError("broken")])

    async def find_places() -> Sequence[Place]:
        for failure in failures:
            raise failure
        return world.places

    janitor.find_places = find_places
    execution_id = await world.ended(1)
    world.now_ms += HOUR_MS
    cleaning = asyncio.ensure_future(janitor.keep_clean(0.001))
    await asyncio.sleep(0)
    assert world.lies() == ([execution_id], [execution_id])
    world.store.away = False
    await until(lambda: world.lies() == ([], []))
    assert not cleaning.done()
    cleaning.cancel()


def _let_a_moment_pass(directory: Path) -> None:
    """Until the file system's clock has moved on from what was written last."""
    probe = directory / "probe"
    probe.touch()
    first = probe.stat().st_ctime
    while probe.stat().st_ctime < first + 0.01:
        probe.touch()
