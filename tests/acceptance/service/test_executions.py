"""What an execution does, seen from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.running import RunningService, until
from tests.unit.components.test_wfcommons import INSTANCE, SCRIPT

Task = dict[str, Any]


def task(action: str, depends_on: list[str] | None = None, **more: Any) -> Task:
    """A task that calls an action of the component `testing`."""
    settings = {
        key: more.pop(key) for key in ("timeout", "retry_policy", "resources") if key in more
    }
    return {
        "component": "testing",
        "action": action,
        "input": more,
        "depends_on": depends_on or [],
        **settings,
    }


def noop(depends_on: list[str] | None = None) -> Task:
    return {"component": "harmonia", "action": "noop", "depends_on": depends_on or []}


def command(text: str, **more: Any) -> Task:
    return {
        "component": "ergon",
        "action": "execute_command",
        "input": {"command": text},
        **more,
    }


def types_of(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def test_tasks_run_in_the_order_of_their_dependencies(service: RunningService) -> None:
    tasks = {
        "a": task("add", a=1, b=2),
        "b": task("add", ["a"], a="${tasks.a.output.sum}", b="${workflow.input.n}"),
    }
    done = service.run(tasks, {"n": 39})
    assert done["status"] == "completed"
    assert done["output"] == {"sum": 42}
    first, second = done["task_status"]["a"], done["task_status"]["b"]
    assert first["completed_ms"] <= second["started_ms"]


def test_independent_tasks_run_at_the_same_time(service: RunningService) -> None:
    done = service.run(
        {"one": task("meet", me="one", other="two"), "two": task("meet", me="two", other="one")}
    )
    assert done["status"] == "completed", done["error"]


def test_references_keep_types_and_defaults_apply(service: RunningService) -> None:
    value = {"list": [1, 2.5, None, True], "text": "${workflow.input.other}"}
    tasks = {
        "say.it": {
            "component": "harmonia",
            "action": "echo",
            "input": {
                "value": {
                    "whole": "${workflow.input.value}",
                    "inside": "n=${workflow.input.n} l=${workflow.input.value.list}",
                    "fallback": "${workflow.input.missing ?? 7}",
                    "escaped": "$${workflow.input.n}",
                }
            },
        },
        "again": {
            "component": "harmonia",
            "action": "echo",
            "input": {"value": "${tasks.say.it.output.value.whole.list[1]}"},
            "depends_on": ["say.it"],
        },
    }
    schema = {
        "value": {"type": "object"},
        "n": {"type": "integer", "default": 3},
        "missing": {"type": "integer"},
    }
    done = service.run(tasks, {"value": value}, input_schema=schema)
    said = done["task_status"]["say.it"]["output"]["value"]
    assert said == {
        "whole": value,
        "inside": "n=3 l=[1,2.5,null,true]",
        "fallback": 7,
        "escaped": "${workflow.input.n}",
    }
    assert done["output"] == {"value": 2.5}


def test_an_input_is_checked_before_anything_runs(service: RunningService) -> None:
    workflow_id = service.create(
        {"a": task("length", text="${workflow.input.text}")},
        input_schema={"text": {"type": "string", "maxLength": 3}},
    )
    for values, field in (({}, "input.text"), ({"text": 5}, "input.text"), ({"txt": "a"}, "txt")):
        body = {"workflow_id": workflow_id, "input": values}
        answer = service.api.post("/executions", json=body)
        assert answer.status_code == 422
        error = answer.json()["error"]
        assert error["code"] == "validation_error"
        assert any(field in problem["field"] for problem in error["details"]["errors"])


def test_a_failed_task_is_tried_again_as_its_policy_says(service: RunningService) -> None:
    policy = {"max_retries": 2, "retry_interval": 0.05}
    workflow_id = service.create(
        {
            "own": task("fail_times", times=2, retry_policy=policy),
            "of the execution": task("fail_times", times=1),
        }
    )
    execution_id = service.start(
        workflow_id, retry_policy={"max_retries": 1, "retry_interval": 0.05}
    )
    done = service.finish(execution_id)
    assert done["status"] == "completed", done["error"]
    assert done["task_status"]["own"]["attempt"] == 3
    assert done["task_status"]["of the execution"]["attempt"] == 2
    failures = [e["data"] for e in service.events(execution_id) if e["event"] == "task_failed"]
    own = [f for f in failures if f["task_name"] == "own"]
    assert [(f["retry_count"], f["max_retries"], f["will_retry"]) for f in own] == [
        (0, 2, True),
        (1, 2, True),
    ]
    assert own[0]["error_details"] == {"code": "NOT_YET", "n": 2}


def test_a_failure_skips_what_cannot_run_and_waits_for_what_runs(service: RunningService) -> None:
    workflow_id = service.create(
        {
            "bad": task("fail_times", times=99),
            "long": task("progress_steps", steps=4, pause_seconds=0.2),
            "after bad": noop(["bad"]),
            "after long": noop(["long"]),
        }
    )
    execution_id = service.start(workflow_id)
    done = service.finish(execution_id)
    assert done["status"] == "failed"
    assert done["error"]["code"] == "component_error"
    assert done["error"]["task"] == "bad"
    states = {name: state["status"] for name, state in done["task_status"].items()}
    assert states["bad"] == "failed"
    assert states["long"] in ("completed", "skipped")
    assert states["after bad"] == states["after long"] == "skipped"
    events = service.events(execution_id)
    assert types_of(events)[-1] == "execution_failed"
    skipped = {e["data"]["task_name"]: e["data"] for e in events if e["event"] == "task_skipped"}
    assert "'bad' failed" in skipped["after bad"]["reason"]


def test_timeouts_of_tasks_and_executions(service: RunningService) -> None:
    of_task = service.create(
        {"a": task("spin", timeout=0.5, retry_policy={"max_retries": 1, "retry_interval": 0.01})}
    )
    of_execution = service.create({"a": task("wait_for_file_async", path="/nowhere/at/all")})
    first = service.start(of_task)
    second = service.start(of_execution, timeout=0.5)
    done = service.finish(second)
    assert (done["status"], done["error"]["code"]) == ("failed", "timeout")
    assert done["task_status"]["a"]["status"] == "cancelled"
    done = service.finish(first)
    assert done["status"] == "failed"
    assert done["task_status"]["a"]["error"]["code"] == "TIMEOUT"
    assert done["task_status"]["a"]["attempt"] == 2


def test_cancel_reaches_an_endless_loop_and_child_processes(service: RunningService) -> None:
    execution_id = service.start(
        service.create(
            {
                "loop": task("spin"),
                "command": command("sleep 7777"),
                "later": noop(["loop"]),
                "waiting": {"component": "harmonia", "action": "sleep", "input": {"seconds": 600}},
            }
        )
    )
    service.wait_running(execution_id, "loop", "command", "waiting")
    answer = service.api.post(f"/executions/{execution_id}/cancel")
    assert answer.status_code in (200, 202)
    assert answer.json()["status"] == "cancelling"
    done = service.finish(execution_id, timeout_s=20)
    assert done["status"] == "cancelled"
    assert {s["status"] for s in done["task_status"].values()} == {"cancelled"}
    assert not _processes_with("sleep", "7777")
    again = service.api.post(f"/executions/{execution_id}/cancel")
    assert again.status_code == 409
    assert again.json()["error"]["code"] == "conflict"


def test_cancel_ends_the_children_of_an_action_that_does_not_listen(
    service: RunningService,
) -> None:
    execution_id = service.start(service.create({"a": task("spawn", seconds=8888)}))
    child = until(lambda: _processes_with("time.sleep(8888)"), 60, "the child")
    service.api.post(f"/executions/{execution_id}/cancel")
    assert service.finish(execution_id, timeout_s=20)["status"] == "cancelled"
    until(lambda: not any(process.is_running() for process in child), 5, "the child's end")


def _processes_with(*words: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if all(word in line for word in words) and "pytest" not in line:
            found.append(process)
    return found


def test_progress_is_seen_while_a_task_runs(service: RunningService) -> None:
    workflow_id = service.create({"a": task("progress_steps", steps=5, pause_seconds=0.25)})
    execution_id = service.start(workflow_id)
    seen = [e["data"] for e in service.events(execution_id) if e["event"] == "task_progress"]
    assert len(seen) >= 3
    fractions = [event["progress"] for event in seen]
    assert fractions == sorted(fractions)
    assert seen[0]["message"].startswith("step ")


def test_a_request_can_wait_for_the_end(service: RunningService) -> None:
    workflow_id = service.create({"a": task("add", a="${workflow.input.a}", b=1)})
    body = {
        "workflow_id": workflow_id,
        "input": {"a": 41},
        "execution_options": {"async": False},
    }
    answer = service.api.post("/executions", json=body)
    assert answer.status_code == 200
    assert answer.json()["status"] == "completed"
    assert answer.json()["output"] == {"sum": 42}


def test_outputs_of_any_size_reach_the_next_task(service: RunningService) -> None:
    size = 3_000_000
    done = service.run(
        {
            "big": task("big", size=size),
            "length": task("length", ["big"], text="${tasks.big.output.text}"),
        }
    )
    assert done["output"] == {"length": size}
    shown = done["task_status"]["big"]["output"]
    assert shown["size"] >= size
    assert len(shown["preview"]) < 1_000
    whole = service.api.get(shown["$ref"])
    assert len(whole.json()["text"]) == size
    bare = service.api.get(f"/executions/{done['execution_id']}", params={"outputs": "none"})
    assert "output" not in bare.json()["task_status"]["big"]


def test_files_of_the_workspace_can_be_listed_and_fetched(service: RunningService) -> None:
    done = service.run({"write": command("tee kept.txt"), "list": command("ls")})
    assert done["status"] == "completed", done["error"]
    listed = service.api.get(f"/executions/{done['execution_id']}/files").json()
    assert [item["path"] for item in listed["items"]] == ["kept.txt"]
    fetched = service.api.get(f"/executions/{done['execution_id']}/files/kept.txt")
    assert (fetched.status_code, fetched.content) == (200, b"")
    for bad in ("../../connection.json", "%2e%2e/connection.json", "/etc/passwd", "none.txt"):
        answer = service.api.get(f"/executions/{done['execution_id']}/files/{bad}")
        assert answer.status_code == 404, bad


def test_what_no_node_has_is_refused_at_once(service: RunningService) -> None:
    workflow_id = service.create({"a": task("who", resources={"num_gpus": 64})})
    answer = service.api.post("/executions", json={"workflow_id": workflow_id, "input": {}})
    assert answer.status_code == 422
    assert "64 GPUs" in answer.text
    assert "tasks.a.resources" in answer.text


def test_other_classes_run_and_what_must_wait_says_so(service: RunningService) -> None:
    cpus = psutil.cpu_count() or 1
    all_cpus = {"num_cpus": cpus}
    execution_id = service.start(
        service.create(
            {
                "one": task("wait_for_file", path="go", resources=all_cpus),
                "two": task("wait_for_file", path="go", resources=all_cpus),
            }
        )
    )
    waiting = until(
        lambda: [
            s["waiting"]
            for s in service.status(execution_id)["task_status"].values()
            if s.get("waiting") and s["status"] == "pending"
        ],
        60,
        "a task that waits",
    )
    assert f"{cpus} CPUs" in waiting[0]
    until(lambda: service.status(execution_id)["progress"]["running_count"] == 1, 60, "one running")
    (service.data_dir / "workspaces" / execution_id / "go").touch()
    assert service.finish(execution_id)["status"] == "completed"
    # The default class has its room again.
    assert service.run({"a": task("who")})["status"] == "completed"


def test_each_execution_has_an_actor_process_of_its_own(service: RunningService) -> None:
    go = service.data_dir / "go-own"
    workflow_id = service.create({"a": task("wait_for_file_async", path=str(go))})
    ids = [service.start(workflow_id) for _ in range(5)]
    for execution_id in ids:
        service.wait_running(execution_id, "a")
    actors = [p for p in service.processes() if p.name().startswith("ray::Exec")]
    assert len({actor.pid for actor in actors}) >= len(ids)
    go.touch()
    assert [service.finish(execution_id)["status"] for execution_id in ids] == ["completed"] * 5


def test_more_executions_than_actors_share_them(service: RunningService) -> None:
    go = service.data_dir / "go-many"
    workflow_id = service.create({"a": task("wait_for_file_async", path=str(go))})
    ids = [service.start(workflow_id) for _ in range(30)]
    for execution_id in ids:
        service.wait_running(execution_id, "a")
    actors = {p.pid for p in service.processes() if p.name().startswith("ray::Exec")}
    assert len(actors) <= 8 + 1, "the ceiling, and one to spare"
    go.touch()
    assert {service.finish(execution_id)["status"] for execution_id in ids} == {"completed"}


def test_a_running_execution_keeps_its_definition(service: RunningService) -> None:
    tasks = {
        "wait": task("wait_for_file", path="go"),
        "say": task("add", ["wait"], a=20, b=1),
    }
    workflow_id = service.create(tasks)
    replaced, deleted = service.start(workflow_id), service.start(workflow_id)
    service.wait_running(replaced, "wait")
    changed = {"name": "changed", "tasks": {"other": noop()}}
    assert service.api.put(f"/workflows/{workflow_id}", json=changed).status_code == 200
    assert service.api.delete(f"/workflows/{workflow_id}").status_code == 200
    for execution_id in (replaced, deleted):
        service.wait_running(execution_id, "wait")
        (service.data_dir / "workspaces" / execution_id / "go").touch()
        assert service.finish(execution_id)["output"] == {"sum": 21}


def test_a_checkpoint_can_be_restored_more_than_once(service: RunningService) -> None:
    tasks = {
        "before": task("who"),
        "wait": task("wait_for_file", ["before"], path="go"),
        "after": task("add", ["wait"], a=1, b="${tasks.before.output.attempt}"),
    }
    workflow_id = service.create(tasks)
    execution_id = service.start(workflow_id)
    service.wait_running(execution_id, "wait")
    answer = service.api.post(
        "/state/checkpoints", json={"execution_id": execution_id, "name": "middle"}
    )
    assert answer.status_code == 201, answer.text
    checkpoint = answer.json()
    states = {name: s["status"] for name, s in checkpoint["task_states"].items()}
    assert states == {"before": "completed", "wait": "pending", "after": "pending"}
    service.api.post(f"/executions/{execution_id}/cancel")
    service.finish(execution_id)
    for _ in range(2):
        body = {"checkpoint_id": checkpoint["checkpoint_id"]}
        restored = service.api.post("/state/restore", json=body).json()
        assert restored["task_status"]["before"]["output"] == states_output(checkpoint)
        service.wait_running(restored["execution_id"], "wait")
        (service.data_dir / "workspaces" / restored["execution_id"] / "go").touch()
        done = service.finish(restored["execution_id"])
        assert done["output"] == {"sum": 2}
        started = [
            e["data"]["task_name"]
            for e in service.events(restored["execution_id"])
            if e["event"] == "task_started"
        ]
        assert started == ["wait", "after"]


def states_output(checkpoint: dict[str, Any]) -> Any:
    return checkpoint["task_states"]["before"]["output"]


def test_a_process_that_dies_is_not_a_failure_of_the_task_alone(service: RunningService) -> None:
    done = service.run({"a": task("crash", retry_policy={"max_retries": 0})})
    assert done["status"] == "failed"
    assert done["error"]["code"] == "execution_error"
    assert done["task_status"]["a"]["error"]["code"] == "WORKER_LOST"


def test_an_output_that_is_not_json_fails_the_task(service: RunningService) -> None:
    done = service.run({"a": task("not_json")})
    assert done["status"] == "failed"
    assert done["task_status"]["a"]["error"]["code"] == "INVALID_OUTPUT"


@pytest.mark.parametrize("width", [2_000])
def test_a_wide_workflow_completes(service: RunningService, width: int) -> None:
    tasks = {f"t{i}": noop() for i in range(width)}
    tasks["join"] = noop(list(tasks))
    done = service.run(tasks)
    assert done["status"] == "completed"
    assert done["progress"]["completed_tasks"] == width + 1
    assert done["task_status_truncated"] is True
    page = service.api.get(
        f"/executions/{done['execution_id']}/tasks", params={"page": 21, "limit": 100}
    ).json()
    assert page["total"] == width + 1
    assert [item["task_name"] for item in page["items"]] == ["join"]


def test_unknown_components_and_actions_are_refused(service: RunningService) -> None:
    for bad, where in (
        ({"component": "nobody", "action": "x"}, "tasks.a.component"),
        ({"component": "harmonia", "action": "nop"}, "tasks.a.action"),
        ({"component": "testing", "action": "add", "input": {"a": 1}}, "tasks.a.input.b"),
        ({"component": "testing", "action": "add", "input": {"a": "x", "b": 1}}, "tasks.a.input.a"),
    ):
        answer = service.api.post("/workflows", json={"name": "w", "tasks": {"a": bad}})
        assert answer.status_code == 422, answer.text
        fields = [p["field"] for p in answer.json()["error"]["details"]["errors"]]
        assert where in fields


def test_templates_make_workflows_that_run_with_an_empty_input(service: RunningService) -> None:
    workflow_id = service.create(
        {"a": task("length", text="${workflow.input.text}")},
        input_schema={"text": {"type": "string"}},
    )
    made = service.api.post(
        "/templates",
        json={
            "name": "lengths",
            "workflow_id": workflow_id,
            "parameters": {"text": {"type": "string", "required": True}},
        },
    )
    assert made.status_code == 201, made.text
    template_id = made.json()["template_id"]
    body: dict[str, Any] = {"name": "five", "parameter_values": {}}
    refused = service.api.post(f"/templates/{template_id}/instantiate", json=body)
    assert refused.status_code == 422
    body["parameter_values"] = {"text": "12345"}
    instance = service.api.post(f"/templates/{template_id}/instantiate", json=body)
    assert instance.status_code == 201, instance.text
    done = service.finish(service.start(instance.json()["workflow_id"]))
    assert done["output"] == {"length": 5}


def test_a_recorded_workflow_runs_in_the_order_of_its_files(
    service: RunningService, tmp_path: Path
) -> None:
    recording = tmp_path / "recording.json"
    recording.write_text(json.dumps(INSTANCE))
    made = subprocess.run(
        [sys.executable, str(SCRIPT), str(recording), "--action", "noop"],
        capture_output=True,
        check=True,
    )
    answer = service.api.post("/workflows", json=json.loads(made.stdout))
    assert answer.status_code == 201, answer.text
    execution_id = service.start(answer.json()["workflow_id"])
    assert service.finish(execution_id)["status"] == "completed"
    events = tmp_path / "events.json"
    events.write_text(json.dumps([_as_listed(e) for e in service.events(execution_id)]))
    checked = subprocess.run(
        [sys.executable, str(SCRIPT), str(recording), "--check", str(events)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _as_listed(event: dict[str, Any]) -> dict[str, Any]:
    return {"seq": int(event["id"]), "type": event["event"], "data": event["data"]}
