"""`harmonia doctor` tells all that is wrong, and is not stopped by the first of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Harmonia

SUBJECTS = (
    "Python", "Ray", "curl", "memory", "shared memory", "open files", "data directory", "disk",
    "port",
)  # fmt: skip


def diagnosed(harmonia: Harmonia) -> dict[str, Any]:
    found: Any = harmonia("doctor", "--json")
    assert found.code == int(any(c["verdict"] == "fail" for c in found.json["checks"]))
    return {check["subject"]: check for check in found.json["checks"]}


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARMONIA_DATA_DIR", str(tmp_path))


def test_everything_is_looked_at(harmonia: Harmonia) -> None:
    checks = diagnosed(harmonia)
    assert [*checks] == [*SUBJECTS, "store"]
    assert "✓" in harmonia("doctor").out


@pytest.mark.parametrize(
    ("name", "value", "failed", "expected"),
    [
        ("HARMONIA_HOST", "0.0.0.0", "settings", "--allow-commands"),  # noqa: S104
        ("HARMONIA_HOST", "no-such-host.invalid", "port", "no-such-host.invalid"),
        ("HARMONIA_HOST", "192.0.2.1", "port", "192.0.2.1"),
        ("HARMONIA_REDIS_URL", "redis://redis.invalid:6379/0", "settings", "password"),
        ("HARMONIA_REDIS_URL", "redis://:zq[xv@h:1/0", "settings", "percent-encoded"),
        ("HARMONIA_INGRESS", "nginx", "settings", "HARMONIA_INGRESS"),
        ("HARMONIA_NODE_TYPES", "[{", "settings", "HARMONIA_NODE_TYPES"),
        ("HARMONIA_EXECUTION_ACTORS_MAX", "1", "settings", "execution_actors_min"),
    ],
)
def test_a_setting_that_up_would_refuse_is_a_finding_like_others(
    harmonia: Harmonia,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    failed: str,
    expected: str,
) -> None:
    monkeypatch.setenv(name, value)
    checks = diagnosed(harmonia)
    found = checks[failed]
    assert found["verdict"] == "fail"
    assert expected in found["text"] + found["way_out"]
    assert {"Python", "Ray", "curl", "memory"} <= {*checks}
    assert "zq[xv" not in str(checks)
    shown = harmonia("doctor")
    assert (shown.code, "✗ fail" in shown.out, shown.err) == (1, True, "")
