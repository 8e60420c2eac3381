"""Log lines on a real service: live while a command runs, and kept when its worker dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.running import RunningService, parse_sse

#: Says who it is, and goes on when a file is there.
CODE = """
import os, pathlib, sys, time
print(os.getpid(), flush=True)
print("careful", file=sys.stderr, flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.02)
print("the end")
"""


def waiting(gate: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", CODE, str(gate)]
    return {
        "wait": {
            "component": "ergon",
            "action": "execute_command",
            "input": {"command": command},
        }
    }


def lines_of(
    service: RunningService, execution_id: str, query: str
) -> Iterator[tuple[str, int, str, str]]:
    """Id, attempt, stream and text of each line, as they come."""
    url = f"{service.url}/events/harmonia/executions/{execution_id}?{query}"
    headers = {"X-API-Key": service.key}
    with httpx.stream("GET", url, headers=headers, timeout=90, trust_env=False) as answer:
        assert answer.status_code == 200
        for event in parse_sse(answer.iter_lines()):
            data = event["data"]
            for line in data["lines"]:
                yield event["id"], data["attempt"], line["stream"], line["text"]


def runner_of(command: psutil.Process) -> psutil.Process:
    """The worker that runs a command, which has a guard between them."""
    guard = command.parent()
    worker = guard.parent() if guard is not None else None
    assert worker is not None
    return worker


def test_lines_come_while_the_command_runs_and_outlive_its_worker(
    service: RunningService, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    execution_id = service.start(service.create(waiting(gate)))
    live = lines_of(service, execution_id, "type=task_log")
    first = [next(live), next(live)]
    assert sorted((stream, attempt) for _, attempt, stream, _ in first) == [
        ("stderr", 1),
        ("stdout", 1),
    ]
    (pid,) = (int(text) for _, _, stream, text in first if stream == "stdout")
    runner_of(psutil.Process(pid)).kill()
    second = next(each for each in live if each[1] == 2 and each[2] == "stdout")
    assert second[3] != first[0][3]
    gate.touch()
    rest = list(live)
    assert rest[-1][1:] == (2, "stdout", "the end")
    final = service.finish(execution_id)
    assert final["task_status"]["wait"]["attempt"] == 2
    # What the lost attempt had told is there, and a stream resumes after any line.
    whole = list(lines_of(service, execution_id, "type=task_log"))
    assert [each for each in whole if each[1] == 1] == first
    again = list(lines_of(service, execution_id, f"type=task_log&after={second[0]}"))
    assert again == [each for each in whole if _place(each[0]) > _place(second[0])]
    # For all others it is as if there were none.
    plain = service.events(execution_id)
    assert [int(event["id"]) for event in plain] == list(range(1, len(plain) + 1))
    assert "task_log" not in {event["event"] for event in plain}
    audit = service.api.get(f"/executions/{execution_id}/audit").json()
    assert (audit["violations"], audit["events"]) == ([], len(plain))


def _place(event_id: str) -> tuple[int, ...]:
    return tuple(map(int, event_id.split("-")))


def test_the_command_line_shows_them(service: RunningService, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    execution_id = service.start(service.create(waiting(gate)))
    command = [sys.executable, "-m", "harmonia_serve.cli", "executions", "logs", execution_id]
    shown = subprocess.run(
        [*command, "--follow", "--json", "--url", service.url],
        env={**os.environ, "HARMONIA_API_KEY": service.key},
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert {(line["stream"], line["text"]) for line in lines} >= {
        ("stdout", "the end"),
        ("stderr", "careful"),
    }
    assert {line["task_name"] for line in lines} == {"wait"}
