"""Whatever a failure is made of can be stored; how deep JSON is nested is found without depth."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from harmonia_actors.core import jsontext
from harmonia_actors.core.safe_text import CODE_CHARS_MAX, MESSAGE_CHARS_MAX, safe_text
from harmonia_actors.core.stimuli import Failure

JSON = some.recursive(
    some.none() | some.integers() | some.text('[]{}"\\,:a', max_size=6),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
    max_leaves=20,
)


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


@pytest.mark.parametrize("details", [["a"], {"a": {1, 2}}, {"a": float("nan")}, {"a": "\ud800"}])
def test_details_that_are_no_json_object_are_left_out(details: Any) -> None:
    assert list(Failure("m", "C", details).details) == ["note"]


def depth(value: Any) -> int:
    """By recursion, as nobody should do with what may be deep."""
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@given(JSON, some.integers(0, 6))
def test_depth_is_that_of_a_recursive_count(value: Any, levels: int) -> None:
    assert jsontext.nests_deeper(json.dumps(value).encode(), levels) == (depth(value) > levels)


def test_what_is_deeper_than_any_recursion_can_be_asked() -> None:
    body = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    assert jsontext.nests_deeper(body, 200)
