"""Settings come from the environment, and what makes no sense is refused with its name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from harmonia_actors.actors.supervisor_limits import janitor_limits
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


@pytest.mark.parametrize(
    ("given", "least"),
    [
        ({"task_actors_max": 1}, 4),
        ({"task_actors_max": 3}, 4),
        ({"task_actors_min": 6, "task_actors_max": 7}, 8),
    ],
)
def test_warm_task_actors_must_leave_places(given: dict[str, Any], least: int) -> None:
    with pytest.raises(ValidationError) as refusal:
        Settings(**given)
    (error,) = refusal.value.errors()
    assert error["loc"] == ("task_actors_max",)
    assert f"at least {least}" in error["msg"]
    assert "HARMONIA_TASK_ACTORS_MIN" in error["msg"]
    Settings(**given | {"task_actors_max": least})


def test_sizes_by_the_cpus_are_always_right() -> None:
    assert Settings(task_actors_min=50).task_actors_max == 0
    for name in ("task_actors_min", "task_actors_max"):
        with pytest.raises(ValidationError, match="greater than or equal to 0"):
            Settings(**{name: -1})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("HTTPS://Dash.Example", "https://dash.example"),
        ("https://dash.example:443", "https://dash.example"),
        ("http://dash.example:080", "http://dash.example"),
        ("https://dash.example:80", "https://dash.example:80"),
        ("http://[0:0::1]:8080/", "http://[::1]:8080"),
        ("http://localhost", "http://localhost"),
        ("http://my_host-1.example.:3000", "http://my_host-1.example.:3000"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_an_origin_is_what_browsers_make_of_it(
    monkeypatch: pytest.MonkeyPatch, written: str, meant: str
) -> None:
    monkeypatch.setenv("HARMONIA_ALLOWED_ORIGINS", f"https://other.example, {written}")
    assert Settings().allowed_origins == ("https://other.example", meant)
    assert Settings(allowed_origins=(meant,)).allowed_origins == (meant,)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("*", "name each"),
        ("https://*.example.com", "name each"),
        ("https://dash.example/app", "no path"),
        ("https://dash.example/?x=1", "no path"),
        ("https://dash.example#x", "no path"),
        ("https://dash.example//", "no path"),
        ("dash.example", "https://"),
        ("localhost:8080", "https://"),
        ("null", "https://"),
        ("file:///", "https://"),
        ("https://", "https://"),
        ("https://user@dash.example", "https://"),
        ("https://dash.example:", "https://"),
        ("https://dash.example:x", "https://"),
        ("https://dash.example:0", "https://"),
        ("https://dash.example:65536", "https://"),
        ("http://[::1", "https://"),
        ("http://[1:2]", "https://"),
        ("https://bücher.example", "xn--"),
        ("wss://dash.example", "https://dash.example"),
        ("ws://dash.example:81", "http://dash.example:81"),
        ("https://a b", "https://"),
    ],
)
def test_what_is_no_origin_is_refused_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, written: str, says: str
) -> None:
    monkeypatch.setenv("HARMONIA_ALLOWED_ORIGINS", f"https://other.example,{written}")
    with pytest.raises(ValidationError) as refusal:
        Settings()
    (error,) = refusal.value.errors()
    assert error["loc"] == ("allowed_origins",)
    assert f"'{written}'" in error["msg"]
    assert says in error["msg"]
