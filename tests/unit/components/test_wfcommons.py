"""The example that converts recorded workflows, and checks an execution against the recording."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "examples" / "wfcommons.py"


def task(name: str, parents: list[str], inputs: list[str], outputs: list[str]) -> dict[str, Any]:
    return {
        "id": name,
        "name": "same for all",
        "parents": parents,
        "children": [],
        "inputFiles": inputs,
        "outputFiles": outputs,
    }


INSTANCE = {
    "name": "sample",
    "schemaVersion": "1.5",
    "workflow": {
        "specification": {
            "tasks": [
                task("split.v1", [], ["outside.txt"], ["a", "b"]),
                task("left", ["split.v1"], ["a"], ["c"]),
                task("right", ["split.v1"], ["b"], ["d"]),
                task("NF.CORE:join (x)", ["left", "right"], ["c", "d", "outside.txt"], ["e"]),
            ],
            "files": [],
        },
        "execution": {
            "tasks": [
                {"id": "split.v1", "runtimeInSeconds": 2.5},
                {"id": "left", "runtimeInSeconds": 10},
                {"id": "right", "runtimeInSeconds": 20},
            ]
        },
    },
}
JOIN = "NF.CORE:join (x)"
GOOD = [
    *(("split.v1", "started"), ("split.v1", "completed"), ("left", "started")),
    *(("right", "started"), ("right", "completed"), ("left", "completed")),
    *((JOIN, "started"), (JOIN, "completed")),
]


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )


def check(tmp_path: Path, order: list[tuple[str, str]], **change: Any) -> tuple[int, str]:
    events = [{"seq": 1, "type": "execution_started", "data": {}}]
    for name, what in order:
        data = {"task_name": name}
        events.append({"seq": len(events) + 1, "type": f"task_{what}", "data": data})
    events.append({"seq": len(events) + 1, "type": "execution_completed", "data": {}})
    for at in change.get("without", []):
        del events[at]
    (tmp_path / "instance.json").write_text(json.dumps(INSTANCE))
    wrapped = {"items": events} if change.get("wrapped") else events
    (tmp_path / "events.json").write_text(json.dumps(wrapped))
    ran = call(str(tmp_path / "instance.json"), "--check", str(tmp_path / "events.json"))
    return ran.returncode, ran.stdout + ran.stderr


@pytest.fixture
def instance(tmp_path: Path) -> str:
    path = tmp_path / "instance.json"
    path.write_text(json.dumps(INSTANCE))
    return str(path)


def test_tasks_keep_their_ids_dependencies_and_scaled_runtimes(instance: str) -> None:
    workflow = json.loads(call(instance, "--scale", "0.01").stdout)
    assert workflow["name"] == "sample"
    assert list(workflow["tasks"]) == ["split.v1", "left", "right", JOIN]
    assert workflow["tasks"]["right"] == {
        "name": "right",
        "component": "harmonia",
        "action": "sleep",
        "input": {"seconds": 0.2},
        "depends_on": ["split.v1"],
    }
    assert workflow["tasks"][JOIN]["depends_on"] == ["left", "right"]
    assert workflow["tasks"][JOIN]["input"] == {"seconds": 0}


def test_the_workflow_can_be_of_no_ops_and_go_to_a_file(instance: str, tmp_path: Path) -> None:
    target = tmp_path / "workflow.json"
    ran = call(instance, "--action", "noop", "--output", str(target))
    assert (ran.returncode, ran.stdout) == (0, "")
    tasks = json.loads(target.read_text())["tasks"]
    assert {(made["action"], str(made["input"])) for made in tasks.values()} == {("noop", "{}")}


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_right_order_passes(tmp_path: Path, wrapped: bool) -> None:
    code, said = check(tmp_path, GOOD, wrapped=wrapped)
    assert code == 0, said
    assert "4 tasks" in said


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ([GOOD[0], GOOD[2], GOOD[1], *GOOD[3:]], "'left' started before ['split.v1'] completed"),
        ([*GOOD[:5], GOOD[6], GOOD[5], GOOD[7]], f"'{JOIN}' started before ['left'] completed"),
        (GOOD[:-1], f"'{JOIN}' never completed"),
        ([*GOOD, GOOD[-1]], f"'{JOIN}' completed again"),
        ([GOOD[0], *GOOD[1:6], GOOD[7]], f"'{JOIN}' completed without a start"),
        ([*GOOD, ("other", "started")], "'other' is not in the file"),
    ],
)
def test_a_wrong_order_is_told(tmp_path: Path, order: list[tuple[str, str]], says: str) -> None:
    code, said = check(tmp_path, order)
    assert code == 1
    assert says in said


def test_missing_events_are_told(tmp_path: Path) -> None:
    assert "gaps" in check(tmp_path, GOOD, without=[0, 3])[1]
    assert "no execution_completed" in check(tmp_path, GOOD, without=[-1])[1]
    assert check(tmp_path, GOOD, without=[-1])[0] == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "error"),
        ("{}", "not WfFormat"),
        ("[]", "not WfFormat"),
        (json.dumps({**INSTANCE, "schemaVersion": "1.4"}), "reads 1.5"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    ran = call(str(path))
    assert ran.returncode == 2
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr
