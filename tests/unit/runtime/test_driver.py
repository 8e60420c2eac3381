"""Decide, commit, perform, publish: in that order, whatever the store does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from harmonia_actors.components.contract import Component
from harmonia_actors.components.registry import Registry
from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.commands import StopReason
from harmonia_actors.core.events import FINAL_EVENT_TYPES
from harmonia_actors.core.execution import Execution
from harmonia_actors.core.records import decode_head, decode_row, encode_head
from harmonia_actors.runtime.driver import ExecutionDriver, Surroundings
from harmonia_actors.runtime.event_hub import parse_event
from harmonia_actors.runtime.inputs import PlannedWorkflow
from harmonia_actors.runtime.ordering import Ordering, OrderingLimits
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder
from harmonia_actors.runtime.output_cache import OutputCache
from persistence.errors import Missing, StaleOwner, StoreUnavailable
from persistence.memory_store import MemoryStore
from persistence.store import Commit, InboxEntry, NewExecution
from tests.support.executions import EXECUTION_ID, START_MS, new_head, output, workflow_of
from tests.support.scripted_actors import ManualClock, settle, until

component = Component("harmonia")


@component.action
def echo(value: Any = None) -> Any:
    return value


@component.action
async def wait_for(value: Any = None) -> Any:
    return value


class WatchedStore(MemoryStore):
    """A real store of which a test sees every commit, and which it can hold up or take away."""

    def __init__(self, story: list[str]) -> None:
        super().__init__()
        self.story = story
        self.commits: list[Commit] = []
        self.open = asyncio.Event()
        self.open.set()
        self.reading = asyncio.Event()
        self.reading.set()
        self.away = False
        self.loses_replies = 0
        self.tries = 0

    async def commit(self, commit: Commit) -> None:
        self.tries += 1
        await self.open.wait()
        if self.away:
            raise StoreUnavailable("away")
        await super().commit(commit)
        if self.loses_replies:
            self.loses_replies -= 1
            raise StoreUnavailable("the reply was lost")
        self.commits.append(commit)
        self.story.append(f"commit {commit.version}")

    async def read_outputs(self, references: Sequence[tuple[str, str]]) -> list[bytes | None]:
        await self.reading.wait()
        return await super().read_outputs(references)


class Blobs:
    """Blobs in memory; what is not there is missing, as in the real ones."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def put(self, name: str, body: bytes) -> str:
        self.kept[f"mem:{name}"] = body
        return f"mem:{name}"

    def get(self, url: str) -> bytes:
        try:
            return self.kept[url]
        except KeyError:
            raise Missing(f"there is no blob '{url}'") from None


class Rig:
    """A driver over one execution, with ears everywhere."""

    def __init__(self, tasks: dict[str, Any], **fields: Any) -> None:
        self.story: list[str] = []
        self.store = WatchedStore(self.story)
        self.clock = ManualClock(START_MS)
        self.blobs = Blobs()
        self.orders: dict[str, AttemptOrder] = {}
        self.stops: list[tuple[str, StopReason]] = []
        self.forgotten: list[str] = []
        self.workflow = workflow_of(tasks, **fields)
        self.given = {"n": 7}

    # The ports of a driver ---------------------------------------------------------------------

    def start(self, orders: Sequence[AttemptOrder]) -> None:
        for order in orders:
            self.orders[order.task_name] = order
            self.story.append(f"start {order.task_name} {order.attempt}")

    def stop(self, attempt: AttemptId, reason: StopReason) -> None:
        name = self.workflow.tasks[attempt[1]].name
        self.stops.append((name, reason))
        self.story.append(f"stop {name}")

    def forget(self, execution_id: str) -> None:
        self.forgotten.append(execution_id)

    def publish(self, execution_id: str, first_seq: int, bodies: Sequence[bytes]) -> None:
        kinds = [parse_event(first_seq + i, body).type for i, body in enumerate(bodies)]
        self.story.append(f"publish {first_seq} {','.join(kinds)}")

    # Driving -----------------------------------------------------------------------------------

    async def create(self) -> None:
        await self.store.renew_owner("me", lease_ms=10**9)
        await self.store.put_definition("d", b"{}")
        head = encode_head(new_head(self.workflow))
        fields = {"head": head, "input": jsontext.encode(self.given), "options": b"{}"}
        new = NewExecution(EXECUTION_ID, "d", fields)
        assert await self.store.create_execution(new, owners_max=1) == "me"
        self.driver = self.make_driver(Execution(workflow=self.workflow, head=decode_head(head)))
        self.running = asyncio.ensure_future(self.driver.run())

    def make_driver(
        self, execution: Execution, *, owner: str = "me", epoch: int = 1, version: int = 1
    ) -> ExecutionDriver:
        ordering = Ordering(
            execution=execution,
            planned=PlannedWorkflow(self.workflow, Registry([component])),
            execution_input=jsontext.encode(self.given),
            cache=OutputCache(10_000_000),
            store=self.store,
            blobs=self.blobs,
            limits=OrderingLimits(inline_output_bytes_max=200),
        )
        return ExecutionDriver(
            execution=execution,
            ordering=ordering,
            owner=owner,
            epoch=epoch,
            version=version,
            surroundings=Surroundings(self.store, self, self, self.clock),
        )

    def begin(self) -> None:
        self.driver.deliver(st.StartRequested(self.clock.now_ms()))

    def done(self, name: str, value: Any = None) -> None:
        """The task has been run and gave this."""
        self.driver.deliver(self.success(name, output(value)))

    def success(self, name: str, result: st.Output) -> st.AttemptSucceeded:
        task = self.workflow.by_name[name].index
        attempt = self.orders[name].attempt
        return st.AttemptSucceeded(task, attempt, self.clock.now_ms(), result)

    def input_of(self, name: str) -> Any:
        return jsontext.decode(self.orders[name].input)

    async def close(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)


@pytest.fixture
async def rigs() -> AsyncIterator[list[Rig]]:
    made: list[Rig] = []
    yield made
    for rig in made:
        await rig.close()


async def a_rig(rigs: list[Rig], tasks: dict[str, Any], **fields: Any) -> Rig:
    rig = Rig(tasks, **fields)
    rigs.append(rig)
    await rig.create()
    return rig


# The law -----------------------------------------------------------------------------------------


async def test_nothing_is_done_or_told_before_it_is_written(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, {"a": "", "b": ["a"]})
    rig.store.open.clear()
    rig.begin()
    await settle()
    assert rig.story == []
    rig.store.open.set()
    await until(lambda: len(rig.story) == 3)
    assert rig.story == ["commit 2", "start a 1", "publish 1 execution_started"]
    rig.done("a")
    await until(lambda: len(rig.story) == 6)
    assert rig.story[3:] == ["commit 3", "start b 1", "publish 2 task_started,task_completed"]
    rig.done("b")
    await rig.running
    assert rig.story[-1].endswith("execution_completed")


async def test_what_comes_during_a_commit_goes_into_one_other(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, {f"t{i}": "" for i in range(100)})
    rig.begin()
    await until(lambda: len(rig.orders) == 100)
    rig.store.open.clear()
    rig.driver.deliver(st.AttemptStarted(0, 1, rig.clock.now_ms()))
    await until(lambda: rig.store.tries == 2)
    for name in rig.orders:
        rig.done(name, 1)
    await settle()
    rig.store.open.set()
    await rig.running
    assert [len(commit.rows) for commit in rig.store.commits] == [0, 1, 100, 0]


async def test_events_are_numbered_without_a_gap_across_commits(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, {"a": "", "b": ["a"], "c": ["b"]})
    rig.begin()
    for name in "abc":
        await until(lambda name=name: name in rig.orders)  # type: ignore[misc]
        rig.done(name, {name: 1})
    await rig.running
    stored = await rig.store.read_events(EXECUTION_ID, after=0, limit=100)
    assert [event.seq for event in stored] == list(range(1, 9))
    assert jsontext.decode(stored[-1].body)["data"]["output"] == {"c": 1}


async def test_the_lists_are_written_when_the_status_changes_only(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, {"a": "", "b": ["a"]})
    rig.begin()
    for name in "ab":
        await until(lambda name=name: name in rig.orders)  # type: ignore[misc]
        rig.done(name)
    await rig.running
    assert [commit.indexes is not None for commit in rig.store.commits] == [True, False, True]
    page = await rig.store.page("executions:*:completed", offset=0, limit=9, descending=True)
    assert page.ids == (EXECUTION_ID,)
    assert [commit.release for commit in rig.store.commits] == [False, False, True]


# A store that is away ----------------------------------------------------------------------------


async def test_while_the_store_is_away_nothing_happens_and_then_all(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, {"a": ""})
    rig.store.away = True
    rig.begin()
    await until(lambda: rig.store.tries >= 2)
    assert rig.story == []
    rig.store.away = False
    await until(lambda: rig.orders)
    assert rig.story[0] == "commit 2"


async def test_a_lost_reply_leads_to_no_second_write(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, {"a": ""})
    rig.store.loses_replies = 1
    rig.begin()
    await until(lambda: rig.orders)
    rig.done("a", {"x": 1})
    await rig.running
    stored = await rig.store.read_events(EXECUTION_ID, after=0, limit=100)
    kinds = [parse_event(event.seq, event.body).type for event in stored]
    assert kinds == ["execution_started", "task_started", "task_completed", "execution_completed"]


async def test_another_owner_ends_a_driver_without_a_trace(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, {"a": "", "b": ["a"]})
    rig.begin()
    await until(lambda: rig.orders)
    await rig.store.claim(EXECUTION_ID, "other")
    story = list(rig.story)
    rig.done("a")
    await rig.running
    assert rig.driver.superseded
    assert rig.driver.ended.is_set()
    assert rig.forgotten == [EXECUTION_ID]
    assert rig.story == story, "something was done or told without a commit"


async def test_a_driver_that_lost_count_gives_up_its_execution(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, {"a": ""})
    execution = Execution(workflow=rig.workflow, head=new_head(rig.workflow))
    lost = rig.make_driver(execution, version=9)
    lost.deliver(st.StartRequested(START_MS))
    await lost.run()
    assert lost.superseded
    assert rig.orders == {}


async def test_a_stale_owner_is_refused_by_the_store_itself(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, {"a": ""})
    await rig.store.claim(EXECUTION_ID, "other")
    with pytest.raises(StaleOwner):
        await rig.store.commit(Commit(EXECUTION_ID, "me", 1, 2, 1, fields={"head": b"{}"}))


# The inbox ---------------------------------------------------------------------------------------


async def test_an_inbox_entry_is_acknowledged_by_the_commit_with_its_effect(
    rigs: list[Rig],
) -> None:
    rig = await a_rig(rigs, {"a": ""})
    rig.begin()
    await until(lambda: rig.orders)
    await rig.store.append_inbox(EXECUTION_ID, InboxEntry("cp-1", b"{}"))
    rig.driver.deliver(st.CheckpointTaken(START_MS, "cp-1", "x"), inbox_ids=["cp-1"])
    await until(lambda: len(rig.store.commits) == 2)
    assert rig.store.commits[-1].inbox_done == ["cp-1"]
    assert len(rig.store.commits[-1].events) == 1
    assert await rig.store.read_inbox(EXECUTION_ID) == []


async def test_an_entry_is_not_acknowledged_while_it_waits_behind_a_full_batch(
    rigs: list[Rig],
) -> None:
    rig = await a_rig(rigs, {"a": ""})
    rig.begin()
    await until(lambda: rig.orders)
    late = [st.AttemptStarted(0, 9, START_MS)] * 1_999
    rig.driver.deliver(st.AttemptStarted(0, 1, START_MS), *late)
    rig.driver.deliver(st.CancelRequested(START_MS), inbox_ids=["cancel"])
    await until(lambda: rig.stops)
    first, second = rig.store.commits[1:]
    assert (len(first.events), list(first.inbox_done)) == (1, [])
    assert list(second.inbox_done) == ["cancel"]


async def test_an_entry_that_is_read_twice_takes_effect_once(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, {"a": ""})
    rig.begin()
    await until(lambda: rig.orders)
    for _ in range(2):
        rig.driver.deliver(st.CheckpointTaken(START_MS, "cp-1", "x"), inbox_ids=["cp-1"])
    rig.done("a")
    await rig.running
    stored = await rig.store.read_events(EXECUTION_ID, after=0, limit=100)
    kinds = [parse_event(event.seq, event.body).type for event in stored]
    assert kinds.count("checkpoint_created") == 1


async def test_an_entry_without_an_effect_is_acknowledged_too(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, {"a": ""})
    rig.begin()
    await until(lambda: rig.orders)
    rig.driver.deliver(inbox_ids=["unknown"])
    await until(lambda: len(rig.store.commits) == 2)
    assert rig.store.commits[-1].inbox_done == ["unknown"]
    assert rig.store.commits[-1].events == []


# Inputs and outputs ------------------------------------------------------------------------------

REFERRING = {
    "a": "",
    "b": {
        "depends_on": ["a"],
        "input": {"value": {"of_a": "${tasks.a.output.x}", "n": "${workflow.input.n}"}},
    },
}


async def test_inputs_are_resolved_from_what_was_just_returned(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, REFERRING)
    rig.begin()
    await until(lambda: "a" in rig.orders)
    rig.done("a", {"x": [1, "${tasks.a.output.x}"]})
    await until(lambda: "b" in rig.orders)
    assert rig.input_of("b") == {"value": {"of_a": [1, "${tasks.a.output.x}"], "n": 7}}


async def test_a_missing_value_fails_the_task_and_says_which(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, REFERRING)
    rig.begin()
    await until(lambda: "a" in rig.orders)
    rig.done("a", {"y": 1})
    await rig.running
    row = decode_row((await rig.store.read_rows(EXECUTION_ID, ["1"]))["1"])
    assert row.failure is not None
    assert row.failure.code == "MISSING_VALUE"
    assert "nothing at 'x'; the keys are: y" in row.failure.message
    assert "b" not in rig.orders


async def test_a_large_output_travels_as_its_place_only(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, REFERRING)
    rig.begin()
    await until(lambda: "a" in rig.orders)
    url = rig.blobs.put("large", b'{"x":1}')
    rig.driver.deliver(rig.success("a", st.Output(900_000, None, url, "…")))
    await until(lambda: "b" in rig.orders)
    order = rig.orders["b"]
    assert order.values == {"": b'{"n":7}', "a": url}
    assert rig.input_of("b")["value"]["of_a"] == "${tasks.a.output.x}"


async def resumed(rig: Rig) -> ExecutionDriver:
    """Another owner takes the execution over; nothing of the former one is in memory."""
    await rig.close()
    loaded = await rig.store.claim(EXECUTION_ID, "other")
    assert loaded is not None
    rows = {int(name): decode_row(body) for name, body in loaded.rows.items()}
    head = decode_head(loaded.fields["head"])
    execution = Execution(workflow=rig.workflow, head=head, rows=rows, seq=loaded.seq)
    driver = rig.make_driver(execution, owner="other", epoch=loaded.epoch, version=loaded.version)
    rig.driver = driver
    rig.orders.clear()
    rig.running = asyncio.ensure_future(driver.run(execution.resume(START_MS, set())))
    return driver


async def test_a_successor_reads_outputs_from_the_store(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, REFERRING)
    rig.begin()
    await until(lambda: "a" in rig.orders)
    rig.done("a", {"x": "kept"})
    await until(lambda: "b" in rig.orders)
    await resumed(rig)
    await until(lambda: "b" in rig.orders)
    assert (rig.orders["b"].attempt, rig.orders["b"].epoch) == (2, 2)
    assert rig.input_of("b")["value"]["of_a"] == "kept"


async def test_what_is_stopped_while_its_input_is_read_never_starts(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, REFERRING)
    rig.begin()
    await until(lambda: "a" in rig.orders)
    rig.done("a", {"x": "kept"})
    await until(lambda: "b" in rig.orders)
    rig.store.reading.clear()
    driver = await resumed(rig)
    await until(lambda: rig.store.commits[-1].owner == "other")
    driver.deliver(st.CancelRequested(START_MS))
    await until(lambda: len(rig.store.commits) == 4)
    rig.store.reading.set()
    await rig.running
    assert "b" not in rig.orders
    assert decode_head(rig.store.commits[-1].fields["head"]).status == "cancelled"


async def test_an_output_that_is_gone_fails_the_task_that_needs_it(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, REFERRING)
    rig.begin()
    await until(lambda: "a" in rig.orders)
    rig.done("a", {"x": "gone"})
    await until(lambda: "b" in rig.orders)
    rig.store._executions[EXECUTION_ID].outputs.clear()
    await resumed(rig)
    async with asyncio.timeout(10):
        await rig.running
    row = decode_row((await rig.store.read_rows(EXECUTION_ID, ["1"]))["1"])
    assert row.failure is not None
    assert (row.failure.code, row.failure.origin) == ("OUTPUT_MISSING", "engine")
    assert "'a'" in row.failure.message


@pytest.mark.parametrize("kept", ["inline", "blob"])
async def test_an_output_that_is_gone_fails_the_execution_that_is_made_of_it(
    rigs: list[Rig], kept: str
) -> None:
    rig = await a_rig(rigs, {"a": ""}, output={"x": "${tasks.a.output.x}"})
    rig.begin()
    await until(lambda: "a" in rig.orders)
    rig.store.reading.clear()
    place = st.Output(900, None, "mem:nowhere", "…") if kept == "blob" else output({"x": 1})
    rig.driver.deliver(rig.success("a", place))
    await until(lambda: len(rig.store.commits) == 2)
    rig.store._executions[EXECUTION_ID].outputs.clear()
    rig.store.reading.set()
    async with asyncio.timeout(10):
        await rig.running
    stored = await rig.store.read_events(EXECUTION_ID, after=0, limit=100)
    last = parse_event(stored[-1].seq, stored[-1].body)
    assert last.type in FINAL_EVENT_TYPES
    assert jsontext.decode(last.data)["error"]["details"]["code"] == "OUTPUT_MISSING"


async def test_the_output_of_an_execution_may_be_large(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, {"a": ""}, output={"x": ["${tasks.a.output}"] * 3})
    rig.begin()
    await until(lambda: "a" in rig.orders)
    rig.done("a", "y" * 150)
    await rig.running
    head = decode_head(rig.store.commits[-1].fields["head"])
    assert head.output is not None
    assert head.output.url is not None
    assert jsontext.decode(rig.blobs.get(head.output.url)) == {"x": ["y" * 150] * 3}


# Timers ------------------------------------------------------------------------------------------


async def test_a_timer_fires_when_its_time_has_come(rigs: list[Rig]) -> None:
    policy = {"max_retries": 1, "retry_interval": 0.001}
    rig = await a_rig(rigs, {"a": {"retry_policy": policy}})
    rig.begin()
    await until(lambda: rig.orders)
    failure = st.Failure("once", "BROKE", {})
    rig.driver.deliver(st.AttemptFailed(0, 1, rig.clock.now_ms(), failure))
    await until(lambda: rig.orders["a"].attempt == 2)
    rig.done("a")
    await rig.running


async def test_a_stop_comes_after_the_starts_of_the_same_decision(rigs: list[Rig]) -> None:
    """One commit may hold a start and a stop; the order in which they are done must be safe."""
    rig = await a_rig(rigs, {"a": "", "b": ["a"], "c": ""})
    rig.begin()
    await until(lambda: len(rig.orders) == 2)
    rig.driver.deliver(
        rig.success("a", output(1)),
        st.AttemptFailed(2, 1, START_MS, st.Failure("broke", "BROKE", {})),
    )
    await rig.running
    assert "start b 1" not in rig.story
    assert rig.stops == []
