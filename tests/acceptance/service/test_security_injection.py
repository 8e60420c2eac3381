"""What clients send is data: in commands, references, paths, names and bodies alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.running import RunningService

ID = "123e4567-e89b-12d3-a456-426614174000"


def command(*words: str, **more: Any) -> dict[str, Any]:
    """A task that runs a program."""
    return {
        "component": "ergon",
        "action": "execute_command",
        "input": {"command": list(words)},
    } | more


def echo(value: Any, *depends_on: str) -> dict[str, Any]:
    """A task that gives back what it is given."""
    return {
        "component": "harmonia",
        "action": "echo",
        "input": {"value": value},
        "depends_on": list(depends_on),
    }


def failures(
    service: RunningService, tasks: dict[str, dict[str, Any]], values: Any
) -> dict[str, Any]:
    """Run each task as an execution of its own, all at once; the error of each, by its name."""
    started = {
        name: service.start(service.create({name: task}), values) for name, task in tasks.items()
    }
    found = {}
    for name, execution_id in started.items():
        status = service.finish(execution_id)
        assert (status["status"], name) == ("failed", name)
        found[name] = status["task_status"][name]["error"]
    return found


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error of a refusal, in the envelope."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code
    assert "Traceback" not in answer.text
    return error


# Commands ----------------------------------------------------------------------------------------


def test_a_value_is_one_argument_whatever_it_looks_like(
    service: RunningService, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    values = {
        "semicolon": f"x; touch {proof}",
        "substitution": f"$(touch {proof})",
        "backticks": f"`touch {proof}`",
        "newline": f"x\ntouch {proof}\n",
        "pipe": f"x | touch {proof}",
        "both": f"x && touch {proof}",
        "separator": f"x\u2028touch {proof}\u2029\u0085",
        "quotes": f"'; touch {proof}; \"",
        "variables": "$HOME ${PATH} ~ *",
        "reference": "${workflow.input.semicolon} $${x} ${tasks.semicolon.output.stdout}",
        "formats": "%s %n {0.__class__} {{7*7}} <%= 7*7 %>",
    }
    tasks = {
        name: command(
            "printf", "%s|", f"${{workflow.input.{name}}}", f"in ${{workflow.input.{name}}}"
        )
        for name in values
    }
    # As a text, split into words before the values are known; without quotes, as people write it.
    tasks["text"] = command() | {
        "input": {"command": "printf %s| ${workflow.input.semicolon} '${workflow.input.newline}'"}
    }
    done = service.run(tasks, values)
    assert done["status"] == "completed", done["error"]
    for name, value in values.items():
        output = done["task_status"][name]["output"]
        assert output["stdout"] == f"{value}|in {value}|", name
    text = done["task_status"]["text"]["output"]["stdout"]
    assert text == f"{values['semicolon']}|{values['newline']}|"
    assert not proof.exists()


def test_values_cannot_become_options_or_other_addresses(
    service: RunningService, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("top secret")
    values = {
        "config": "-K/etc/passwd",
        "output": f"--output={tmp_path / 'planted'}",
        "file": f"file://{secret}",
        "shouted": f"FILE://{secret}",
        "globbed": f"{{file}}://{secret}",
        "gopher": "gopher://127.0.0.1:6379/_INFO",
        "dict": "dict://127.0.0.1:6379/INFO",
        "upload": f"@{secret}",
        "nul": "a\0b",
    }
    tasks = {name: command("curl", f"${{workflow.input.{name}}}") for name in values}
    found = failures(service, tasks, values)
    assert {name: error["code"] for name, error in found.items()} == {
        "config": "OPTION_INJECTION",
        "output": "OPTION_INJECTION",
        "file": "UNSAFE_URL",
        "shouted": "UNSAFE_URL",
        "globbed": "UNSAFE_URL",
        "gopher": "UNSAFE_URL",
        "dict": "UNSAFE_URL",
        "upload": "OPTION_INJECTION",
        "nul": "INVALID_INPUT",
    }
    assert "top secret" not in json.dumps(found)
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize(
    "text",
    [
        "${workflow.input.program} -x",
        "sh -c ${workflow.input.code}",
        "python3 -c 'print(1)' | tee x",
        "echo $(id)",
        "curl ${workflow.input.url",
    ],
)
def test_a_template_that_would_need_a_shell_is_refused_at_creation(
    service: RunningService, text: str
) -> None:
    task = command() | {"input": {"command": text}}
    answer = service.api.post("/workflows", json={"name": "w", "tasks": {"t": task}})
    error = refused(answer, 422, "validation_error")
    assert "tasks.t.input.command" in json.dumps(error["details"])


def test_a_command_sees_nothing_of_the_service(service: RunningService) -> None:
    done = service.run({"env": command("env")})
    seen = done["task_status"]["env"]["output"]["stdout"]
    names = {line.partition("=")[0] for line in seen.splitlines()}
    assert names == {
        *("PATH", "HOME", "LANG", "HARMONIA_EXECUTION_ID", "HARMONIA_TASK_NAME"),
        *("HARMONIA_ATTEMPT", "HARMONIA_IDEMPOTENCY_KEY"),
    }


# References --------------------------------------------------------------------------------------


def test_values_are_never_expanded_again(service: RunningService) -> None:
    planted = "${workflow.input.secret} ${tasks.b.output.value} $${x} {{7*7}} %s {0.__class__}"
    values = {"planted": planted, "secret": "top secret", "${odd}": 1}
    tasks = {
        "a": echo("${workflow.input.planted}"),
        "b": echo("${tasks.a.output.value}", "a"),
        "c": echo({"in": "<${tasks.b.output.value}>", "whole": "${tasks.b.output}"}, "b"),
        "d": echo(["$${workflow.input.secret}", '${workflow.input["${odd}"]}']),
    }
    done = service.run(tasks, values)
    assert done["status"] == "completed", done["error"]
    outputs = {name: task["output"]["value"] for name, task in done["task_status"].items()}
    assert outputs == {
        "a": planted,
        "b": planted,
        "c": {"in": f"<{planted}>", "whole": {"value": planted}},
        "d": ["${workflow.input.secret}", 1],
    }


@pytest.mark.parametrize(
    "reference",
    [
        "${tasks.__class__}",
        "${tasks.t.__class__.output}",
        "${workflow.__dict__}",
        "${__import__('os')}",
        "${workflow.input.x[0:9]}",
        "${workflow.input.x[99999999999]}",
        "${workflow.input.x[-1]}",
        "${${workflow.input.x}}",
        "${tasks.nobody.output.x}",
        "${env.PATH}",
    ],
)
def test_references_are_paths_and_nothing_more(service: RunningService, reference: str) -> None:
    answer = service.api.post("/workflows", json={"name": "w", "tasks": {"t": echo(reference)}})
    refused(answer, 422, "validation_error")


def test_attributes_of_values_are_not_there(service: RunningService) -> None:
    tasks = {
        "method": echo("${workflow.input.list.append}"),
        "call": echo("${workflow.input.text.upper()}"),
        "index": echo("${workflow.input.list[9]}"),
        "dunder": echo("${workflow.input.text.__class__.__mro__}"),
        "object": echo("${workflow.input.object.__dict__}"),
    }
    found = failures(service, tasks, {"list": [1], "text": "x", "object": {}})
    assert all(error["origin"] == "engine" for error in found.values()), found
    assert {error["code"] for error in found.values()} == {"MISSING_VALUE"}


def test_outputs_that_double_from_task_to_task_are_cut_off(service: RunningService) -> None:
    tasks = {"t0": echo("${workflow.input.text}")}
    for step in range(1, 6):
        before = f"${{tasks.t{step - 1}.output.value}}"
        tasks[f"t{step}"] = echo(before + before, f"t{step - 1}")
    done = service.run(tasks, {"text": "ha" * 1_000_000})
    assert done["status"] == "failed"
    failed = [task for task in done["task_status"].values() if task["status"] == "failed"]
    assert len(failed) == 1
    assert "16000000" in failed[0]["error"]["message"]


# Files -------------------------------------------------------------------------------------------


def reading(place: str) -> dict[str, Any]:
    """A task that reads a file."""
    given = {"file_path": place, "format": "csv"}
    return {"component": "sophia", "action": "analyze_data", "input": given}


def writing(place: str) -> dict[str, Any]:
    """A task that writes one."""
    given = {"data": {"a": 1}, "format": "markdown", "output_file": place}
    return {"component": "rhetor", "action": "generate_content", "input": given}


def test_actions_touch_no_files_beyond_their_directories(service: RunningService) -> None:
    connection = service.data_dir / "connection.json"
    before = connection.read_text()
    prepare = {
        "link": command("ln", "-s", "/etc/passwd", "link"),
        "etc": command("ln", "-s", "/etc", "etc"),
        "inside": command("cp", "/etc/hostname", "copy.csv"),
    }
    tasks = {
        "read_up": reading("../" * 40 + "etc/passwd"),
        "read_absolute": reading("/etc/passwd"),
        "read_environ": reading("/proc/self/environ"),
        "read_device": reading("/dev/zero"),
        "read_key": reading(str(connection)),
        "read_link": reading("link"),
        "read_below_link": reading("etc/passwd"),
        "read_long": reading("x/" * 3_000),
        "read_control": reading("a\nb"),
        "write_up": writing("../../planted"),
        "write_key": writing(str(connection)),
        "write_below_link": writing("etc/planted"),
        "write_environ": writing("/proc/self/environ"),
    }
    started = {}
    for name, task in tasks.items():
        after = {**task, "depends_on": list(prepare)}
        started[name] = service.start(service.create({**prepare, name: after}))
    for name, execution_id in started.items():
        error = service.finish(execution_id)["task_status"][name]["error"]
        assert error is not None, name
        assert (error["code"], name) == ("PATH_NOT_ALLOWED", name)
        assert "root:" not in json.dumps(error)
    assert connection.read_text() == before
    _downloads_stay_inside(service, started["read_link"])


def _downloads_stay_inside(service: RunningService, execution_id: str) -> None:
    listed = service.api.get(f"/executions/{execution_id}/files").json()["items"]
    assert [file["path"] for file in listed] == ["copy.csv"]
    for path in (
        "link",
        "etc/passwd",
        "../../connection.json",
        "%2e%2e/%2e%2e/connection.json",
        "..%2f..%2fconnection.json",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "copy.csv/../link",
        "copy.csv%00",
        quote(str(service.data_dir / "connection.json"), safe=""),
    ):
        target = f"/api/harmonia/executions/{execution_id}/files/{path}"
        answer = service.api.get("", extensions={"target": target.encode()})
        error = refused(answer, 404, "not_found")
        assert "root:" not in json.dumps(error)
    own = service.api.get(f"/executions/{execution_id}/files/copy.csv")
    assert own.status_code == 200
    assert own.headers["content-disposition"].startswith("attachment")
    assert own.headers["x-content-type-options"] == "nosniff"


# Names and ids -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "exec-*",
        f"exec-{ID}:log",
        "exec-" + "*" * 36,
        "exec-" + "-" * 36 + "\r\nX: y",
        f"exec-{ID}\r\nSet-Cookie: a=b",
        f"EXEC-{ID}",
        f"wf-{ID}",
        "exec-" + "a" * 5_000,
        "<script>alert(1)</script>",
        "",
    ],
)
def test_odd_ids_are_found_nowhere(service: RunningService, name: str) -> None:
    sent = quote(name, safe="")
    for path in (f"/executions/{sent}", f"/executions/{sent}/tasks", f"/executions/{sent}/files"):
        if not name and path == "/executions/":
            continue
        answer = service.api.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/json"
        assert "x" not in answer.headers
        assert "set-cookie" not in answer.headers
    body = {"workflow_id": name.replace("exec", "wf")}
    assert service.api.post("/executions", json=body).status_code == 404
    assert service.api.post("/state/restore", json={"checkpoint_id": name}).status_code == 404


def test_odd_names_are_names_and_cross_nothing(service: RunningService) -> None:
    total = service.api.get("/workflows").json()["total"]
    odd = ["a:b", "*", "{x}", "a\r\nX: y", "workflow:*:definition", "é\u2028"]
    made = []
    for name in odd:
        answer = service.api.post("/workflows", json={"name": name, "tasks": {"t": echo(name)}})
        assert answer.status_code in (201, 422), answer.text
        assert "x" not in answer.headers
        if answer.status_code == 201:
            assert answer.json()["name"] == name
            made.append(answer.json()["workflow_id"])
    assert len(made) >= 4
    assert service.api.get("/workflows").json()["total"] == total + len(made)
    tasks = {name: echo(number) for number, name in enumerate(["a:b", "x*", "a.b", "a b"])}
    done = service.run(tasks)
    outputs = {name: task["output"]["value"] for name, task in done["task_status"].items()}
    assert outputs == {"a:b": 0, "x*": 1, "a.b": 2, "a b": 3}
    for workflow_id in made:
        assert service.api.delete(f"/workflows/{workflow_id}").status_code == 200
    assert service.api.get(f"/executions/{done['execution_id']}").status_code == 200
