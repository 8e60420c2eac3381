"""The command line against the real HTTP surfaces over a gateway in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harmonia_serve.cli.main import app
from tests.unit.service_thread import SMALL_WORKFLOW, Service, running_service


class Outcome:
    """What a command printed and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> object:
        return json.loads(self.out)


Harmonia = Callable[..., Outcome]


@pytest.fixture(scope="session")
def shared_service() -> Iterator[Service]:
    with running_service() as service:
        yield service


@pytest.fixture
def service(shared_service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Service:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARMONIA_URL", shared_service.url)
    monkeypatch.setenv("HARMONIA_API_KEY", shared_service.key)
    return shared_service


@pytest.fixture
def harmonia() -> Harmonia:
    """Run a command in this process."""

    def run(*arguments: str, stdin: str | None = None) -> Outcome:
        result = CliRunner().invoke(app, list(arguments), input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def workflow_file(tmp_path: Path) -> str:
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(SMALL_WORKFLOW))
    return str(path)
