"""Executions that end each process that drives them, among others that do no harm, on real Ray."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.core.quarantine import quarantine_error
from harmonia_serve.cli.installation.ray_environment import ray_directory
from tests.acceptance.service.test_deaths import Flight, actors
from tests.support.deadly import JOURNAL, deaths
from tests.support.running import FINAL, RunningService, running_service, until

#: Not the default, so that it is seen to be heeded.
CRASHES_MAX = 4
NEIGHBOURS = 6

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service with so few execution actors that executions share them."""
    data_dir = tmp_path_factory.mktemp("quarantine") / "data"
    settings = {
        JOURNAL: str(journal_of(data_dir)),
        "HARMONIA_EXECUTION_ACTORS_MAX": "2",
        "HARMONIA_QUARANTINE_CRASHES": str(CRASHES_MAX),
        # However slow the machine is, who is to die does so before it would count as harmless.
        "HARMONIA_SUSPECT_CALM_S": "1",
    }
    components = "tests.support.actions,tests.support.deadly"
    with running_service(data_dir, "--components", components, settings=settings) as running:
        yield running


def journal_of(data_dir: Path) -> Path:
    return data_dir.parent / "deaths"


def aboard(service: RunningService, pid: int) -> set[str]:
    """Executions that an execution actor's process has ever had, by its log."""
    (log,) = ray_directory(service.data_dir).rglob(f"worker-*-{pid}.err")
    return set(re.findall(r" has execution (\S+), epoch ", log.read_text()))


def died_of(service: RunningService, action: str) -> list[int]:
    return [pid for name, pid in deaths(journal_of(service.data_dir)) if name == action]


@pytest.fixture
def neighbours(service: RunningService, tmp_path: Path) -> Iterator[list[Flight]]:
    """Executions in flight, on the same execution actors as what the test starts."""
    gate = tmp_path / "gate"
    found = [Flight(service, "hold_async", gate) for _ in range(NEIGHBOURS)]
    for flight in found:
        flight.runner()
    yield found
    gate.touch()


def ended(service: RunningService, execution_id: str) -> dict[str, Any]:
    """Its last status; all the while the service answers."""

    def final() -> dict[str, Any] | None:
        found = service.status(execution_id)
        return found if found["status"] in FINAL else None

    found: dict[str, Any] = until(final, 180, f"the end of {execution_id}")
    return found


def check_quarantined(service: RunningService, found: dict[str, Any], crashes: int) -> None:
    """Failed with the error that says why, told once and as the last."""
    error = quarantine_error(crashes)
    assert found["status"] == "failed"
    assert {name: found["error"][name] for name in error} == error
    execution_id = found["execution_id"]
    events = service.events(execution_id)
    assert [int(event["id"]) for event in events] == list(range(1, len(events) + 1))
    ends = [event for event in events if event["event"] == "execution_failed"]
    assert ends == events[-1:]
    assert ends[0]["data"]["error"]["code"] == "quarantined"
    check_audit(service, execution_id)


def check_audit(service: RunningService, execution_id: str) -> None:
    assert service.api.get(f"/executions/{execution_id}/audit").json()["violations"] == []


def check_others(
    service: RunningService, neighbours: list[Flight], runners: list[int], died: list[int]
) -> None:
    """Those that were aboard at the first death go on, and nothing of them is run again."""
    ids = {flight.execution_id for flight in neighbours}
    assert aboard(service, died[0]) & ids, "it was alone from the beginning"
    for flight in neighbours:
        flight.wait_heard()
    assert [flight.runner() for flight in neighbours] == runners
    for flight in neighbours:
        flight.land(attempt=1)
        check_audit(service, flight.execution_id)
    # The service is whole: it has not been started again, and what comes now runs.
    assert service.process.poll() is None
    assert service.is_ready()
    until(lambda: len(actors(service, "ExecutionActor")) >= 2, 60, "as many owners as before")
    done = service.run({"a": {"component": "testing", "action": "add", "input": {"a": 1, "b": 2}}})
    assert done["output"] == {"sum": 3}


def test_what_kills_its_owners_at_its_next_step_is_failed_task_by_task(
    service: RunningService, neighbours: list[Flight], tmp_path: Path
) -> None:
    runners = [flight.runner() for flight in neighbours]
    gate = tmp_path / "deadly"
    held = {"component": "testing", "action": "hold_async"}
    deadly = service.start(
        service.create(
            {
                "first": {**held, "input": {"path": str(gate)}},
                "beside": {**held, "input": {"path": str(tmp_path / "never")}},
                "kills": {
                    "component": "deadly",
                    "action": "once_planned",
                    "input": {"word": "${tasks.first.output.attempt}"},
                    "depends_on": ["first"],
                },
                "after": {"component": "harmonia", "action": "noop", "depends_on": ["kills"]},
            }
        )
    )
    service.wait_running(deadly, "first", "beside")
    assert died_of(service, "once_planned") == []
    gate.touch()
    found = ended(service, deadly)
    died = died_of(service, "once_planned")
    assert len(set(died)) == len(died) == CRASHES_MAX
    check_quarantined(service, found, CRASHES_MAX)
    # What it did before it became deadly counts, and what ran beside that was stopped. What made it
    # deadly has never begun.
    assert {name: task["status"] for name, task in found["task_status"].items()} == {
        "first": "completed",
        "beside": "cancelled",
        "kills": "skipped",
        "after": "skipped",
    }
    check_others(service, neighbours, runners, died)


def test_what_kills_its_owners_by_being_loaded_is_failed_by_its_head(
    service: RunningService, neighbours: list[Flight]
) -> None:
    runners = [flight.runner() for flight in neighbours]
    deadly = service.start(
        service.create(
            {
                "kills": {"component": "deadly", "action": "once_loaded"},
                "after": {"component": "harmonia", "action": "noop", "depends_on": ["kills"]},
            }
        )
    )
    found = ended(service, deadly)
    died = died_of(service, "once_loaded")
    # The last one had only wanted to fail it, task by task.
    assert len(set(died)) == len(died) == CRASHES_MAX + 1
    check_quarantined(service, found, CRASHES_MAX + 1)
    check_others(service, neighbours, runners, died)
