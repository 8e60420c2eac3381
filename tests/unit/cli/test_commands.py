"""What the commands print, with and without --json, and how they end."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Harmonia
from tests.unit.service_thread import SMALL_WORKFLOW, Service

GROUPS = ("workflows", "executions", "templates", "checkpoints", "components", "keys")
COMMANDS = {
    "workflows": ("create", "list", "show", "replace", "delete"),
    "executions": (
        "start", "list", "show", "tasks", "output", "events", "follow", "logs", "audit", "files",
        "cancel",
    ),
    "templates": ("create", "list", "show", "instantiate", "delete"),
    "checkpoints": ("create", "list", "show", "restore", "delete"),
    "components": ("list", "show"),
    "keys": ("create", "list", "revoke"),
}  # fmt: skip
SINGLE = ("up", "down", "status", "doctor", "run")


def started(service: Service, **inputs: Any) -> str:
    workflow = service.perform(service.gateway.create_workflow(SMALL_WORKFLOW))
    reply = service.perform(service.gateway.execute(workflow["workflow_id"], inputs, {}))
    return str(reply.document["execution_id"])


@pytest.mark.parametrize("group", GROUPS)
def test_each_group_explains_itself_and_its_commands(harmonia: Harmonia, group: str) -> None:
    text = harmonia(group, "--help").out
    for command in COMMANDS[group]:
        assert re.search(rf"\b{command}\b", text), command
        shown = harmonia(group, command, "--help")
        assert shown.code == 0
        assert "--json" in shown.out


@pytest.mark.parametrize("command", SINGLE)
def test_each_single_command_explains_itself(harmonia: Harmonia, command: str) -> None:
    shown = harmonia(command, "--help")
    assert shown.code == 0
    assert "--json" in shown.out


def test_the_key_is_no_option_of_any_command(harmonia: Harmonia) -> None:
    for group, commands in COMMANDS.items():
        for command in commands:
            assert "--api-key" not in harmonia(group, command, "--help").out


def test_workflows(service: Service, harmonia: Harmonia, workflow_file: str) -> None:
    created = harmonia("workflows", "create", workflow_file, "--json")
    workflow: Any = created.json
    workflow_id = workflow["workflow_id"]
    assert harmonia("workflows", "show", workflow_id, "--json").json == workflow
    table = harmonia("workflows", "list").out
    assert workflow_id in table
    assert "page 1 of" in table
    shown = harmonia("workflows", "show", workflow_id).out
    assert "second" in shown
    assert "execute_command" in shown
    changed = json.dumps({**SMALL_WORKFLOW, "version": "3.1.4"})
    assert "3.1.4" in harmonia("workflows", "replace", workflow_id, "-", stdin=changed).out
    assert harmonia("workflows", "delete", workflow_id).out.strip() == f"deleted {workflow_id}"


def test_a_list_says_how_to_see_more(service: Service, harmonia: Harmonia) -> None:
    for _ in range(3):
        service.perform(service.gateway.create_workflow(SMALL_WORKFLOW))
    assert "--page 2 for more" in harmonia("workflows", "list", "--limit", "2").out
    listed: Any = harmonia("workflows", "list", "--limit", "2", "--json").json
    assert len(listed["items"]) == 2


def test_executions(service: Service, harmonia: Harmonia, tmp_path: Path) -> None:
    workflow = service.perform(service.gateway.create_workflow(SMALL_WORKFLOW))
    begun: Any = harmonia(
        "executions", "start", workflow["workflow_id"], "-i", "n=3", "-i", "s=a=b", "--json"
    ).json
    execution_id = begun["execution_id"]
    assert begun["input"] == {"n": 3, "s": "a=b"}
    assert "first" in harmonia("executions", "show", execution_id).out
    assert "second" in harmonia("executions", "tasks", execution_id).out
    listed = harmonia("executions", "list", "--status", "pending").out
    assert execution_id in listed
    service.gateway.outputs[execution_id, "first"] = b'{"x": [1, 2]}'
    assert harmonia("executions", "output", execution_id, "first").json == {"x": [1, 2]}
    assert harmonia("executions", "output", execution_id).code == 1
    assert "cancelling" in harmonia("executions", "cancel", execution_id).out


def test_a_command_with_a_key_starts_one_execution(
    service: Service, harmonia: Harmonia, workflow_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = service.perform(service.gateway.create_workflow(SMALL_WORKFLOW))
    start = ("executions", "start", workflow["workflow_id"], "--json", "--idempotency-key", "cli-1")
    begun: Any = harmonia(*start, "-i", "n=1").json
    assert harmonia(*start, "-i", "n=1").json == begun
    other = harmonia(*start, "-i", "n=2")
    assert (other.code, "'cli-1'" in other.err) == (1, True)
    finish_by_themselves(service, monkeypatch, "completed", output={})
    ran: list[Any] = [
        harmonia("run", workflow_file, "--json", "--idempotency-key", "cli-2").json for _ in "ab"
    ]
    assert ran[0]["execution_id"] == ran[1]["execution_id"]
    unusable = harmonia("run", workflow_file, "--idempotency-key", "two words")
    assert unusable.code == 2
    assert "visible ASCII" in unusable.err


def test_an_audit_that_finds_nothing_says_so(service: Service, harmonia: Harmonia) -> None:
    execution_id = started(service)
    going_on = harmonia("executions", "audit", execution_id)
    assert going_on.code == 0
    assert "0 so far" in going_on.out
    service.finish(execution_id)
    shown = harmonia("executions", "audit", execution_id)
    assert shown.code == 0
    words = {" ".join(line.split()) for line in shown.out.splitlines()}
    assert words == {
        f"execution {execution_id}",
        "status completed",
        "events 1",
        "tasks 2",
        "attempts 3 (1 lost)",
        "audit no violations",
    }


def test_an_audit_shows_each_violation_in_a_line_and_exits_1(
    service: Service, harmonia: Harmonia
) -> None:
    execution_id = started(service)
    found = [
        {"rule": "A1", "seq": 7, "task": None, "message": "event 7 stands where 6 belongs"},
        {"rule": "A10", "seq": 9, "task": "fir\x1bst", "message": "it starts [bold]again"},
        {"rule": "A16", "seq": None, "task": None, "message": "the status is running"},
    ]
    service.gateway.violations[execution_id] = found
    shown = harmonia("executions", "audit", execution_id)
    assert shown.code == 1
    assert shown.out.splitlines()[-4:] == [
        "audit      3 violations",
        "A1  event 7: event 7 stands where 6 belongs",
        "A10 event 9: task 'fir\N{REPLACEMENT CHARACTER}st': it starts [bold]again",
        "A16 state: the status is running",
    ]
    as_json = harmonia("executions", "audit", execution_id, "--json")
    document: Any = as_json.json
    assert (as_json.code, document["violations"]) == (1, found)


def test_files_are_listed_and_downloaded_below_a_directory(
    service: Service, harmonia: Harmonia, tmp_path: Path
) -> None:
    execution_id = started(service)
    service.gateway.files[execution_id, "out/report.pdf"] = b"x" * 2_500
    assert "2.5 kB" in harmonia("executions", "files", execution_id).out
    target = tmp_path / "downloads"
    saved: Any = harmonia(
        "executions", "files", execution_id, "--all", "--to", str(target), "--json"
    ).json
    assert saved["files"] == [str(target / "out" / "report.pdf")]
    assert (target / "out" / "report.pdf").read_bytes() == b"x" * 2_500
    outside = harmonia("executions", "files", execution_id, "--download", "../../evil")
    assert outside.code == 1
    assert "leads out" in outside.err


def test_files_that_are_not_listed_are_told(
    service: Service, harmonia: Harmonia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id = started(service)
    for number in range(3):
        service.gateway.files[execution_id, f"{number}.txt"] = b"x"
    complete = harmonia("executions", "files", execution_id)
    assert complete.err == ""
    shown_max = service.gateway.files_shown_max
    monkeypatch.setattr(service.gateway, "files_shown_max", 2)
    listed = harmonia("executions", "files", execution_id)
    assert (listed.out.count(".txt"), "more files" in listed.err) == (2, True)
    document: Any = harmonia("executions", "files", execution_id, "--json").json
    assert document["truncated"] is True
    fetch = ("executions", "files", execution_id, "--all", "--to", str(tmp_path), "--json")
    fetched = harmonia(*fetch)
    saved: Any = fetched.json
    assert (len(saved["files"]), saved["truncated"]) == (2, True)
    assert "more files" in fetched.err
    monkeypatch.setattr(service.gateway, "files_shown_max", shown_max)
    whole: Any = harmonia(*fetch).json
    assert (len(whole["files"]), whole["truncated"]) == (3, False)


def test_a_workflow_without_a_version_has_none(
    service: Service, harmonia: Harmonia, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = service.perform(service.gateway.create_workflow(SMALL_WORKFLOW))
    workflow |= {"version": None, "description": None}
    try:
        line = next(
            line
            for line in harmonia("workflows", "list", "--limit", "100").out.splitlines()
            if workflow["workflow_id"] in line
        )
    finally:
        del service.gateway.workflows[workflow["workflow_id"]]
    assert "None" not in line


def test_events_are_one_to_a_line(service: Service, harmonia: Harmonia) -> None:
    execution_id = started(service)
    service.emit(execution_id, "execution_started", workflow_name="small")
    service.emit(execution_id, "task_failed", task_name="first", error="no", will_retry=True,
                 retry_count=1, max_retries=3)  # fmt: skip
    service.finish(execution_id, duration_seconds=75)
    lines = harmonia("executions", "events", execution_id, "--follow").out.splitlines()
    assert [line.split()[1] for line in lines] == [
        "execution_started",
        "task_failed",
        "execution_completed",
    ]
    assert "no" in lines[1]
    assert "1 of 3" in lines[1]
    assert "1 min 15 s" in lines[2]
    raw = harmonia("executions", "events", execution_id, "--json", "--after", "1").out
    assert [json.loads(line)["seq"] for line in raw.splitlines()] == [2, 3]


def test_events_without_follow_are_those_so_far(
    service: Service, harmonia: Harmonia, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many come meanwhile, and however long the first of them takes."""
    execution_id = started(service)
    for done in (0.1, 0.2):
        service.emit(execution_id, "task_progress", task_name="first", progress=done)
    original = service.gateway.events

    async def busy(execution_id: str, *, after: int, part: int) -> Any:
        async for batch in original(execution_id, after=after, part=part):
            yield batch
            await service.gateway.append(execution_id, "task_progress", {"task_name": "first"})

    monkeypatch.setattr(service.gateway, "events", busy)
    shown = harmonia("executions", "events", execution_id, "--json")
    assert [json.loads(line)["seq"] for line in shown.out.splitlines()] == [1, 2]
    assert harmonia("executions", "events", execution_id, "--after", "1000").out == ""


def test_logs_are_lines_of_tasks(service: Service, harmonia: Harmonia) -> None:
    execution_id = started(service)
    line = {"stream": "stdout", "text": "[red]\x1b[31mmade[/red]", "timestamp_ms": 1}
    for task, attempt, dropped in (("first", 1, 0), ("second", 2, 3)):
        service.emit(execution_id, "task_log", task_name=task, attempt=attempt, lines=[line],
                     dropped=dropped)  # fmt: skip
    assert harmonia("executions", "logs", execution_id).out.splitlines() == [
        "first | [red]�[31mmade[/red]",
        "second (2) | 3 lines are left out",
        "second (2) | [red]�[31mmade[/red]",
    ]
    raw = harmonia("executions", "logs", execution_id, "--task", "second", "--json").out
    assert [json.loads(each)["stream"] for each in raw.splitlines()] == ["dropped", "stdout"]
    service.finish(execution_id)
    followed = harmonia("executions", "logs", execution_id, "--task", "first", "--follow")
    assert (followed.code, len(followed.out.splitlines())) == (0, 1)


def test_an_execution_without_events_has_none(service: Service, harmonia: Harmonia) -> None:
    shown = harmonia("executions", "events", started(service))
    assert (shown.code, shown.out) == (0, "")


def test_templates(service: Service, harmonia: Harmonia, workflow_file: str) -> None:
    made: Any = harmonia(
        "templates", "create", "--name", "t", "--definition", workflow_file, "--json"
    ).json
    template_id = made["template_id"]
    assert template_id in harmonia("templates", "list").out
    assert "t" in harmonia("templates", "show", template_id).out
    instance: Any = harmonia(
        "templates", "instantiate", template_id, "--name", "i", "--value", "n=1", "--json"
    ).json
    assert instance["template_id"] == template_id
    assert harmonia("templates", "delete", template_id).code == 0
    neither = harmonia("templates", "create", "--name", "t")
    assert neither.code == 2
    assert "--definition" in neither.err


def test_checkpoints(service: Service, harmonia: Harmonia) -> None:
    execution_id = started(service)
    kept: Any = harmonia("checkpoints", "create", execution_id, "--name", "c", "--json").json
    checkpoint_id = kept["checkpoint_id"]
    assert checkpoint_id in harmonia("checkpoints", "list", "--execution", execution_id).out
    assert "c" in harmonia("checkpoints", "show", checkpoint_id).out
    assert "exec-" in harmonia("checkpoints", "restore", checkpoint_id, "--timeout", "5").out
    assert "by hand" in harmonia("checkpoints", "show", checkpoint_id).out
    assert harmonia("checkpoints", "delete", checkpoint_id).code == 0


def test_a_restore_with_edits(service: Service, harmonia: Harmonia, tmp_path: Path) -> None:
    execution_id = started(service)
    kept: Any = harmonia("checkpoints", "create", execution_id, "--name", "c", "--json").json
    (tmp_path / "first.json").write_text('{"command": "echo"}')
    restored: Any = harmonia(
        *("checkpoints", "restore", kept["checkpoint_id"], "--json"),
        *("--input", "n=3", "-i", "who=Ada"),
        *("--task-input", 'second={"command": "a=b"}', "--task-input", "first=@first.json"),
    ).json
    assert restored["edits"] == {
        "input": {"n": 3, "who": "Ada"},
        "task_inputs": {"second": {"command": "a=b"}, "first": {"command": "echo"}},
    }


@pytest.mark.parametrize("given", ["first", "first=", "first=3", "=3", '={"a": 1}', "first=@no"])
def test_a_task_input_that_is_none(harmonia: Harmonia, given: str) -> None:
    refused = harmonia("checkpoints", "restore", "cp-1", "--task-input", given)
    assert refused.code == 2
    assert "no" in refused.err if "@" in given else "TASK=OBJECT" in refused.err


def test_components(service: Service, harmonia: Harmonia) -> None:
    listed: Any = harmonia("components", "list", "--json").json
    name = listed["items"][0]["name"]
    assert name in harmonia("components", "list").out
    assert name in harmonia("components", "show", name).out


def test_keys_show_the_secret_once(service: Service, harmonia: Harmonia) -> None:
    made: Any = harmonia("keys", "create", "--name", "ci", "--scope", "read", "--json").json
    listed = harmonia("keys", "list", "--limit", "100").out
    assert made["key_id"] in listed
    assert made["api_key"] not in listed
    assert harmonia("keys", "revoke", made["key_id"]).code == 0


def test_run_prints_the_output_alone_on_stdout(
    service: Service, harmonia: Harmonia, workflow_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish_by_themselves(service, monkeypatch, "completed", output={"answer": 42})
    done = harmonia("run", workflow_file, "--input", "n=3")
    assert done.code == 0
    assert json.loads(done.out) == {"answer": 42}
    assert "execution_completed" in done.err
    whole: Any = harmonia("run", workflow_file, "--json")
    assert whole.json["status"] == "completed"
    assert whole.err == ""


def test_run_of_a_failed_execution_says_why_and_exits_1(
    service: Service, harmonia: Harmonia, workflow_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = {"code": "component_error", "message": "the disk is full"}
    finish_by_themselves(service, monkeypatch, "failed", error=error)
    done = harmonia("run", workflow_file)
    assert done.code == 1
    assert done.out == ""
    assert "the disk is full" in done.err
    assert "harmonia executions show exec-" in done.err


def test_run_takes_a_stored_workflow_and_an_input_file(
    service: Service, harmonia: Harmonia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish_by_themselves(service, monkeypatch, "completed", output={})
    workflow = service.perform(service.gateway.create_workflow(SMALL_WORKFLOW))
    inputs = tmp_path / "input.json"
    inputs.write_text('{"a": 1, "b": 2}')
    done: Any = harmonia(
        "run", workflow["workflow_id"], "--input-file", str(inputs), "-i", "b=three", "--json",
        "--timeout", "60", "--max-retries", "2",
    ).json  # fmt: skip
    assert done["input"] == {"a": 1, "b": "three"}
    assert done["execution_options"] == {
        "async": True,
        "timeout": 60.0,
        "retry_policy": {"max_retries": 2},
    }


def finish_by_themselves(
    service: Service, monkeypatch: pytest.MonkeyPatch, status: str, **fields: Any
) -> None:
    """Let every execution that is started end at once, as an engine would end it."""
    original = service.gateway.execute

    async def execute(workflow_id: str, inputs: Any, options: Any, **more: Any) -> Any:
        reply = await original(workflow_id, inputs, options, **more)
        execution_id = reply.document["execution_id"]
        await service.gateway.append(execution_id, "execution_started", {})
        service.gateway.executions[execution_id] |= {"status": status, **fields}
        await service.gateway.append(execution_id, f"execution_{status}", fields)
        return reply

    monkeypatch.setattr(service.gateway, "execute", execute)
