"""Commands against the real service, which takes less than a gateway of the tests' own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.local_service import LocalService, local_service
from tests.unit.cli.conftest import Harmonia
from tests.unit.components.test_wfcommons import INSTANCE, SCRIPT

GREETING = {
    "name": "greeting",
    "tasks": {
        "greet": {
            "component": "harmonia",
            "action": "echo",
            "input": {"value": "Hello, ${workflow.input.name}!"},
        }
    },
    "output": {"said": "${tasks.greet.output.value}"},
}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    with local_service(tmp_path_factory.mktemp("service")) as found:
        yield found


@pytest.fixture
def real(installation: LocalService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory to work in, with a definition, from which the service is found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARMONIA_URL", installation.url)
    monkeypatch.setenv("HARMONIA_API_KEY", installation.api_key)
    (tmp_path / "greeting.json").write_text(json.dumps(GREETING))
    return tmp_path


@pytest.mark.parametrize("source", ["--definition", "--workflow"])
def test_a_template_of_what_is_there_and_a_workflow_of_the_template(
    real: Path, harmonia: Harmonia, source: str
) -> None:
    """Without a schema, the template's parameters are what the references need."""
    made: Any = harmonia("workflows", "create", "greeting.json", "--json").json
    origin = "greeting.json" if source == "--definition" else made["workflow_id"]
    template: Any = harmonia("templates", "create", "--name", "t", source, origin, "--json").json
    assert template["parameters"] == {"name": {"required": True}}
    template_id = template["template_id"]
    refused = harmonia("templates", "instantiate", template_id, "--name", "i")
    assert (refused.code, "name" in refused.err) == (1, True)
    instance: Any = harmonia(
        "templates", "instantiate", template_id, "--name", "i", "--value", "name=Ada", "--json"
    ).json
    ran = harmonia("run", instance["workflow_id"])
    assert (ran.code, json.loads(ran.out)) == (0, {"said": "Hello, Ada!"})


def test_a_template_with_a_schema_and_a_description_of_its_own(
    real: Path, harmonia: Harmonia
) -> None:
    (real / "schema.json").write_text('{"name": {"type": "string", "default": "you"}}')
    template: Any = harmonia(
        *("templates", "create", "--name", "t", "--definition", "greeting.json"),
        *("--parameters", "schema.json", "--description", "d", "--json"),
    ).json
    assert template["parameters"] == {"name": {"type": "string", "default": "you"}}
    template_id = template["template_id"]
    assert "default" in harmonia("templates", "show", template_id).out
    instance: Any = harmonia(
        "templates", "instantiate", template_id, "--name", "i", "--description", "e", "--json"
    ).json
    assert (template["description"], instance["description"]) == ("d", "e")
    assert harmonia("run", instance["workflow_id"]).code == 0
    assert harmonia("templates", "delete", template_id).code == 0


def test_a_checkpoint_without_a_description(real: Path, harmonia: Harmonia) -> None:
    ran: Any = harmonia("run", "greeting.json", "-i", "name=Ada", "--json").json
    execution_id = ran["execution_id"]
    kept: Any = harmonia("checkpoints", "create", execution_id, "--name", "c", "--json").json
    restored: Any = harmonia("checkpoints", "restore", kept["checkpoint_id"], "--json").json
    again: Any = harmonia("executions", "follow", restored["execution_id"], "--json").json
    assert again["output"] == {"said": "Hello, Ada!"}


def large(**more: Any) -> str:
    tasks = {
        name: {"component": "harmonia", "action": "echo", "input": {"value": value}}
        for name, value in (("big", "x" * 100_000), ("small", "y"))
    }
    return json.dumps({"name": "large", "tasks": tasks, **more})


def test_a_large_output_is_printed_whole(real: Path, harmonia: Harmonia) -> None:
    (real / "large.json").write_text(large(output={"said": "${tasks.big.output.value}"}))
    ran = harmonia("run", "large.json")
    assert json.loads(ran.out) == {"said": "x" * 100_000}
    document: Any = harmonia("run", "large.json", "--json").json
    assert document["output"] == {"said": "x" * 100_000}
    shown = harmonia("executions", "output", document["execution_id"])
    assert (shown.json, shown.err) == ({"said": "x" * 100_000}, "")


def test_what_is_kept_apart_is_told(real: Path, harmonia: Harmonia) -> None:
    (real / "large.json").write_text(large())
    ran = harmonia("run", "large.json")
    output = json.loads(ran.out)
    assert output["small"] == {"value": "y"}
    assert output["big"].keys() == {"$ref", "size", "preview"}
    execution_id = output["big"]["$ref"].split("/")[2]
    way = f"harmonia executions output {execution_id} big"
    assert way in ran.err
    assert "harmonia executions output exec-" in harmonia("run", "large.json", "--json").err
    shown = harmonia("executions", "output", execution_id)
    assert (shown.json, way in shown.err) == (output, True)
    whole = harmonia("executions", "output", execution_id, "big")
    assert (whole.json, whole.err) == ({"value": "x" * 100_000}, "")


def test_no_output_is_an_error_that_says_so(real: Path, harmonia: Harmonia) -> None:
    fails = {"a": {"component": "harmonia", "action": "fail", "input": {"message": "no"}}}
    (real / "fails.json").write_text(json.dumps({"name": "fails", "tasks": fails}))
    ran: Any = harmonia("run", "fails.json", "--json").json
    shown = harmonia("executions", "output", ran["execution_id"])
    assert (shown.code, shown.out) == (1, "")
    assert "is failed and has no output" in shown.err


def test_a_recorded_workflow_runs_in_an_order_that_its_files_allow(
    real: Path, harmonia: Harmonia
) -> None:
    """The example script makes the workflow, and judges the events as the command prints them."""
    (real / "recorded.json").write_text(json.dumps(INSTANCE))
    script = [sys.executable, str(SCRIPT), "recorded.json"]
    subprocess.run([*script, "--action", "noop", "--output", "made.json"], check=True)
    ran: Any = harmonia("run", "made.json", "--json").json
    events = harmonia("executions", "events", ran["execution_id"], "--json")
    assert len(events.out.splitlines()) == ran["last_seq"]
    (real / "events.jsonl").write_text(events.out)
    judged = subprocess.run(
        [*script, "--check", "events.jsonl"], capture_output=True, text=True, check=False
    )
    assert (judged.returncode, judged.stderr) == (0, ""), judged.stdout
