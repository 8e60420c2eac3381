"""Nodes for files: chosen among those that are there, or waited for and wanted meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from harmonia_actors.core.resources import Capacity, ResourceRequest
from harmonia_actors.runtime.nodes import AnyNode, WorkspaceNodes
from harmonia_actors.runtime.orders import QueueKey
from tests.support.scripted_actors import ScriptedLeases, settle, until

CPU = ResourceRequest.DEFAULT
GPU = ResourceRequest(num_gpus=1)
SMALL = {"CPU": 2.0}
LARGE = {"CPU": 2.0, "GPU": 1.0}


class Cluster:
    """What may be read of a cluster, and the actors that its pool gives."""

    def __init__(self, capacity: Capacity | None, **more: bool) -> None:
        self.has = capacity
        self.broken = False
        self.looks = 0
        self.leases = ScriptedLeases()
        self.nodes = WorkspaceNodes(self.leases, self.read, again_s=0.001, every_s=0.001, **more)

    async def read(self) -> Capacity | None:
        self.looks += 1
        if self.broken:
            raise RuntimeError("broken")
        return self.has

    def waits(self, request: ResourceRequest = GPU) -> asyncio.Task[str]:
        return asyncio.get_running_loop().create_task(self.nodes.wait_for("exec-1", request))


async def known(capacity: Capacity, **more: bool) -> Cluster:
    cluster = Cluster(capacity, **more)
    await cluster.nodes.look()
    return cluster


async def test_executions_spread_over_the_nodes_that_fit_and_each_stays() -> None:
    cluster = await known(Capacity({"a": LARGE, "b": LARGE, "c": SMALL, "head": {}}, (LARGE,)))
    chosen = {f"exec-{n}": cluster.nodes.choose(f"exec-{n}", GPU) for n in range(50)}
    assert set(chosen.values()) == {"a", "b"}
    assert chosen == {name: cluster.nodes.choose(name, GPU) for name in chosen}


@pytest.mark.parametrize(
    ("node_types", "complete", "chosen"),
    [
        ((LARGE,), True, None),
        ((), False, None),
        ((SMALL,), True, "a"),
        # Each has a part of it, and none has all.
        (({"GPU": 1.0},), True, "a"),
        ((), True, "a"),
    ],
)
async def test_what_no_node_has_is_waited_for_only_if_one_that_has_it_may_come(
    node_types: tuple[dict[str, float], ...], complete: bool, chosen: str | None
) -> None:
    cluster = await known(Capacity({"a": SMALL, "head": {}}, node_types, complete))
    assert cluster.nodes.choose("exec-1", GPU) == chosen


async def test_before_anything_is_known_nothing_is_chosen() -> None:
    assert Cluster(None).nodes.choose("exec-1", CPU) is None


async def test_where_all_nodes_share_the_files_any_will_do() -> None:
    shared = Cluster(Capacity({"a": SMALL}, (LARGE,)), shared=True)
    await shared.nodes.known()
    assert shared.looks == 0
    assert shared.nodes.choose("exec-1", GPU) == AnyNode().choose("exec-1", GPU) == ""


async def test_an_actor_is_wanted_and_kept_until_its_node_is_known() -> None:
    """A node that nobody uses may be taken away again before anything starts on it."""
    cluster = await known(Capacity({"a": SMALL}, (LARGE,)))
    waiting = cluster.waits()
    await until(lambda: cluster.leases.asked)
    assert cluster.leases.asked == [(QueueKey(GPU), 1)]
    actor = cluster.leases.add()
    looks = cluster.looks
    await until(lambda: cluster.looks > looks + 3)
    assert cluster.leases.released == []
    assert not waiting.done()
    cluster.has = Capacity({"a": SMALL, "late": LARGE}, (LARGE,))
    assert await waiting == "late"
    assert cluster.leases.released == [actor.name]
    assert len(cluster.leases.asked) == 1


async def test_a_node_that_others_have_brought_will_do_and_nothing_is_wanted_any_more() -> None:
    cluster = await known(Capacity({"a": SMALL}, (LARGE,)))
    waiting = [cluster.waits() for _ in range(3)]
    await until(lambda: len(cluster.leases.asked) == 3)
    cluster.has = Capacity({"a": SMALL, "late": LARGE}, (LARGE,))
    await cluster.nodes.look()
    assert [await each for each in waiting] == ["late"] * 3
    actor = cluster.leases.add()
    await settle()
    assert await cluster.leases.acquire(QueueKey(), 9) != [], f"{actor.name} is still free"


async def test_who_is_cancelled_wants_nothing_and_keeps_nothing() -> None:
    cluster = await known(Capacity({"a": SMALL}, (LARGE,)))
    early, late = cluster.waits(), cluster.waits()
    await until(lambda: len(cluster.leases.asked) == 2)
    early.cancel()
    await asyncio.wait([early])
    actor = cluster.leases.add()
    looks = cluster.looks
    await until(lambda: cluster.looks > looks)
    late.cancel()
    await asyncio.wait([late])
    assert cluster.leases.released == [actor.name]
    assert early.cancelled()
    assert late.cancelled()


async def test_an_actor_whose_node_is_gone_again_is_given_back_and_another_wanted() -> None:
    cluster = await known(Capacity({"a": SMALL}, (LARGE,)))
    waiting = cluster.waits()
    actor = cluster.leases.add()
    await until(lambda: len(cluster.leases.asked) > 2)
    assert set(cluster.leases.released) == {actor.name}
    assert not waiting.done()
    waiting.cancel()


async def test_what_can_never_come_after_all_ends_the_wait_on_any_node() -> None:
    """There the task is refused, and the way out is said."""
    cluster = await known(Capacity({"a": SMALL}, (LARGE,)))
    cluster.leases.refuse("no node has it")
    waiting = cluster.waits()
    cluster.has = Capacity({"a": SMALL})
    assert await waiting == "a"


async def test_while_the_cluster_cannot_be_read_what_was_known_counts() -> None:
    cluster = await known(Capacity({"a": SMALL}, (LARGE,)))
    waiting = cluster.waits()
    cluster.has = None
    cluster.leases.add()
    looks = cluster.looks
    await until(lambda: cluster.looks > looks + 3)
    assert not waiting.done()
    assert cluster.nodes.choose("exec-1", CPU) == "a"
    cluster.has = Capacity({"late": LARGE})
    assert await waiting == "late"


async def test_a_question_to_the_pool_that_breaks_is_no_wait_for_ever() -> None:
    cluster = await known(Capacity({"a": SMALL}, (LARGE,)))
    cluster.broken = True
    actor = cluster.leases.add()
    with pytest.raises(ExceptionGroup) as caught:
        await cluster.waits()
    assert [str(each) for each in caught.value.exceptions] == ["broken"]
    assert cluster.leases.released == [actor.name]


async def test_looking_goes_on_whatever_a_look_ends_with() -> None:
    """Whoever chose by what was known until then would choose nodes that are gone."""
    cluster = await known(Capacity({"a": LARGE}))
    cluster.broken = True
    watching = asyncio.ensure_future(cluster.nodes.watch())
    await until(lambda: cluster.looks > 3)
    cluster.broken, cluster.has = False, Capacity({"b": LARGE})
    await until(lambda: cluster.nodes.choose("exec-1", GPU) == "b")
    watching.cancel()


async def test_nothing_begins_before_there_is_a_node_that_runs_tasks() -> None:
    cluster = Cluster(None)
    beginning = asyncio.ensure_future(cluster.nodes.known())
    await until(lambda: cluster.looks > 1)
    cluster.has = Capacity({"head": {}}, (LARGE,))
    looks = cluster.looks
    await until(lambda: cluster.looks > looks + 1)
    assert not beginning.done()
    cluster.has = Capacity({"head": {}, "a": SMALL}, (LARGE,))
    await asyncio.wait_for(beginning, 10)


BEFORE = Capacity({"old": {**SMALL, "node:10.0.0.1": 1.0}})
AFTER = Capacity({"new": {**SMALL, "node:10.0.0.1": 1.0}})
ELSEWHERE = Capacity({"other": {**SMALL, "node:10.0.0.2": 1.0}})


async def test_the_files_are_found_again_after_a_restart_of_the_cluster() -> None:
    cluster = await known(BEFORE)
    place = cluster.nodes.choose("exec-1", CPU)
    assert place is not None
    assert (cluster.nodes.now(place), cluster.nodes.is_gone(place)) == ("old", False)
    cluster.has = AFTER
    await cluster.nodes.look()
    assert (cluster.nodes.now(place), cluster.nodes.is_gone(place)) == ("new", False)
    cluster.has = ELSEWHERE
    await cluster.nodes.look()
    assert (cluster.nodes.now(place), cluster.nodes.is_gone(place)) == ("old", True)


async def test_before_anything_is_known_nothing_is_gone() -> None:
    assert not Cluster(None).nodes.is_gone("old@10.0.0.1")
    assert Cluster(None).nodes.now("old@10.0.0.1") == "old"


async def test_where_nodes_share_the_files_no_node_is_asked_for() -> None:
    cluster = await known(ELSEWHERE, shared=True)
    assert (cluster.nodes.now("old@10.0.0.1"), cluster.nodes.is_gone("old@10.0.0.1")) == ("", False)


async def test_a_directory_for_each_node_is_that_nodes_alone() -> None:
    """Two on one machine have the same address."""
    cluster = await known(BEFORE, per_node=True)
    assert cluster.nodes.choose("exec-1", CPU) == "old"
    cluster.has = AFTER
    await cluster.nodes.look()
    assert cluster.nodes.is_gone("old")
