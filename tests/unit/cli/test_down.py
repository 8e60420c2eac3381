"""What `harmonia down` ends, and what keeps it from that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harmonia_serve.cli.down import stop
from harmonia_serve.cli.installation import records
from harmonia_serve.cli.installation.plan import stop_s_max
from harmonia_serve.cli.problems import CommandFailed
from tests.unit.cli.conftest import Harmonia

STAND_IN = "tests.unit.cli.stand_in"


def running(data_dir: Path, *, address: str = "", namespace: str = "harmonia") -> Path:
    data_dir.mkdir()
    records.write_running(
        data_dir, records.Running("http://a:1", 1, 1.0, namespace, 0, address, "log")
    )
    return data_dir


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in is found from the project's root, the only place it is known."""
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))


@pytest.mark.parametrize(
    "environ",
    [
        {"HARMONIA_HOST": "0.0.0.0"},  # noqa: S104 - what `up` would refuse
        {"HARMONIA_REDIS_URL": "redis://redis.example:6379/0"},
        {"HARMONIA_PORT": "none"},
        {"HARMONIA_NODE_TYPES": "[{"},
        {"HARMONIA_UP_STOP_S_MAX": "soon"},
    ],
)
def test_settings_that_up_would_refuse_do_not_keep_anything_running(
    harmonia: Harmonia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    ended = harmonia("down", "--data-dir", str(running(tmp_path / "data")))
    assert (ended.code, ended.err) == (0, "")
    assert records.read_running(tmp_path / "data") is None


def test_how_long_it_waits_is_a_setting() -> None:
    assert stop_s_max({"HARMONIA_UP_STOP_S_MAX": "7.5", "HARMONIA_PORT": "none"}) == 7.5
    for wrong in ("soon", "-1", "0", "inf", "nan"):
        assert stop_s_max({"HARMONIA_UP_STOP_S_MAX": wrong}) == stop_s_max({}) == 60.0


def test_what_goes_on_on_a_cluster_is_ended_there(importable: None, tmp_path: Path) -> None:
    data_dir = running(tmp_path / "data", address="10.0.0.1:6379", namespace="other")
    ended = stop(data_dir, ray_process=STAND_IN)
    assert ended == {"ended": ["Harmonia on the cluster at 10.0.0.1:6379 has stopped"]}
    taken_down = json.loads((data_dir / "taken_down").read_text())
    assert taken_down == {"address": "10.0.0.1:6379", "namespace": "other"}
    assert records.read_running(data_dir) is None
    assert stop(data_dir, ray_process=STAND_IN) == {"ended": []}


def test_a_cluster_that_cannot_be_reached_is_not_forgotten(
    importable: None, tmp_path: Path
) -> None:
    data_dir = running(tmp_path / "data", address="10.0.0.1:6379", namespace="broken")
    with pytest.raises(CommandFailed, match="the stand-in is broken") as caught:
        stop(data_dir, ray_process=STAND_IN)
    assert "mend it" in caught.value.way_out
    assert str(data_dir / "up.json") in caught.value.way_out
    assert records.read_running(data_dir) is not None
