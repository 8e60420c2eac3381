"""What goes wrong is one clear line with the way out, on stderr, with the right exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Harmonia
from tests.unit.service_thread import Service


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
    ],
)
def test_unusable_input_is_refused_with_exit_code_2(
    nowhere: None, harmonia: Harmonia, arguments: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "good.json").write_text("{}")
    found = harmonia(*arguments)
    assert (found.code, found.out) == (2, "")
    assert expected in found.err


def test_unknown_options_are_usage_errors(harmonia: Harmonia) -> None:
    assert harmonia("run", "--nonsense").code == 2
    assert harmonia("nonsense").code == 2


def test_terminal_codes_of_the_service_are_not_passed_on(
    service: Service, harmonia: Harmonia
) -> None:
    from tests.unit.service_thread import SMALL_WORKFLOW

    evil = {**SMALL_WORKFLOW, "name": "a\x1b]0;owned\x07b", "description": "[red]x[/red]"}
    service.perform(service.gateway.create_workflow(evil))
    shown = harmonia("workflows", "list").out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[red]x[/red]" in shown


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
