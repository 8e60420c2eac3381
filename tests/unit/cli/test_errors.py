"""What goes wrong is one clear line with the way out, on stderr, with the right exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Harmonia
from tests.unit.service_thread import SMALL_WORKFLOW, Service


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HARMONIA_URL", "HARMONIA_API_KEY", "HARMONIA_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_no_service_says_how_to_start_one(nowhere: None, harmonia: Harmonia) -> None:
    found = harmonia("workflows", "list")
    assert (found.code, found.out) == (1, "")
    assert found.err.startswith("error: ")
    assert "harmonia up" in found.err


def test_a_dead_service_says_how_to_start_it(
    nowhere: None, harmonia: Harmonia, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARMONIA_URL", "http://127.0.0.1:1")
    found = harmonia("executions", "list", "--json")
    assert (found.code, found.out) == (1, "")
    assert "http://127.0.0.1:1" in found.err
    assert "harmonia up" in found.err
    assert "Traceback" not in found.err


def test_a_wrong_key_says_where_keys_come_from(
    service: Service, harmonia: Harmonia, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARMONIA_API_KEY", "hk_canary_wrong")
    found = harmonia("workflows", "list")
    assert found.code == 1
    assert "HARMONIA_API_KEY" in found.err
    assert "hk_canary_wrong" not in found.err


def test_a_missing_scope_names_the_command_that_helps(
    service: Service, harmonia: Harmonia, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARMONIA_API_KEY", service.gateway.add_key("read"))
    assert "harmonia keys create" in harmonia("keys", "list").err


def test_what_is_not_there_is_named(service: Service, harmonia: Harmonia) -> None:
    missing = "wf-00000000-0000-4000-8000-000000000000"
    found = harmonia("workflows", "show", missing)
    assert found.code == 1
    assert missing in found.err
    assert "[workflow_not_found]" in found.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("run", "missing.json"), "missing.json"),
        (("run", "broken.json"), "not JSON"),
        (("run", "list.json"), "JSON object"),
        (("run", "good.json", "--input", "novalue"), "NAME=VALUE"),
        (("run", "good.json", "--input-file", "missing.json"), "missing.json"),
        (("workflows", "create", "broken.json"), "not JSON"),
        (("up", "--host", "0.0.0.0"), "--allow-commands"),  # noqa: S104
        (("up", "--redis-url", "http://x"), "redis://"),
        (("up", "--address", "auto", "--detach"), "--redis-url"),
        (("up", "--redis-url", "redis://:zq[xv@h:1/0"), "percent-encoded"),
        (("up", "--redis-url", "redis://:zq/xv@127.0.0.1:1/0"), "percent-encoded"),
        (("up", "--redis-url", "redis://zqxv/x@h:1/0"), "percent-encoded"),
        (("up", "--redis-url", "redis://127.0.0.1:zqxv/0"), "percent-encoded"),
        (("run", "good.json", "-i", 'v="\\ud800"'), "input v: "),
        (("run", "good.json", "-i", "v=\udcff"), "input v: "),
        (("run", "good.json", "-i", "\udcff=1"), "half a character"),
        (("run", "good.json", "-i", "v=1e999"), "input v: "),
        (("run", "good.json", "--input-file", "nan.json"), "nan.json"),
        (("run", "good.json", "--input-file", "half.json"), "half.json"),
        (("run", "good.json", "--input-file", "deep.json"), "deep.json"),
        (("executions", "show", ""), "part of a path"),
        (("workflows", "show", ".."), "part of a path"),
        (("templates", "create", "--name", "\udcff", "--workflow", "wf-1"), "half a character"),
    ],
)
def test_unusable_input_is_refused_with_exit_code_2(
    nowhere: None,
    harmonia: Harmonia,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    expected: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "good.json").write_text("{}")
    (tmp_path / "nan.json").write_text('{"v": NaN}')
    (tmp_path / "half.json").write_text('{"v": "\\ud800"}')
    (tmp_path / "deep.json").write_text('{"v": ' + "[" * 100_000 + "]" * 100_000 + "}")
    monkeypatch.setenv("HARMONIA_URL", "http://127.0.0.1:1")
    found = harmonia(*arguments)
    assert (found.code, found.out) == (2, "")
    assert expected in found.err
    assert "zq" not in found.err


@pytest.mark.parametrize("url", ["http://127.0.0.1:abc", "http://[x", "http://:canary@h:x"])
def test_a_url_that_is_none_is_said_to_be_none(nowhere: None, harmonia: Harmonia, url: str) -> None:
    for command in (["status"], ["workflows", "list"]):
        found = harmonia(*command, "--url", url)
        assert (found.code, "URL" in found.err) == (1, True)
        assert "canary" not in found.err


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("HARMONIA_NODE_TYPES", "[{", "HARMONIA_NODE_TYPES"),
        ("HARMONIA_PORT", "abc", "HARMONIA_PORT"),
        ("HARMONIA_ALLOWED_ORIGINS", "*", "HARMONIA_ALLOWED_ORIGINS"),
        ("HARMONIA_REDIS_URL", "redis://:zq[xv@h:1/0", "percent-encoded"),
    ],
)
def test_a_setting_that_cannot_be_is_named(
    nowhere: None,
    harmonia: Harmonia,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    expected: str,
) -> None:
    monkeypatch.setenv(name, value)
    found = harmonia("up")
    assert (found.code, found.out) == (2, "")
    assert expected in found.err
    assert "zq" not in found.err


def test_a_place_that_cannot_be_written_is_named(
    service: Service, harmonia: Harmonia, tmp_path: Path
) -> None:
    workflow = service.perform(service.gateway.create_workflow(SMALL_WORKFLOW))
    reply = service.perform(service.gateway.execute(workflow["workflow_id"], {}, {}))
    execution_id = reply.document["execution_id"]
    service.gateway.files[execution_id, "out/report.pdf"] = b"x"
    (tmp_path / "file").write_text("kept")
    for place in ("/proc/xx", str(tmp_path / "file")):
        found = harmonia("executions", "files", execution_id, "--all", "--to", place)
        assert (found.code, found.out) == (1, "")
        assert place in found.err
        assert "--to" in found.err
    assert (tmp_path / "file").read_text() == "kept"
    assert "/proc/xx" in harmonia("up", "--detach", "--data-dir", "/proc/xx").err


def test_unknown_options_are_usage_errors(harmonia: Harmonia) -> None:
    assert harmonia("run", "--nonsense").code == 2
    assert harmonia("nonsense").code == 2


def test_terminal_codes_of_the_service_are_not_passed_on(
    service: Service, harmonia: Harmonia
) -> None:
    evil = {**SMALL_WORKFLOW, "name": "a\x1b]0;owned\x07b", "description": "[red]x[/red]"}
    service.perform(service.gateway.create_workflow(evil))
    shown = harmonia("workflows", "list", "--limit", "100").out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[red]x[/red]" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("executions", "list", "--status", "nope"),
        ("workflows", "list", "--limit", "100000"),
    ],
)
def test_options_that_the_service_refuses_are_unusable_arguments(
    service: Service, harmonia: Harmonia, arguments: tuple[str, ...]
) -> None:
    found = harmonia(*arguments)
    assert (found.code, found.out) == (2, "")
    assert arguments[2].removeprefix("--") in found.err


def test_a_definition_that_the_service_refuses_is_no_matter_of_arguments(
    service: Service, harmonia: Harmonia, tmp_path: Path
) -> None:
    (tmp_path / "empty.json").write_text('{"name": "x", "tasks": {}}')
    assert harmonia("workflows", "create", "empty.json").code == 1


def test_a_problem_of_several_fields_lists_them(service: Service, harmonia: Harmonia) -> None:
    from harmonia_actors.core.errors import Problem, ValidationFailed

    problems = [Problem(f"tasks.t{number}", "is not valid") for number in range(30)]
    service.gateway.failure = ValidationFailed("workflow", problems)
    try:
        found = harmonia("workflows", "list")
    finally:
        service.gateway.failure = None
    assert "tasks.t9: is not valid" in found.err
    assert "and 20 more" in found.err
