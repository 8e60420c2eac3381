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


def old_task(name: str, links: dict[str, list[str]], **more: Any) -> dict[str, Any]:
    """A task as WfFormat 1.4 has it: with its files and its runtime, and others by their names."""
    files = [
        {"link": link, "name": file, "sizeInBytes": 1} for link in links for file in links[link]
    ]
    return {"name": name, "type": "compute", "parents": [], "files": files, **more}


#: The same workflow as above. Dependencies are told by either end.
OLD_INSTANCE = {
    "name": "sample",
    "schemaVersion": "1.4",
    "workflow": {
        "makespanInSeconds": 30,
        "executedAt": "20200401T035039Z",
        "tasks": [
            old_task(
                "split.v1",
                {"input": ["outside.txt"], "output": ["a", "b"]},
                id="ID01",
                children=["left"],
                runtimeInSeconds=2.5,
            ),
            old_task("left", {"input": ["a"], "output": ["c"]}, id="ID02", runtimeInSeconds=10),
            old_task(
                "right",
                {"input": ["b"], "output": ["d"]},
                id="ID03",
                parents=["split.v1"],
                runtimeInSeconds=20,
            ),
            old_task(
                JOIN,
                {"input": ["c", "d", "outside.txt"], "output": ["e"]},
                id="ID04",
                parents=["left", "ID03"],
                runtimeInSeconds=None,
            ),
        ],
    },
}


def written(path: Path, document: object) -> str:
    path.write_text(json.dumps(document))
    return str(path)


def test_the_older_format_says_the_same(tmp_path: Path, instance: str) -> None:
    old = written(tmp_path / "old.json", OLD_INSTANCE)
    assert json.loads(call(old).stdout) == json.loads(call(instance).stdout)


def test_an_execution_is_checked_against_the_files_of_the_older_format(tmp_path: Path) -> None:
    for order, code in ((GOOD, 0), ([GOOD[0], GOOD[2], GOOD[1], *GOOD[3:]], 1)):
        assert check(tmp_path, order)[0] == code
        ran = call(
            *(written(tmp_path / "old.json", OLD_INSTANCE), "--check"),
            str(tmp_path / "events.json"),
        )
        assert ran.returncode == code, ran.stdout + ran.stderr


def test_tasks_of_the_older_format_whose_names_repeat_are_told_apart_by_id(tmp_path: Path) -> None:
    tasks = [old_task("work", {}, id=f"ID{number}") for number in range(3)]
    tasks[2]["parents"] = ["ID0", "ID1"]
    old = {**OLD_INSTANCE, "workflow": {"tasks": tasks}}
    made = json.loads(call(written(tmp_path / "old.json", old)).stdout)["tasks"]
    assert {name: task["depends_on"] for name, task in made.items()} == {
        "ID0": [],
        "ID1": [],
        "ID2": ["ID0", "ID1"],
    }


def test_the_newest_format_is_read_as_the_one_before(tmp_path: Path, instance: str) -> None:
    new = written(tmp_path / "new.json", {**INSTANCE, "schemaVersion": "1.6"})
    assert call(new).stdout == call(instance).stdout


def changed(**fields: Any) -> dict[str, Any]:
    """The instance with a first task that has other fields."""
    document = json.loads(json.dumps(INSTANCE))
    document["workflow"]["specification"]["tasks"][0] |= fields
    return dict(document)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "not WfFormat"),
        ([], "not WfFormat"),
        ({**INSTANCE, "schemaVersion": "1.3"}, "1.4"),
        ({**INSTANCE, "schemaVersion": ["1.5"]}, "1.4"),
        ({**INSTANCE, "schemaVersion": "1.4"}, "not WfFormat"),
        ({**INSTANCE, "workflow": None}, "not WfFormat"),
        ({**INSTANCE, "workflow": {"specification": {"tasks": [1]}}}, "not WfFormat"),
        (changed(id=None), "not WfFormat"),
        (changed(id=["x"]), "not WfFormat"),
        (changed(id="left"), "'left' repeats"),
        (changed(parents="left"), "parents"),
        (changed(parents=[1]), "parents"),
        (changed(parents=["nobody"]), "'nobody'"),
        (changed(inputFiles=[{}]), "inputFiles"),
        ({**INSTANCE, "name": 1}, "name"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, document: object, says: str) -> None:
    ran = call(written(tmp_path / "other.json", document))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("text", [b"{", b"", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(tmp_path: Path, instance: str, text: bytes) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(text)
    for arguments in ([str(path)], [instance, "--check", str(path)]):
        ran = call(*arguments)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.startswith("error: ")


@pytest.mark.parametrize(("recorded", "seconds"), [(None, 0), ("absent", 0), (2, 0.002)])
def test_a_runtime_may_be_missing(tmp_path: Path, recorded: object, seconds: float) -> None:
    document = changed()
    first = document["workflow"]["execution"]["tasks"][0]
    first["runtimeInSeconds"] = recorded
    if recorded == "absent":
        del first["runtimeInSeconds"]
    made = json.loads(call(written(tmp_path / "some.json", document)).stdout)
    assert made["tasks"]["split.v1"]["input"] == {"seconds": seconds}


@pytest.mark.parametrize("runtime", ["soon", float("nan"), float("inf"), -1, [], True])
def test_a_runtime_that_is_none_is_refused(tmp_path: Path, runtime: object) -> None:
    document = changed()
    document["workflow"]["execution"]["tasks"][0]["runtimeInSeconds"] = runtime
    ran = call(written(tmp_path / "some.json", document))
    assert (ran.returncode, "runtimeInSeconds" in ran.stderr) == (2, True)
    assert "Traceback" not in ran.stderr


def test_a_recording_without_an_execution_is_read(tmp_path: Path) -> None:
    for execution in ({}, {"execution": None}, {"execution": {"tasks": None}}):
        workflow = {"specification": changed()["workflow"]["specification"], **execution}
        ran = call(written(tmp_path / "some.json", {**INSTANCE, "workflow": workflow}))
        assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("scale", ["nan", "inf", "-1", "much"])
def test_a_scale_that_is_none_is_refused(instance: str, scale: str) -> None:
    ran = call(instance, f"--scale={scale}")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "--scale" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_place_that_cannot_be_written_is_named(instance: str, tmp_path: Path) -> None:
    ran = call(instance, "--output", str(tmp_path / "nowhere" / "workflow.json"))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: ")
    assert "nowhere" in ran.stderr


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    tasks = [task(f"t{number}", [], [], []) for number in range(5_000)]
    many = {**INSTANCE, "workflow": {"specification": {"tasks": tasks}}}
    path = written(tmp_path / "many.json", many)
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_events_are_read_as_the_command_line_prints_them(tmp_path: Path, instance: str) -> None:
    check(tmp_path, GOOD)
    events = json.loads((tmp_path / "events.json").read_text())
    lines = tmp_path / "events.jsonl"
    lines.write_text("".join(json.dumps(event) + "\n" for event in events))
    ran = call(instance, "--check", str(lines))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines.write_text(json.dumps(events[0]) + "\n")
    ran = call(instance, "--check", str(lines))
    assert (ran.returncode, "'left' never completed" in ran.stdout) == (1, True)
    lines.write_text("".join(f"{json.dumps(event)}\n" for event in events[:3]) + "{\n")
    ran = call(instance, "--check", str(lines))
    assert (ran.returncode, "line 4" in ran.stderr) == (2, True)


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([], "no events"),
        ({}, "no list of events"),
        ({"items": {}}, "no list of events"),
        ([1], "event 1"),
        ([{"seq": 1, "type": "x"}, None], "event 2"),
        ([{"type": "task_started"}], "seq"),
        ([{"seq": "1", "type": "task_started"}], "seq"),
        ([{"seq": 1}], "type"),
        ([{"seq": 1, "type": 5}], "type"),
        ([{"seq": 1, "type": "task_started", "data": [1]}], "data"),
        ([{"seq": 1, "type": "task_started", "data": {"task_name": []}}], "task_name"),
        ([{"seq": 1, "type": "task_started"}], "task_name"),
    ],
)
def test_what_is_no_list_of_events_is_refused(
    tmp_path: Path, instance: str, events: object, says: str
) -> None:
    ran = call(instance, "--check", written(tmp_path / "events.json", events))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr
