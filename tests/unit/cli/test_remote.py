"""Remote components on the command line: asked at the start, diagnosed, and shown."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.runtime.remote_components import ask_services, remote_components
from harmonia_actors.settings import Settings
from harmonia_serve.cli.installation import reports
from harmonia_serve.cli.installation.plan import make_plan
from harmonia_serve.cli.installation.ray_process import Driver
from harmonia_serve.cli.installation.remote import with_catalogues
from harmonia_serve.cli.problems import CommandFailed
from tests.support.local_service import local_service
from tests.support.remote_service import RemoteServer, answering, served_in_a_thread
from tests.unit.cli.conftest import Harmonia


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARMONIA_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def server() -> Iterator[RemoteServer]:
    made = RemoteServer()
    made.action("echo", answering({"output": "echoed"}))
    with served_in_a_thread(made.app()) as url:
        made.url = f"{url}/parts"
        yield made


def nobody() -> str:
    """A URL at which nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_service_that_is_away_keeps_up_from_starting(harmonia: Harmonia, tmp_path: Path) -> None:
    url = nobody()
    refused = harmonia("up", "--components", url)
    assert refused.code == 1
    assert url in refused.err
    assert "cannot be reached" in refused.err
    assert "leave its URL out of the components" in refused.err
    assert not (tmp_path / "data").exists(), "nothing was started"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://user:canary@host/", "HARMONIA_COMPONENT_TOKENS"),
        ("http://host/?key=canary", "without what follows"),
        ("gopher://host/", "http://host"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_before_anybody_is_asked(
    harmonia: Harmonia, tmp_path: Path, url: str, says: str
) -> None:
    refused = harmonia("up", "--components", f"greeter,{url}")
    assert refused.code == 2
    assert says in refused.err
    assert "canary" not in refused.err
    assert not (tmp_path / "data").exists()


def test_doctor_says_what_services_offer(
    harmonia: Harmonia, server: RemoteServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> Any:
        checks: Any = harmonia("doctor", "--json").json
        return {check["subject"]: check for check in checks["checks"]}

    monkeypatch.setenv("HARMONIA_COMPONENTS", server.url)
    monkeypatch.setenv("HARMONIA_COMPONENT_TOKENS", json.dumps({server.url: "canary"}))
    check = found()["remote components"]
    assert (check["verdict"], check["text"]) == ("ok", f"{server.url}: far")
    assert server.asked[-1][1]["authorization"] == "Bearer canary"
    server.catalogue = answering({}, 503)
    check = found()["remote components"]
    assert check["verdict"] == "fail"
    assert "503" in check["text"]
    assert check["way_out"]
    monkeypatch.setenv("HARMONIA_COMPONENTS", "http://user:canary@host")
    checks = found()
    assert checks["settings"]["verdict"] == "fail"
    assert "remote components" not in checks
    assert "canary" not in str(checks)


def test_a_name_that_a_module_has_too_is_refused_before_ray_is_started(
    server: RemoteServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "farther.py").write_text(
        "from harmonia_actors.components.contract import Component\ncomponent = Component('far')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    plan = make_plan({"components": f"farther,{server.url}", "data_dir": tmp_path})
    known = with_catalogues(plan.settings)
    plan = plan.with_settings(component_catalogues=known.component_catalogues)
    told: list[reports.Report] = []
    with pytest.raises(CommandFailed, match="two components are called 'far'") as caught:
        Driver(plan, told.append).bring_up()
    assert server.url in caught.value.message
    assert told == [], "nothing was begun"


def test_the_catalogue_shows_where_remote_components_are(
    harmonia: Harmonia, server: RemoteServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = asyncio.run(ask_services(Settings(components=(server.url,))))
    with local_service(tmp_path, components=remote_components(settings)) as service:
        monkeypatch.setenv("HARMONIA_URL", service.url)
        monkeypatch.setenv("HARMONIA_API_KEY", service.api_key)
        listed = harmonia("components", "list").out
        shown = harmonia("components", "show", "far").out
        near = harmonia("components", "show", "ergon").out
    assert server.url in listed
    assert f"remote, at {server.url}" in shown
    assert "remote" not in near
