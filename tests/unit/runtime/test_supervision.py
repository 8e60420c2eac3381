"""The supervisor over owners that die, fall silent, hang, and over a store that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from harmonia_actors.runtime.silence import Failed, NotFound, Patience, Silent
from harmonia_actors.runtime.sizing import SizingLimits
from harmonia_actors.runtime.supervision import Supervision, SupervisionTimes
from persistence.errors import StoreUnavailable
from persistence.memory_store import MemoryStore
from persistence.store import NewExecution, OwnerLoad
from tests.support.scripted_actors import ManualClock, until
from tests.support.scripted_cluster import ScriptedOwner, ScriptedOwners

LEASE_MS = 1_000
QUICK = Patience(again_s=0.001, again_s_max=0.001)
MOST = 3


class UnsteadyStore(MemoryStore):
    """A store that can be away; counts looks at its owners."""

    away = False
    looks = 0
    #: What was put down to somebody arrives once this is set.
    arrives: asyncio.Event | None = None
    on_its_way = 0

    async def owners(self, *, lease_ms: int | None = None) -> list[OwnerLoad]:
        self.looks += 1
        if self.away:
            raise StoreUnavailable("the store is away")
        return await super().owners(lease_ms=lease_ms)

    async def orphan(self, owner: str, *, limit: int, blame: bool = False) -> int:
        if self.away:
            raise StoreUnavailable("the store is away")
        if blame and self.arrives is not None:
            self.on_its_way += 1
            await self.arrives.wait()
        return await super().orphan(owner, limit=limit, blame=blame)


class World:
    """Supervisors, one after the other, over one cluster and one store."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = UnsteadyStore(self.clock.now_ms)
        self.cluster = ScriptedOwners()
        self.supervisors: list[Supervision] = []
        self.executions = 0

    def supervisor(self, patience: Patience = QUICK) -> Supervision:
        made = Supervision(
            self.cluster,
            self.store,
            SizingLimits(least=2, most=MOST, spare=0, idle_s=0),
            SupervisionTimes(patience, LEASE_MS, look_s=0.001),
        )
        self.supervisors.append(made)
        return made

    async def serve(self, owner: ScriptedOwner) -> None:
        await self.renew(owner)
        await owner.serve()

    async def renew(self, *owners: ScriptedOwner) -> None:
        for owner in owners:
            await self.store.renew_owner(owner.name, lease_ms=LEASE_MS)

    async def warm(self, patience: Patience = QUICK) -> tuple[Supervision, list[ScriptedOwner]]:
        """A supervisor with two owners that serve and have two executions each."""
        made = self.supervisor(patience)
        await made.begin()
        await until(lambda: len(self.cluster.alive) == 2)
        owners = list(self.cluster.alive.values())
        for owner in owners:
            await self.serve(owner)
        await made.ready()
        for owner in owners:
            for _ in range(2):
                await self.give(owner)
        return made, owners

    async def give(self, owner: ScriptedOwner) -> None:
        execution_id = await self.create()
        assert await self.store.claim(execution_id, owner.name) is not None

    async def take_all(self, owner: ScriptedOwner, crashes: dict[str, int] | None = None) -> None:
        """Let an owner take what it may; note the crashes that are put down to each of them."""
        while loaded := await self.store.claim_next(owner.name, owners_max=MOST):
            if crashes is not None:
                crashes.setdefault(loaded.execution_id, loaded.crashes)
            # Suspects are alone with their owner until they have shown that they do no harm.
            if await self.store.calm(loaded.execution_id, epoch=loaded.epoch):
                await self.store.give_on(loaded.execution_id, epoch=loaded.epoch, blame=False)

    async def create(self) -> str:
        await self.store.put_definition("digest", b"definition")
        self.executions += 1
        execution_id = f"e{self.executions}"
        new = NewExecution(execution_id, "digest", {"head": b"{}"}, {}, ())
        await self.store.create_execution(new, owners_max=MOST)
        return execution_id

    async def owner_of(self, execution_id: str) -> str:
        snapshot = await self.store.read_execution(execution_id, rows=False)
        assert snapshot is not None
        return snapshot.owner

    async def loads(self) -> dict[str, int]:
        return {one.owner: one.load for one in await self.store.owners()}

    async def look(self, times: int = 3) -> None:
        """Let the supervisor look some more times."""
        seen = self.store.looks
        await until(lambda: self.store.looks >= seen + times)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    for supervisor in made.supervisors:
        await supervisor.close()


async def until_orphaned(world: World, owner: ScriptedOwner) -> None:
    async with asyncio.timeout(10):
        # The store tells nobody when something changes: it must be asked.
        while owner.name in await world.loads():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def until_waiting(world: World, expected: int) -> None:
    async with asyncio.timeout(10):
        while await world.store.waiting_executions() != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


# Death and silence -------------------------------------------------------------------------------


async def test_what_a_dead_owner_had_waits_for_others_which_are_told(world: World) -> None:
    _, (dead, other) = await world.warm()
    told = other.picks
    await dead.die()
    await until_waiting(world, 2)
    await until(lambda: other.picks > told)
    assert dead.name not in await world.loads()
    assert dead.kills == 0


@pytest.mark.parametrize("node_is_lost", [False, True])
async def test_who_was_aboard_is_suspected_unless_the_whole_node_went(
    world: World, node_is_lost: bool
) -> None:
    _, (dead, _) = await world.warm()
    dead.node_is_lost = node_is_lost
    await dead.die()
    await until_waiting(world, 2)
    await world.store.renew_owner("heir", lease_ms=LEASE_MS)
    taken = await world.store.claim_next("heir", owners_max=MOST)
    assert taken is not None
    assert taken.crashes == (0 if node_is_lost else 1)


@pytest.mark.parametrize("error", [Silent("away"), NotFound("nobody"), KeyError("NodeID")])
async def test_a_dead_owner_is_succeeded_whatever_the_question_of_its_node_ends_with(
    world: World, error: Exception
) -> None:
    _, (dead, other) = await world.warm()
    dead.node_error = error
    told = other.picks
    await dead.die()
    await until_waiting(world, 2)
    await until(lambda: other.picks > told)


async def test_a_look_does_not_overtake_whoever_puts_a_death_down_to_those_aboard(
    world: World,
) -> None:
    """On a line of its own it would be first, and nobody would be suspected."""
    _, (dead, _) = await world.warm()
    world.store.arrives = asyncio.Event()
    del world.cluster.alive[dead.name]
    await dead.die()
    await until(lambda: world.store.on_its_way)
    await world.look()
    assert (await world.loads())[dead.name] == 2
    world.store.arrives.set()
    await until_waiting(world, 2)
    await world.store.renew_owner("heir", lease_ms=LEASE_MS)
    taken = await world.store.claim_next("heir", owners_max=MOST)
    assert taken is not None
    assert taken.crashes == 1


async def test_an_owner_that_cannot_be_reached_is_not_succeeded(world: World) -> None:
    supervisor, (silent, _) = await world.warm()
    await silent.cut(*[Silent("no line")] * 20)
    await until(lambda: not silent.errors)
    await world.look()
    assert (await world.loads())[silent.name] == 2
    assert silent.kills == 0
    assert await supervisor.counts() == {"serving": 2, "starting": 0, "hung": 0}
    await silent.die()
    await until_waiting(world, 2)


async def test_an_unforeseen_error_does_not_end_the_following_of_an_owner(world: World) -> None:
    """Of its death nobody else would hear in time."""
    _, (one, _) = await world.warm()
    await one.cut(KeyError("unforeseen"))
    await until(lambda: not one.errors)
    assert one.kills == 0
    await one.die()
    await until_orphaned(world, one)


async def test_an_owner_that_is_given_up_is_ended_before_it_is_succeeded(world: World) -> None:
    ends = Patience(again_s=0.001, again_s_max=0.001, silent_s_max=0.02)
    _, (silent, _) = await world.warm(ends)
    owned: list[str] = []

    async def note_what_it_has() -> None:
        owned.extend(await world.store.owned_executions(silent.name, limit=10))

    silent.before_kill = note_what_it_has
    await silent.cut(*[Silent("no line")] * 100_000)
    await until_orphaned(world, silent)
    assert silent.kills == 1
    assert len(owned) == 2


async def test_an_owner_that_cannot_even_be_ended_is_succeeded_all_the_same(world: World) -> None:
    """Whatever it still writes is refused."""
    ends = Patience(again_s=0.001, again_s_max=0.001, silent_s_max=0.02)
    _, (silent, _) = await world.warm(ends)

    async def no_line() -> None:
        raise Silent("no line")

    silent.before_kill = no_line
    await silent.cut(*[Silent("no line")] * 100_000)
    await until_orphaned(world, silent)
    assert silent.kills == 0


async def test_an_owner_that_cannot_register_yet_is_not_given_up(world: World) -> None:
    """The store is away: `ready` fails, and the actor is there all the same."""
    supervisor = world.supervisor(Patience(again_s=0, again_s_max=0, silent_s_max=0.001))
    await supervisor.begin()
    await until(lambda: len(world.cluster.alive) == 2)
    owners = list(world.cluster.alive.values())
    for owner in owners:
        await owner.cut(*[Failed("StoreUnavailable: away")] * 50)
    await until(lambda: not any(owner.errors for owner in owners))
    for owner in owners:
        await world.serve(owner)
    await supervisor.ready()
    assert [owner.kills for owner in owners] == [0, 0]
    assert list(world.cluster.alive.values()) == owners, "no other one was needed"


async def test_a_supervisor_that_restarts_while_the_store_is_away_succeeds_nobody(
    world: World,
) -> None:
    former, owners = await world.warm()
    await former.close()
    world.store.away = True
    world.clock.at_ms += 10 * LEASE_MS
    supervisor = world.supervisor()
    await supervisor.begin()
    for owner in owners:
        await owner.cut(*[Failed("StoreUnavailable: away")] * 20)
    await until(lambda: not any(owner.errors for owner in owners))
    await world.look()
    await world.renew(*owners)
    world.store.away = False
    await supervisor.ready()
    await world.look()
    assert await world.loads() == {owner.name: 2 for owner in owners}
    assert await world.store.waiting_executions() == 0


async def test_nobody_is_taken_for_gone_while_the_cluster_cannot_be_read(world: World) -> None:
    """Owners of which this supervisor has not heard may live all the same."""
    await world.warm()
    stranger = world.cluster.add()
    world.cluster.left_errors = [Silent("the head does not answer")] * 5
    await world.serve(stranger)
    await world.give(stranger)
    await until(lambda: not world.cluster.left_errors)
    await world.look()
    assert (await world.loads())[stranger.name] == 1


async def test_whoever_no_actor_bears_the_name_of_is_succeeded_at_once(world: World) -> None:
    await world.warm()
    await world.renew(ScriptedOwner("of-another-cluster"))
    assert await world.store.claim(await world.create(), "of-another-cluster") is not None
    await until_waiting(world, 1)


async def test_supervision_goes_on_whatever_a_look_raises(world: World) -> None:
    world.cluster.create_errors = [RuntimeError("no thread"), Silent("no head")]
    supervisor = world.supervisor()
    await supervisor.begin()
    await until(lambda: len(world.cluster.alive) == 2)


async def test_idle_owners_beyond_the_floor_are_ended(world: World) -> None:
    _, owners = await world.warm()
    third = world.cluster.add()
    await world.serve(third)
    await until(lambda: third.kills == 1)
    assert [owner.kills for owner in owners] == [0, 0]
    assert third.name not in await world.loads()


# Hanging -----------------------------------------------------------------------------------------


async def hang(world: World, hung: ScriptedOwner, *others: ScriptedOwner) -> None:
    """Its lease runs out while the others renew theirs, until it is succeeded."""
    world.clock.at_ms += LEASE_MS + 1
    await world.renew(*others)
    await until_orphaned(world, hung)


async def test_an_owner_that_lives_but_hangs_is_succeeded_and_replaced(world: World) -> None:
    supervisor, (hung, other) = await world.warm()
    told = hung.picks
    await hang(world, hung, other)
    assert await world.store.waiting_executions() == 2
    await until(lambda: len(world.cluster.alive) > 2)
    assert hung.kills == 0, "it ends itself when it wakes"
    assert hung.picks == told, "it takes nothing any more"
    counts = await supervisor.counts()
    assert (counts["serving"], counts["hung"]) == (1, 1)
    await hung.die()
    await until(lambda: supervisor._actors.keys() == world.cluster.alive.keys() - {hung.name})
    assert (await supervisor.counts())["hung"] == 0


async def test_an_owner_that_hangs_is_succeeded_though_the_stores_clock_is_put_back(
    world: World,
) -> None:
    """By that clock its lease would not run out for another hour."""
    _, (hung, other) = await world.warm()
    world.clock.at_ms -= 3_600_000
    await world.renew(other)
    await until_orphaned(world, hung)
    assert (await world.loads())[other.name] == 2


async def test_what_an_owner_hung_with_is_suspected_and_what_nobody_saw_end_is_not(
    world: World,
) -> None:
    _, (hung, other) = await world.warm()
    await hang(world, hung, other)
    await world.renew(ScriptedOwner("of-another-cluster"))
    assert await world.store.claim(await world.create(), "of-another-cluster") is not None
    await until_waiting(world, 3)
    crashes: dict[str, int] = {}
    heirs = [world.cluster.add() for _ in range(3)]
    for heir in heirs:
        await world.serve(heir)
    for heir in heirs:
        await world.take_all(heir, crashes)
    assert sorted(crashes.values()) == [0, 1, 1]


async def test_beyond_the_ceiling_owners_host_several_again_after_one_hangs(world: World) -> None:
    """Executions are put to owners that have some only when as many live as there may be."""
    _, (hung, other) = await world.warm()
    while len(world.cluster.alive) < MOST:
        await world.create()
        await world.look()
    third = list(world.cluster.alive.values())[-1]
    await world.serve(third)
    await world.take_all(third)
    await hang(world, hung, other, third)
    await until(lambda: len(world.cluster.alive) == MOST + 1)
    fourth = list(world.cluster.alive.values())[-1]
    await world.serve(fourth)
    await world.take_all(fourth)
    assert await world.store.waiting_executions() == 0
    assert await world.owner_of(await world.create()) in (other.name, third.name, fourth.name)


async def test_one_that_hung_under_an_earlier_supervisor_does_not_count_as_starting(
    world: World,
) -> None:
    former, (hung, other) = await world.warm()
    await hang(world, hung, other)
    await former.close()
    hung.serves = False
    for owner in list(world.cluster.alive.values()):
        if owner not in (hung, other):
            await owner.die()
            del world.cluster.alive[owner.name]
    supervisor = world.supervisor()
    await supervisor.begin()
    await until(lambda: len(world.cluster.alive) == 2 + MOST - 1)
    assert (await supervisor.counts())["hung"] == 1
    assert hung.kills == 0


async def test_an_owner_that_renews_after_all_serves_again(world: World) -> None:
    supervisor, (hung, other) = await world.warm()
    await hang(world, hung, other)
    await world.renew(hung, other)
    async with asyncio.timeout(10):
        while (await supervisor.counts())["hung"]:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_a_store_that_was_away_leaves_all_owners_what_they_have(world: World) -> None:
    _, owners = await world.warm()
    world.clock.at_ms += LEASE_MS + 1
    await world.look(1)
    world.store.away = True
    started_s = asyncio.get_running_loop().time()
    await until(lambda: asyncio.get_running_loop().time() > started_s + LEASE_MS / 1000)
    await world.look()
    world.store.away = False
    await world.look(1)
    await world.renew(*owners)
    await world.look()
    assert await world.loads() == {owner.name: 2 for owner in owners}
