"""Settings come from the environment, and what makes no sense is refused with its name."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from harmonia_actors.actors.parts import janitor_limits
from harmonia_actors.settings import Settings


@pytest.fixture(autouse=True)
def no_retention_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARMONIA_RETENTION_S", raising=False)


def test_what_has_ended_is_kept_for_a_week_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert janitor_limits(Settings()).retention_ms == 7 * 86_400_000
    monkeypatch.setenv("HARMONIA_RETENTION_S", "90.5")
    assert janitor_limits(Settings()).retention_ms == 90_500
    monkeypatch.setenv("HARMONIA_RETENTION_S", "never")
    assert janitor_limits(Settings()).retention_ms is None


@pytest.mark.parametrize("value", ["0", "-1", "", "always", "nan", "inf"])
def test_a_retention_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HARMONIA_RETENTION_S", value)
    with pytest.raises(ValidationError, match="retention_s"):
        Settings()
