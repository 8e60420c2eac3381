"""Decide, commit, perform, publish: in that order, whatever the store does meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.execution import Execution
from harmonia_actors.runtime.event_hub import parse_event
from persistence.errors import StaleOwner
from persistence.store import Commit, InboxEntry
from tests.support.executions import EXECUTION_ID, START_MS, failed, new_head, output
from tests.support.owning import claim
from tests.support.scripted_actors import ManualClock, settle, until
from tests.unit.runtime.driver_rig import Rig, a_rig


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
    await claim(rig.store, EXECUTION_ID, "other")
    story = list(rig.story)
    rig.done("a")
    async with asyncio.timeout(10):
        await rig.running
    assert rig.driver.superseded
    assert rig.driver.ended.is_set()
    assert rig.story == story, "something was done or told without a commit"
    assert rig.stale == {"commits_refused": 1}


async def test_an_end_that_was_not_written_is_no_end(rigs: list[Rig]) -> None:
    """Who waits for it would be told what another owner may contradict."""
    for is_succeeded in (False, True):
        rig = await a_rig(rigs, {"a": ""})
        rig.begin()
        await until(lambda rig=rig: rig.orders)
        if is_succeeded:
            await claim(rig.store, EXECUTION_ID, "other")
        rig.done("a")
        async with asyncio.timeout(10):
            await rig.running
        assert rig.driver.superseded == is_succeeded
        assert (rig.driver.ending is None) == is_succeeded


async def test_a_driver_that_lost_count_gives_up_its_execution(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, {"a": ""})
    execution = Execution(workflow=rig.workflow, head=new_head(rig.workflow))
    lost = rig.make_driver(execution, version=9)
    lost.deliver(st.StartRequested(START_MS))
    await lost.run()
    assert lost.superseded
    assert rig.orders == {}


async def test_a_stale_owner_is_refused_by_the_store_itself(rigs: list[Rig]) -> None:
    for successor in ("other", "me"):
        rig = await a_rig(rigs, {"a": ""})
        await claim(rig.store, EXECUTION_ID, successor)
        with pytest.raises(StaleOwner):
            await rig.store.commit(Commit(EXECUTION_ID, "me", 1, 2, 1, fields={"head": b"{}"}))


async def test_how_many_reports_did_not_count_is_said_at_the_end(
    rigs: list[Rig], caplog: pytest.LogCaptureFixture
) -> None:
    rig = await a_rig(rigs, {"a": ""})
    rig.begin()
    await until(lambda: rig.orders)
    with caplog.at_level("INFO", "harmonia_actors"):
        rig.driver.deliver(
            st.AttemptSucceeded(0, 7, START_MS, output("forged")), st.AttemptStarted(0, 7, START_MS)
        )
        await settle()
        rig.done("a")
        await rig.running
    assert "2 reports did not count" in caplog.text
    assert rig.stale == {"reports_ignored": 2}


# Clocks that disagree ----------------------------------------------------------------------------


HOUR_MS = 3_600_000


@pytest.mark.parametrize("off_ms", [-HOUR_MS, -500, HOUR_MS])
async def test_a_retry_counts_from_when_the_failure_was_heard_of(
    rigs: list[Rig], off_ms: int
) -> None:
    """By the clock of whoever tells of it, it would come at once, or an hour late."""
    rig = await a_rig(rigs, {"a": {"retry_policy": {"max_retries": 1, "retry_interval": 5}}})
    rig.begin()
    await until(lambda: rig.orders)
    rig.driver.deliver(st.AttemptFailed(0, 1, START_MS + off_ms, failed()))
    await until(lambda: rig.driver.execution.rows[0].retry_at_ms)
    assert rig.driver.execution.rows[0].retry_at_ms == START_MS + 5_000


@pytest.mark.parametrize(
    ("off_ms", "counts_from"), [(-HOUR_MS, 0), (-2_000, 0), (-300, -300), (0, 0), (HOUR_MS, 0)]
)
async def test_a_start_is_dated_by_whoever_tells_of_it_unless_his_clock_must_be_wrong(
    rigs: list[Rig], off_ms: int, counts_from: int
) -> None:
    """The timeout counts from there: it must neither come at once nor an hour late."""
    rig = await a_rig(rigs, {"a": {"timeout": 60}})
    rig.begin()
    await until(lambda: rig.orders)
    rig.driver.deliver(st.AttemptStarted(0, 1, START_MS + off_ms))
    await until(lambda: rig.driver.execution.rows[0].started_ms)
    assert rig.driver.execution.rows[0].started_ms == START_MS + counts_from


async def test_nothing_ends_before_it_has_begun_however_late_its_start_is_heard_of(
    rigs: list[Rig],
) -> None:
    """A start that is too old to be believed is dated anew, and its outcome then may seem older."""
    rig = await a_rig(rigs, {"a": {}})
    rig.begin()
    await until(lambda: rig.orders)
    rig.driver.deliver(st.AttemptStarted(0, 1, START_MS - 1_500))
    rig.driver.deliver(st.AttemptSucceeded(0, 1, START_MS - 500, output("1")))
    await until(lambda: rig.driver.execution.rows[0].completed_ms)
    row = rig.driver.execution.rows[0]
    assert row.started_ms is not None
    assert row.completed_ms is not None
    assert row.started_ms <= row.completed_ms


class ClockThatIsSet(ManualClock):
    """What goes on evenly from here is another one."""

    def steady(self) -> ManualClock:
        return ManualClock(self.at_ms)


@pytest.mark.parametrize("by_ms", [-HOUR_MS, HOUR_MS])
async def test_a_driver_keeps_its_time_whatever_clock_is_set(rigs: list[Rig], by_ms: int) -> None:
    rig = Rig({"a": {"retry_policy": {"max_retries": 1, "retry_interval": 5}}})
    rig.clock = ClockThatIsSet(START_MS)
    rigs.append(rig)
    await rig.create()
    rig.begin()
    await until(lambda: rig.orders)
    rig.clock.at_ms += by_ms
    rig.driver.deliver(st.AttemptFailed(0, 1, START_MS, failed()))
    await until(lambda: rig.driver.execution.rows[0].retry_at_ms)
    assert rig.driver.execution.rows[0].retry_at_ms == START_MS + 5_000


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


async def test_large_outputs_that_come_together_are_written_in_parts(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, {f"t{n}": "" for n in range(4)})
    rig.begin()
    await until(lambda: len(rig.orders) == 4)
    rig.driver.deliver(*(rig.success(f"t{n}", output("x" * 5_000_000)) for n in range(4)))
    await rig.running
    sizes = [sum(map(len, commit.outputs.values())) for commit in rig.store.commits]
    assert len([size for size in sizes if size > 5_000_000]) >= 2
    assert max(sizes) < 16_000_000


# What goes wrong beside the loop -----------------------------------------------------------------


async def test_an_error_while_values_are_read_ends_the_driver(rigs: list[Rig]) -> None:
    rig = await a_rig(
        rigs, {"a": "", "b": {"depends_on": ["a"], "input": {"value": "${tasks.a.output}"}}}
    )
    rig.begin()
    await until(lambda: "a" in rig.orders)
    rig.store.breaks_reads = RuntimeError("a defect")
    # Too large to be remembered: it is read from the store.
    rig.done("a", "x" * 20_000_000)
    with pytest.raises(RuntimeError, match="a defect"):
        await rig.running
    assert rig.driver.ended.is_set()


async def test_only_so_many_attempts_are_out_and_others_can_be_stopped(rigs: list[Rig]) -> None:
    rig = await a_rig(rigs, {f"t{n}": "" for n in range(5)})
    rig.room.attempts_max = 2
    rig.begin()
    await until(lambda: len(rig.orders) == 2)
    rig.done("t0")
    await until(lambda: "t2" in rig.orders)
    rig.driver.deliver(st.CancelRequested(START_MS))
    await until(lambda: len(rig.stops) == 2)
    for name, _ in list(rig.stops):
        task = rig.workflow.by_name[name].index
        rig.driver.deliver(st.AttemptStopped(task, 1, START_MS))
    await rig.running
    assert sorted(rig.orders) == ["t0", "t1", "t2"]
    assert rig.driver.execution.head.status == "cancelled"


# Inputs and outputs ------------------------------------------------------------------------------
