"""What uses files waits for a node, all else does not; and nothing starts before it is written."""

from __future__ import annotations

import asyncio
from typing import Any

from harmonia_actors.core import stimuli as st
from harmonia_actors.core.commands import StartAttempt
from harmonia_actors.core.execution import Execution
from harmonia_actors.core.records import Head, TaskRow, decode_head, decode_row
from harmonia_actors.core.resources import ResourceRequest
from harmonia_actors.runtime.node_wait import NodeNeed, NodeWait
from tests.support.executions import EXECUTION_ID, failed, new_head, workflow_of
from tests.support.scripted_actors import settle, until
from tests.unit.runtime.driver_rig import Rig

REQUEST = ResourceRequest(num_gpus=1)
FILES = {"action": "write"}


class ComingNode:
    """A node that comes when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ResourceRequest]] = []
        self.given_up = 0
        self.error: Exception | None = None
        self.gone: set[str] = set()
        self._came = asyncio.Event()

    def come(self, error: Exception | None = None) -> None:
        self.error = error
        self._came.set()

    def choose(self, execution_id: str, request: ResourceRequest) -> str | None:
        raise AssertionError(f"a driver does not choose: {execution_id} {request}")

    async def wait_for(self, execution_id: str, request: ResourceRequest) -> str:
        self.asked.append((execution_id, request))
        try:
            await self._came.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.error is not None:
            raise self.error
        return "late"

    def now(self, place: str) -> str:
        return place

    def is_gone(self, place: str) -> bool:
        return place in self.gone


async def waiting_rig(
    rigs: list[Rig], tasks: dict[str, Any], **fields: Any
) -> tuple[Rig, ComingNode]:
    """A rig whose tasks with files wait for a node."""
    rig, node = Rig(tasks, **fields), ComingNode()
    rigs.append(rig)
    rig.nodes = node
    users = [task.index for task in rig.workflow.tasks if task.action == "write"]
    rig.node_need = NodeNeed(frozenset(users), REQUEST)
    await rig.create()
    return rig, node


async def stored(rig: Rig) -> tuple[Head, dict[str, TaskRow]]:
    """The head and the rows, by name."""
    snapshot = await rig.store.read_execution(EXECUTION_ID)
    assert snapshot is not None
    rows = {rig.workflow.tasks[int(n)].name: decode_row(b) for n, b in snapshot.rows.items()}
    return decode_head(snapshot.fields["head"]), rows


async def is_stored_as(rig: Rig, name: str, waiting: str) -> bool:
    _, rows = await stored(rig)
    return name in rows and waiting in rows[name].waiting


async def shown_waiting(rig: Rig, name: str) -> None:
    async with asyncio.timeout(10):
        # The store tells nobody: it must be asked.
        while not await is_stored_as(rig, name, "1 CPU and 1 GPU"):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_what_uses_files_starts_once_its_node_is_written(rigs: list[Rig]) -> None:
    rig, node = await waiting_rig(rigs, {"a": "", "b": FILES, "c": {**FILES, "depends_on": ["a"]}})
    rig.begin()
    await until(lambda: rig.orders)
    await shown_waiting(rig, "b")
    rig.done("a")
    await shown_waiting(rig, "c")
    assert list(rig.orders) == ["a"]
    assert node.asked == [(EXECUTION_ID, REQUEST)]

    rig.store.open.clear()
    node.come()
    await settle()
    assert list(rig.orders) == ["a"], "it started before its node was written"
    rig.store.open.set()
    await until(lambda: len(rig.orders) == 3)
    assert rig.story[-3:-1] == [f"commit {rig.store.commits[-1].version}", "start b 1"]
    assert [rig.orders[n].key.node_id for n in "abc"] == ["", "late", "late"]
    assert (await stored(rig))[0].labels == {"node": "late"}
    for name in "bc":
        rig.driver.deliver(st.AttemptStarted(rig.orders[name].task, 1, rig.clock.now_ms()))
        rig.done(name)
    await rig.running
    assert all(not row.waiting for row in (await stored(rig))[1].values())


async def test_nothing_is_looked_for_before_something_waits(rigs: list[Rig]) -> None:
    rig, node = await waiting_rig(rigs, {"a": "", "b": {**FILES, "depends_on": ["a"]}})
    rig.begin()
    await until(lambda: rig.orders)
    await settle()
    assert node.asked == []
    rig.done("a")
    await until(lambda: node.asked)


async def test_a_cancel_ends_what_waits_and_nobody_is_looked_for(rigs: list[Rig]) -> None:
    rig, node = await waiting_rig(rigs, {"a": "", "b": FILES})
    rig.begin()
    await until(lambda: rig.orders and node.asked)
    rig.driver.deliver(st.CancelRequested(rig.clock.now_ms()))
    await until(lambda: node.given_up)
    assert rig.stops == [("a", "cancelled")], "what had not begun has nothing to be stopped"
    assert not rig.running.done(), "a still runs"
    rig.driver.deliver(st.AttemptStopped(0, 1, rig.clock.now_ms()))
    await rig.running
    head, rows = await stored(rig)
    assert (head.status, rows["b"].status, rows["b"].started_ms) == ("cancelled", "cancelled", None)
    assert list(rig.orders) == ["a"]


async def test_time_runs_out_while_something_waits(rigs: list[Rig]) -> None:
    rig, node = await waiting_rig(rigs, {"b": FILES}, timeout=0.001)
    rig.begin()
    await rig.running
    await settle()
    head, _ = await stored(rig)
    assert head.error is not None
    assert (head.error["code"], node.given_up, rig.orders) == ("timeout", 1, {})


async def test_a_failure_elsewhere_takes_back_what_waits(rigs: list[Rig]) -> None:
    rig, node = await waiting_rig(rigs, {"bad": "", "good": "", "b": FILES})
    rig.begin()
    await until(lambda: len(rig.orders) == 2)
    rig.driver.deliver(st.AttemptFailed(0, 1, rig.clock.now_ms(), failed()))
    await until(lambda: node.given_up)
    rig.done("good")
    await rig.running
    assert (await stored(rig))[1]["b"].status == "skipped"


async def test_another_owner_looks_again_and_then_has_what_was_found(rigs: list[Rig]) -> None:
    rig, node = await waiting_rig(rigs, {"b": FILES})
    rig.begin()
    await shown_waiting(rig, "b")
    for epoch in (2, 3):
        await rig.close()
        loaded = await rig.store.claim(EXECUTION_ID, "me")
        assert loaded is not None
        assert loaded.epoch == epoch
        head = decode_head(loaded.fields["head"])
        if "node" in head.labels:
            rig.node_need = None
        execution = Execution(
            workflow=rig.workflow,
            head=head,
            rows={int(name): decode_row(body) for name, body in loaded.rows.items()},
            seq=loaded.seq,
        )
        first = execution.resume(rig.clock.now_ms(), frozenset())
        rig.driver = rig.make_driver(execution, epoch=epoch, version=loaded.version)
        rig.running = asyncio.ensure_future(rig.driver.run(first))
        if epoch == 2:
            await until(lambda: len(node.asked) == 2)
            assert rig.orders == {}
            node.come()
        await until(lambda: rig.orders)
    await until(lambda: rig.orders["b"].attempt == 3)
    assert (len(node.asked), node.given_up) == (2, 1)
    assert rig.orders["b"].key.node_id == "late"
    rig.done("b")
    await rig.running


async def test_a_search_that_breaks_ends_the_driver(rigs: list[Rig]) -> None:
    """Rather than leave what waits for ever."""
    rig, node = await waiting_rig(rigs, {"b": FILES})
    rig.begin()
    await until(lambda: node.asked)
    node.come(RuntimeError("broken"))
    await asyncio.wait([rig.running])
    assert repr(rig.running.exception()) == "RuntimeError('broken')"


async def test_a_node_that_comes_too_late_changes_nothing(rigs: list[Rig]) -> None:
    rig, _ = await waiting_rig(rigs, {"a": "", "b": FILES})
    rig.begin()
    await until(lambda: rig.orders)
    now_ms = rig.clock.now_ms()
    rig.driver.deliver(st.CancelRequested(now_ms), st.NodeChosen(now_ms, "late"))
    rig.driver.deliver(st.AttemptStopped(0, 1, now_ms))
    await rig.running
    assert list(rig.orders) == ["a"]
    assert (await stored(rig))[0].status == "cancelled"


def test_only_the_first_are_shown_as_waiting_and_each_once() -> None:
    workflow = workflow_of({f"t{number}": "" for number in range(200)})
    execution = Execution(workflow=workflow, head=new_head(workflow))
    wait = NodeWait(execution, ComingNode(), NodeNeed(frozenset(range(1, 200)), REQUEST))
    starts = [StartAttempt(task, 1) for task in range(200)]
    assert wait.let_through(starts) == starts[:1]
    assert wait.take_unshown() == starts[1:101]
    assert wait.take_unshown() == []
    assert wait.withdraw(1, 1)
    assert not wait.withdraw(1, 1)
    assert wait.take_unshown() == [starts[101]]
    execution.head.labels["node"] = "a"
    more = [StartAttempt(0, 2)]
    assert wait.let_through(more) == [*starts[2:], *more]
    assert not wait
    assert wait.let_through([]) == []


def test_without_a_need_nothing_waits() -> None:
    workflow = workflow_of({"a": ""})
    wait = NodeWait(Execution(workflow=workflow, head=new_head(workflow)), ComingNode(), None)
    starts = [StartAttempt(0, 1)]
    assert wait.let_through(starts) == starts
    assert not wait


# A node that is gone ------------------------------------------------------------------------------


async def test_another_node_is_taken_for_one_that_went_before_it_had_any_files(
    rigs: list[Rig],
) -> None:
    rig, node = await waiting_rig(rigs, {"a": "", "b": {**FILES, "depends_on": ["a"]}})
    rig.execution.head.labels["node"] = "early"
    rig.begin()
    await until(lambda: rig.orders)
    node.gone.add("early")
    rig.done("a")
    await shown_waiting(rig, "b")
    node.come()
    await until(lambda: len(rig.orders) == 2)
    assert rig.orders["b"].key.node_id == "late"
    assert (await stored(rig))[0].labels == {"node": "late"}


async def test_files_that_went_with_their_node_are_not_looked_for_on_another(
    rigs: list[Rig],
) -> None:
    """What needs them is told so by the pool, which knows what nodes there are."""
    rig, node = await waiting_rig(rigs, {"a": FILES, "b": {**FILES, "depends_on": ["a"]}})
    rig.execution.head.labels["node"] = "early"
    rig.begin()
    await until(lambda: rig.orders)
    rig.done("a")
    node.gone.add("early")
    await until(lambda: len(rig.orders) == 2)
    assert rig.orders["b"].key.node_id == "early"
    assert node.asked == []


async def test_an_attempt_that_was_lost_with_its_node_is_made_again_on_another(
    rigs: list[Rig],
) -> None:
    rig, node = await waiting_rig(rigs, {"a": FILES})
    rig.execution.head.labels["node"] = "early"
    rig.begin()
    await until(lambda: rig.orders)
    node.gone.add("early")
    rig.driver.deliver(st.AttemptLost(0, 1, rig.clock.now_ms(), "its node has died"))
    await shown_waiting(rig, "a")
    node.come()
    await until(lambda: rig.orders["a"].attempt == 2)
    assert rig.orders["a"].key.node_id == "late"
