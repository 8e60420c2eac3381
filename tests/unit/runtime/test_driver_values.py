"""What a driver does with values: inputs, outputs of any size, timers, stops."""

from __future__ import annotations

import asyncio

import pytest

from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.events import FINAL_EVENT_TYPES
from harmonia_actors.core.execution import Execution
from harmonia_actors.core.records import decode_head, decode_row
from harmonia_actors.runtime.driver import ExecutionDriver
from harmonia_actors.runtime.event_hub import parse_event
from tests.support.executions import EXECUTION_ID, START_MS, output
from tests.support.owning import claim
from tests.support.scripted_actors import until
from tests.unit.runtime.driver_rig import Rig, a_rig

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
    loaded = await claim(rig.store, EXECUTION_ID, "other")
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
    rig.store._holdings._outputs.clear()
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
    rig.store._holdings._outputs.clear()
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
