"""Every kind of process is killed while executions are under way: all of them come to their end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from harmonia_actors.runtime.shards import shard_of
from harmonia_serve.cli.installation.processes import runs
from tests.acceptance.service.conftest import BROADCASTERS
from tests.support.running import RunningService, until


def held(action: str, gate: Path) -> dict[str, Any]:
    """A workflow's tasks: one that waits at a gate, and one that needs its output."""
    return {
        "wait": {"component": "testing", "action": action, "input": {"path": str(gate)}},
        "then": {
            "component": "testing",
            "action": "add",
            "input": {"a": "${tasks.wait.output.attempt}", "b": 100},
            "depends_on": ["wait"],
        },
    }


class Flight:
    """An execution that waits at its gate, and the process that runs its attempt."""

    def __init__(self, service: RunningService, action: str, gate: Path) -> None:
        self.service = service
        self.gate = gate
        self.action = action
        self.execution_id = service.start(service.create(held(action, gate)))

    def told(self) -> tuple[int, int]:
        """Which process runs the attempt, and how often it has looked at the gate; else zeros."""
        task = self.service.status(self.execution_id)["task_status"]["wait"]
        if task["status"] != "running" or "message" not in task:
            return 0, 0
        runner, looks = task["message"].split()
        return int(runner), int(looks)

    def runner(self) -> int:
        """The process of the running attempt, once it has told."""
        return int(until(lambda: self.told()[0], 60, f"{self.execution_id} in flight"))

    def wait_heard(self) -> None:
        """Wait until somebody takes in what the running attempt reports."""
        before = self.told()
        until(lambda: self.told() != before, 60, f"an owner of {self.execution_id}")

    def wait_moved(self, former: int) -> None:
        """Wait until an attempt runs in another process than before."""
        until(lambda: self.told()[0] not in (0, former), 60, f"another run of {self.execution_id}")

    def land(self, attempt: int) -> None:
        """Open the gate; the execution completes with this attempt, told exactly once."""
        self.gate.touch()
        found = self.service.finish(self.execution_id)
        assert found["status"] == "completed", found["error"]
        assert found["output"] == {"sum": 100 + attempt}
        assert found["task_status"]["wait"]["attempt"] == attempt
        events = self.service.events(self.execution_id)
        assert [int(event["id"]) for event in events] == list(range(1, len(events) + 1))
        # What is lost counts as no failure of the task's own: its retries are not used up.
        for event in events:
            if event["event"] == "task_failed":
                assert event["data"]["error_details"]["code"] == "WORKER_LOST"
                assert event["data"]["will_retry"]
                assert event["data"]["retry_count"] == event["data"]["max_retries"] == 0
        told = [
            (event["event"], event["data"].get("task_name"), event["data"].get("attempt"))
            for event in events
            if event["event"] != "task_progress"
        ]
        starts = [
            (kind, "wait", number)
            for number in range(1, attempt)
            for kind in ("task_started", "task_failed")
        ]
        # What follows a plain task was handed out along with it, and might have run as well.
        behind = attempt if self.action == "hold" else 1
        assert told == [
            ("execution_started", None, None),
            *starts,
            ("task_started", "wait", attempt),
            ("task_completed", "wait", attempt),
            ("task_started", "then", behind),
            ("task_completed", "then", behind),
            ("execution_completed", None, None),
        ]


@pytest.fixture
def fly(service: RunningService, tmp_path: Path) -> Iterator[Any]:
    """Start flights that share a gate of their own test."""

    gate = tmp_path / "gate"
    yield lambda action: Flight(service, action, gate)
    gate.touch()


def actors(service: RunningService, kind: str) -> list[psutil.Process]:
    """The processes of all actors of a class."""
    found = []
    for process in service.processes():
        try:
            words = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if words and words[0].startswith(f"ray::{kind}"):
            found.append(process)
    return found


def starting(service: RunningService) -> int | None:
    """How many execution actors are starting; None if that is not known."""
    pools = service.api.get("/service").json().get("pools", {})
    found: int | None = pools.get("execution_actors_starting")
    return found


def kill(processes: list[psutil.Process]) -> None:
    """SIGKILL to each, at once; there must be one."""
    assert processes
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=10)


@pytest.mark.parametrize(
    ("kinds", "spared"),
    [
        (["ExecutionActor"], 0),
        # The one that is spared takes over at once, while nobody can tell it who the task actors
        # are: the pool, which knows them, is only just being restarted.
        (["TaskPool", "ExecutionActor"], 1),
        (["TaskPool", "ExecutionActor", "Supervisor", "Broadcaster"], 0),
    ],
    ids=["owners", "pool and owners", "all that coordinate"],
)
def test_running_attempts_are_adopted_by_new_owners(
    kinds: list[str], spared: int, service: RunningService, fly: Any
) -> None:
    flights = [fly("hold"), fly("hold_async"), fly("hold_async")]
    runners = [flight.runner() for flight in flights]
    kill(
        [
            process
            for kind in kinds
            for process in actors(service, kind)[spared * (kind != kinds[0]) :]
        ]
    )
    later = fly("hold_async")
    for flight in flights:
        flight.wait_heard()
    assert [flight.runner() for flight in flights] == runners
    for flight in [*flights, later]:
        flight.land(attempt=1)


def test_an_owner_that_wakes_after_it_was_succeeded_changes_nothing_and_ends(
    service: RunningService, fly: Any
) -> None:
    """As after kill -STOP: it still believes that it has everything, and everything has gone on."""
    flights = [fly("hold"), fly("hold_async"), fly("hold_async")]
    runners = [flight.runner() for flight in flights]
    # One that is stopped while it starts is no owner yet, and just goes on when it wakes.
    until(lambda: starting(service) == 0, 60, "no execution actor starting")
    # One goes on, and can take over at once; no two of the flights need be with it.
    asleep = actors(service, "ExecutionActor")[1:]
    assert asleep
    for owner in asleep:
        owner.suspend()
    try:
        # The first time may be what was on its way to the store when its owner was stopped.
        for flight in [*flights, *flights]:
            flight.wait_heard()
    finally:
        for owner in asleep:
            owner.resume()
    until(lambda: not any(map(runs, asleep)), 60, "the end of those that woke")
    assert [flight.runner() for flight in flights] == runners
    for flight in flights:
        flight.land(attempt=1)
        audit = service.api.get(f"/executions/{flight.execution_id}/audit").json()
        assert audit["violations"] == []


def test_an_attempt_whose_process_is_killed_is_started_again(
    service: RunningService, fly: Any
) -> None:
    flight = fly("hold")
    first = flight.runner()
    kill([psutil.Process(first)])
    flight.wait_moved(first)
    flight.land(attempt=2)


def test_async_attempts_outlive_the_process_that_they_share(
    service: RunningService, fly: Any
) -> None:
    flights = [fly("hold_async") for _ in range(3)]
    first = flights[0].runner()
    assert {flight.runner() for flight in flights} == {first}
    kill([psutil.Process(first)])
    for flight in flights:
        flight.wait_moved(first)
    for flight in flights:
        flight.land(attempt=2)


@pytest.mark.parametrize("dead", [slice(1), slice(1, 2), slice(2)], ids=["one", "other", "both"])
def test_subscribers_miss_nothing_when_a_broadcaster_dies(
    service: RunningService, fly: Any, dead: slice
) -> None:
    """Some executions are of its share, and some are not, while all of them go on reporting."""
    until(lambda: len(actors(service, "Broadcaster")) == BROADCASTERS, 60, "all broadcasters")
    flights = [fly("hold_async") for _ in range(6)]
    while len({shard_of(flight.execution_id, BROADCASTERS) for flight in flights}) < BROADCASTERS:
        flights.append(fly("hold_async"))
    for flight in flights:
        flight.runner()
    with ThreadPoolExecutor(len(flights)) as threads:
        live = [threads.submit(service.events, flight.execution_id) for flight in flights]
        for flight in flights:
            flight.wait_heard()
        kill(sorted(actors(service, "Broadcaster"), key=lambda process: process.pid)[dead])
        for flight in flights:
            flight.land(attempt=1)
        for flight, seen in zip(flights, live, strict=True):
            assert seen.result(60) == service.events(flight.execution_id)
    until(lambda: len(actors(service, "Broadcaster")) == BROADCASTERS, 60, "another broadcaster")


@pytest.mark.parametrize("kind", ["Supervisor", "TaskPool"])
def test_what_runs_and_what_comes_does_not_need_it_alive(
    kind: str, service: RunningService, fly: Any
) -> None:
    flights = [fly("hold"), fly("hold_async")]
    for flight in flights:
        flight.runner()
    before = actors(service, kind)
    kill(before)
    after = fly("hold_async")
    until(lambda: actors(service, kind), 60, f"another {kind}")
    for flight in [*flights, after]:
        flight.land(attempt=1)
    later = fly("hold")
    later.land(attempt=1)
