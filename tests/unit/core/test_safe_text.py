"""Whatever a failure is made of can be stored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from harmonia_actors.core import jsontext
from harmonia_actors.core.safe_text import CODE_CHARS_MAX, MESSAGE_CHARS_MAX, safe_text
from harmonia_actors.core.stimuli import Failure


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no")


@given(some.text() | some.integers() | some.binary(), some.text())
def test_any_failure_can_be_stored(message: Any, code: str) -> None:
    failure = Failure(message, code, {"message": message})
    jsontext.encode([failure.message, failure.code, failure.details])


def test_what_is_too_long_or_cannot_be_shown_is_cut_and_named() -> None:
    failure = Failure("m" * 9_000, "C" * 900, {"big": "x" * 40_000})
    assert (len(failure.message), failure.message[-1]) == (MESSAGE_CHARS_MAX, "…")
    assert len(failure.code) == CODE_CHARS_MAX
    assert failure.details == {"note": "the details had 40010 bytes and were left out"}
    assert safe_text(Unspeakable()) == "<Unspeakable that cannot be shown>"
    assert safe_text("\ud800") == "\\ud800"
    assert safe_text("\ud800" * 10, 20) == ("\\ud800" * 4)[:19] + "…"
    assert safe_text(safe_text("x" * 15 + "\ud800", 20), 20) == safe_text("x" * 15 + "\ud800", 20)


@pytest.mark.parametrize("details", [["a"], {"a": {1, 2}}, {"a": float("nan")}, {"a": "\ud800"}])
def test_details_that_are_no_json_object_are_left_out(details: Any) -> None:
    assert list(Failure("m", "C", details).details) == ["note"]
