"""Both clients and the command line ask the real service for how an execution stands."""

from __future__ import annotations

import json

import pytest

from harmonia_serve.client import AsyncHarmoniaClient, Event, HarmoniaClient, ValidationFailed
from tests.support.local_service import LocalService
from tests.unit.cli.conftest import Harmonia, harmonia
from tests.unit.client.test_client import cutting_proxy

__all__ = ["harmonia"]

COUNT = 60
WORKFLOW = {
    "name": "many",
    "tasks": {f"t{n}": {"component": "harmonia", "action": "noop"} for n in range(COUNT)},
}


def check(told: list[Event]) -> None:
    """Far fewer than the 122 events, in order, and right at the end."""
    assert told[0]["type"] == "execution_started"
    assert {event["type"] for event in told[1:-1]} == {"execution_progress"}
    assert told[-1]["type"] == "execution_completed"
    assert told[-1]["seq"] == 2 * COUNT + 2
    assert len(told) < COUNT
    seqs = [event["seq"] for event in told]
    assert seqs == sorted(set(seqs))
    last = told[-2]["data"]
    assert (last["progress"], last["total_tasks"]) == (1.0, COUNT)
    assert last["tasks"]["completed"] == COUNT


def test_progress_is_followed_live_and_found_afterwards(client: HarmoniaClient) -> None:
    execution = client.run(WORKFLOW)
    check(list(execution.progress()))
    found = list(execution.progress())
    check(found)
    # Afterwards there is one state to tell of.
    assert len(found) == 3
    assert list(execution.progress(after=found[1]["seq"])) == found[2:]
    assert list(execution.progress(after=found[2]["seq"])) == []


async def test_the_async_client_follows_it_too(service: LocalService) -> None:
    async with AsyncHarmoniaClient(service.url, service.api_key) as client:
        execution = await client.run(WORKFLOW)
        check([event async for event in execution.progress()])


def test_a_cut_summary_is_resumed(service: LocalService, client: HarmoniaClient) -> None:
    execution = client.run(WORKFLOW)
    execution.wait(timeout=30)
    whole = list(execution.progress())
    with (
        # Room for the headers and one message each.
        cutting_proxy(service.url, bytes_each=[800, 1_150]) as (url, connections),
        HarmoniaClient(url, service.api_key) as cut,
    ):
        assert list(cut.execution(execution.id).progress()) == whole
    assert len(connections) >= 3


def test_what_cannot_be_summed_up_is_refused(client: HarmoniaClient) -> None:
    with pytest.raises(TypeError, match="detail: only the events of one execution"):
        next(client.events(detail="summary"))
    execution = client.run(WORKFLOW)
    with pytest.raises(ValidationFailed, match="detail"):
        next(client.events(execution.id, detail="summary", task="t1"))
    execution.wait(timeout=30)


@pytest.fixture
def command(service: LocalService, harmonia: Harmonia, monkeypatch: pytest.MonkeyPatch) -> Harmonia:
    """The command line, for this service."""
    monkeypatch.setenv("HARMONIA_URL", service.url)
    monkeypatch.setenv("HARMONIA_API_KEY", service.api_key)
    return harmonia


def test_the_command_prints_how_it_stands(client: HarmoniaClient, command: Harmonia) -> None:
    execution = client.run(WORKFLOW)
    execution.wait(timeout=30)
    for more in ((), ("--follow",)):
        shown = command("executions", "events", execution.id, "--summary", *more)
        lines = shown.out.splitlines()
        assert [line.split()[1] for line in lines] == [
            "execution_started",
            "execution_progress",
            "execution_completed",
        ]
        assert lines[1].endswith(f"100%  {COUNT} of {COUNT} tasks")
    raw = command("executions", "events", execution.id, "--summary", "--json").out
    assert [json.loads(line) for line in raw.splitlines()] == list(execution.progress())


def test_a_failure_is_counted_in_the_line(client: HarmoniaClient, command: Harmonia) -> None:
    fails = {"component": "harmonia", "action": "fail", "input": {"message": "no"}}
    after = {"component": "harmonia", "action": "noop", "depends_on": ["f"]}
    execution = client.run({"name": "f", "tasks": {"f": fails, "g": after}})
    execution.wait(timeout=30)
    shown = command("executions", "events", execution.id, "--summary")
    assert "0%  0 of 2 tasks, 1 failed, 1 skipped" in shown.out
