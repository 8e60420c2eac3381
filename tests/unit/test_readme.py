"""The README is true: its tables are the code's, its commands parse, its snippets run."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harmonia_actors.components.contract import ActionError
from harmonia_actors.core.references import INPUT, compile_template, resolve
from harmonia_actors.runtime.remote_components import (
    ask_services,
    load_registry,
    remote_components,
)
from harmonia_actors.settings import Settings
from harmonia_serve.cli.main import app
from harmonia_serve.client import HarmoniaClient
from tests.architecture.source import PACKAGES, ROOT, read_sources
from tests.support.local_service import LocalService, local_service
from tests.support.readme_blocks import (
    KINDS,
    blocks,
    prose,
    run_blocks,
    unmarked_blocks,
    write_files,
)
from tests.support.readme_tables import MAKERS, README, with_tables
from tests.support.remote_service import (
    answering,
    ndjson,
    serve_remote,
    served_in_a_thread,
)
from tests.unit.components.context import context_in

TEXT = README.read_text(encoding="utf-8")
PROMISE = (
    "fter a 2xx an execution is never lost with `appendfsync always`, and at most the last second "
    "is lost with `everysec`. Each task's outcome is recorded once, and no task starts before the "
    "outcomes it depends on are durable; task code may run more than once, each time with a new "
    "attempt number that it can see; two actors can never both advance one execution."
)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalService]:
    """A service that has the README's own components, the remote one included."""
    write_files(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with served_in_a_thread(import_module("shouter").app) as url:
        settings = asyncio.run(ask_services(Settings(components=(f"{url}/components",))))
        remote = remote_components(settings)
        with local_service(tmp_path / "service", ["greeter"], remote) as found:
            yield found
    del sys.modules["shouter"]


def table_below(marker: str) -> list[list[str]]:
    """The cells of the table that follows a marker, without its head."""
    lines = TEXT.partition(f"<!-- test: {marker} -->\n")[2].partition("\n\n")[0].splitlines()
    rows = [[cell.strip().strip("`") for cell in line.strip("| ").split(" | ")] for line in lines]
    assert len(rows) > 3
    return rows[2:]


def is_command(line: str) -> bool:
    """Whether `harmonia` has this command with these options. Nothing is run."""
    return CliRunner().invoke(app, [*shlex.split(line, comments=True), "--help"]).exit_code == 0


def test_every_block_says_how_it_is_tested() -> None:
    assert unmarked_blocks() == []
    assert {block.kind for block in blocks()} == KINDS
    assert len(re.findall(r"^```\w", TEXT, re.MULTILINE)) - TEXT.count("```mermaid") == len(
        blocks()
    )


def test_tables_are_what_the_code_says() -> None:
    assert with_tables(TEXT) == TEXT, "`make docs` writes them anew"
    filled = re.findall(r"<!-- begin (\w+) -->\n[^<]", TEXT)
    assert sorted(filled) == sorted(MAKERS), "each stands there once, and is not empty"


def test_the_promise_is_word_for_word() -> None:
    quoted = " ".join(re.sub(r"^> ", "", TEXT, flags=re.MULTILINE).split())
    assert PROMISE in quoted


def test_every_setting_does_something() -> None:
    read = {
        node.attr
        for source in read_sources(*PACKAGES)
        if source.path != "harmonia_actors/settings.py"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute)
    }
    assert set(Settings.model_fields) - read == set()


def test_variables_that_the_text_names_are_settings() -> None:
    known = {f"HARMONIA_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"HARMONIA_[A-Z_]+", TEXT))
    assert named - known == {"HARMONIA_URL", "HARMONIA_API_KEY"}


def test_links_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in anchors
        elif not target.startswith("https://"):
            assert (ROOT / target).exists(), target


def test_commands_are_ones_that_there_are() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)
    lines = [line for block in blocks("commands") for line in block.text.splitlines()]
    assert len(lines) > 10
    for line in lines:
        words = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line)
        if words.startswith("make "):
            assert words.split()[1] in targets, line
        elif words.startswith("harmonia "):
            assert is_command(words.removeprefix("harmonia ")), line
        else:
            assert words == "source .venv/bin/activate"
    for line in re.findall(r"`harmonia ([a-z][^`]*)`", prose()):
        assert is_command(line), line


@pytest.mark.parametrize("line", ["up --adress auto", "executions lst", "frobnicate"])
def test_a_command_that_there_is_not_is_noticed(line: str) -> None:
    assert not is_command(line)


def test_references_become_what_the_table_says() -> None:
    values = json.loads(blocks("values")[0].text)
    outputs = values["outputs"]
    for written, becomes in table_below("references"):
        template = compile_template(json.loads(written), set(outputs))
        found = resolve(
            template,
            lambda task: values["input"] if task is INPUT else outputs[task],
            limit_bytes=10_000,
        )
        assert found == json.loads(becomes), written


def test_the_drawing_names_what_there_is() -> None:
    text = blocks("drawing")[0].text
    classes = {
        node.name
        for source in read_sources("harmonia_actors/actors")
        for node in source.tree.body
        if isinstance(node, ast.ClassDef)
    }
    assert {"ExecutionActor", "TaskActor", "TaskPool", "Broadcaster", "Supervisor"} <= classes
    assert set(re.findall(r"\b[A-Z][a-z]+(?:Actor|Pool)\b", text)) <= classes


def test_the_data_directory_has_what_the_table_says() -> None:
    strings = {
        node.value
        for source in read_sources(*PACKAGES)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert {name for name, _ in table_below("places")} - strings == set()


def test_the_examples_are_all_described() -> None:
    described = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^- `([^`]+)`:", described, re.MULTILINE))
    files = {path.name for path in (ROOT / "examples").iterdir() if path.is_file()}
    assert named == files - {"README.md"}


def test_the_changelog_begins_with_this_version() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    first = re.search(r"^## \[([^\]]+)\]", changes, re.MULTILINE)
    assert first is not None
    assert first[1] == project["version"]


def test_definitions_could_be_created(service: LocalService) -> None:
    with HarmoniaClient(service.url, service.api_key) as client:
        for block in blocks("definition"):
            assert client.create_workflow(json.loads(block.text))["workflow_id"]


async def test_the_contract_of_remote_components_is_the_one_that_is_spoken(tmp_path: Path) -> None:
    shown = {block.name: block.text for block in blocks("contract")}
    call = json.loads(shown["call"])
    async with serve_remote() as server:
        server.catalogue = answering(json.loads(shown["catalogue"]))
        lines = [line.encode() + b"\n" for line in shown["answer"].splitlines()]
        server.action("shout", ndjson(*lines))
        settings = await ask_services(Settings(components=(server.url,)))
        action = load_registry(settings).action("shouter", "shout")
        context = context_in(tmp_path, task_name="shout")
        with pytest.raises(ActionError) as raised:
            await action.function(**action.parse(call["input"]), context=context)
    path, headers, body = server.asked[-1]
    assert path.endswith("/shouter/shout")
    assert headers["idempotency-key"] == body["attempt"]["idempotency_key"] == "exec-1/shout"
    assert body["input"] == call["input"]
    assert [*body] == [*call]
    assert [*body["attempt"]] == [*call["attempt"]]
    assert context.reports == [(0.5, "half of it")]
    assert len(context.lines) == 1
    error = json.loads(lines[-1])["error"]
    told = raised.value
    assert error == {
        "message": told.message,
        "code": told.code,
        "details": told.details,
        "retriable": told.retriable,
    }


def test_a_reader_who_types_it_all_in_order_has_a_service_when_it_takes_one() -> None:
    """And none when it is to be started, for a second `up` on the same directory is refused."""
    is_up = False
    told = TEXT[: TEXT.index("## Operations")]
    for block in blocks("commands", "walkthrough", "component"):
        if block.text not in told:
            # Other ways to start it, one of which a reader chooses; what follows asks it something.
            assert is_up
        elif block.kind != "commands":
            assert is_up, block.text
        else:
            started = r"^(?:[A-Z_]+=\S+ )*harmonia (\w+)"
            for command in re.findall(started, block.text, re.MULTILINE):
                assert is_up is (command != "up"), block.text
                is_up = command != "down"


def test_a_reader_can_follow_every_step(service: LocalService, tmp_path: Path) -> None:
    run_blocks(["walkthrough", "component"], tmp_path, service.url, service.api_key)
