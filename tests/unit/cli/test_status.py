"""`harmonia status` speaks of one service: the one that it has asked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.runtime.service.promise import PROMISES
from harmonia_serve.cli.installation import records
from harmonia_serve.cli.installation.lock import hold
from tests.support.local_service import local_service
from tests.unit.cli.conftest import Harmonia
from tests.unit.service_thread import Service

OTHER = "http://127.0.0.1:1"


def up(data_dir: Path, url: str, *, ready: bool = True) -> Path:
    """What an `up` of this process leaves in its data directory."""
    data_dir.mkdir(exist_ok=True)
    records.write_connection(data_dir, url, "hk_1", store="embedded harmonia")
    if ready:
        running = records.Running(url, os.getpid(), 1.0, "harmonia", 0, "", "log")
        records.write_running(data_dir, running)
    return data_dir


def test_another_service_is_not_mixed_up_with_the_one_of_the_data_directory(
    service: Service, harmonia: Harmonia, tmp_path: Path
) -> None:
    with hold(up(tmp_path / ".harmonia", OTHER)):
        for asked in ([], ["--url", service.url]):
            shown = harmonia("status", *asked)
            found: Any = harmonia("status", "--json", *asked).json
            assert (found["url"], found["problem"]) == (service.url, None)
            assert (found["up"], found["data_dir"], found["processes"]) == (None, None, [])
            assert service.url in shown.out
            assert OTHER not in shown.out
            assert str(os.getpid()) not in shown.out


def test_the_promise_is_said_in_plain_words(
    harmonia: Harmonia, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with local_service(tmp_path) as real:
        monkeypatch.setenv("HARMONIA_API_KEY", real.api_key)
        shown = harmonia("status", "--url", real.url)
        found: Any = harmonia("status", "--json", "--url", real.url).json
    durability = found["service"]["durability"]
    assert durability == {
        "promise": "none",
        "meaning": PROMISES["none"],
        "detail": "kept in memory: lost when the process ends",
    }
    assert f"none: {PROMISES['none']}" in shown.out
    assert durability["detail"] in shown.out


def test_the_service_of_the_data_directory_is_shown_with_its_processes(
    service: Service, harmonia: Harmonia, tmp_path: Path
) -> None:
    """Also if its URL is named."""
    data_dir = up(tmp_path / ".harmonia", service.url)
    with hold(data_dir):
        for asked in ([], ["--url", service.url]):
            found: Any = harmonia("status", "--json", *asked).json
            assert (found["url"], found["data_dir"]) == (service.url, str(data_dir))
            assert found["up"]["pid"] == os.getpid()
            assert [process["pid"] for process in found["processes"]] == [os.getpid()]


@pytest.mark.parametrize("ready", [True, False])
def test_a_service_that_does_not_answer_yet_is_said_to_be_starting(
    harmonia: Harmonia, tmp_path: Path, ready: bool
) -> None:
    data_dir = up(tmp_path / "data", OTHER, ready=ready)
    with hold(data_dir):
        shown = harmonia("status", "--data-dir", str(data_dir))
        assert (shown.code, "`harmonia up` runs" in shown.err) == (1, True)
        found = harmonia("status", "--data-dir", str(data_dir), "--json")
    document = json.loads(found.out)
    assert (found.code, document["url"]) == (1, OTHER)
    assert document["up"]["pid"] == os.getpid()
    assert "no answer" in document["problem"]


def test_nothing_at_all_is_told_as_such(
    harmonia: Harmonia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HARMONIA_URL", "HARMONIA_API_KEY", "HARMONIA_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    found = harmonia("status", "--json")
    document = json.loads(found.out)
    assert (found.code, document["url"], document["up"]) == (1, None, None)
    with hold(tmp_path / ".harmonia"):
        # Before its first start has come so far as to write where it will be.
        assert json.loads(harmonia("status", "--json").out)["up"]["pid"] == os.getpid()
