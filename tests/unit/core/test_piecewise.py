"""JSON in pieces is that of one piece, is refused if it is nested too deep, and lets others in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from harmonia_actors.core import jsontext
from harmonia_actors.core.piecewise import TooDeep, encode_in_pieces, is_small
from tests.support.holding_up import counting_turns

TEXT = some.text('[]{}"\\,:aß', max_size=6)
LEAVES = some.none() | some.booleans() | some.integers() | TEXT
LEAVES |= some.floats(allow_nan=False, allow_infinity=False) | some.just("long" * 5_000)
JSON = some.recursive(
    LEAVES,
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.tuples(inner, inner)
        | some.dictionaries(TEXT | some.integers(), inner, max_size=3)
    ),
    max_leaves=20,
)
few = settings(max_examples=50, deadline=None)
#: Makes what it is given large, in a way of its own.
ENLARGED: dict[str, Callable[[Any], Any]] = {
    "not": lambda value: value,
    "in a list": lambda value: [value, *range(10_000), value],
    "in an object": lambda value: {**{str(n): n for n in range(10_000)}, "value": value, "b": [1]},
    "often": lambda value: [value] * 300,
    "beside a long text": lambda value: {"a": value, "b": "x" * 70_000, "c" * 70_000: [value]},
}


def depth(value: Any) -> int:
    """By recursion, as nobody should do with what may be deep."""
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list | tuple):
        return 1 + max(map(depth, value), default=0)
    return 0


@few
@given(JSON, some.sampled_from(sorted(ENLARGED)))
def test_many_pieces_are_what_one_would_be(value: Any, how: str) -> None:
    value = ENLARGED[how](value)
    assert encode_in_pieces(value, 100) == jsontext.encode(value)


@few
@given(JSON, some.sampled_from(sorted(ENLARGED)), some.integers(0, 6))
def test_depth_is_that_of_a_recursive_count(value: Any, how: str, levels: int) -> None:
    value = ENLARGED[how](value)
    if depth(value) <= levels:
        encode_in_pieces(value, levels)
        return
    with pytest.raises(TooDeep, match=f"more than {levels} deep"):
        encode_in_pieces(value, levels)


def test_what_is_deeper_than_any_recursion_can_be_asked() -> None:
    deep: Any = 1
    for _ in range(50_000):
        deep = {"a": [deep]}
    with pytest.raises(TooDeep):
        encode_in_pieces(deep, 200)


@pytest.mark.parametrize("how", sorted(ENLARGED))
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), {1}, "\ud800", {(1, 2): 3}])
def test_what_is_no_json_is_refused_as_in_one_piece(wrong: Any, how: str) -> None:
    value = ENLARGED[how](wrong)
    with pytest.raises((TypeError, ValueError)) as whole:
        jsontext.encode(value)
    with pytest.raises(whole.type):
        encode_in_pieces(value, 100)


def test_what_holds_itself_is_refused() -> None:
    around: list[Any] = [1]
    around.append({"again": around})
    with pytest.raises(ValueError, match="Circular"):
        encode_in_pieces(around, 100)


def test_small_is_what_takes_no_time_and_a_large_one_is_not_looked_at_whole() -> None:
    assert is_small({"a": [1, "x" * 1_000, {}]})
    assert is_small(list(range(5_000)))
    assert not is_small("x" * 70_000)
    assert not is_small({"a": {"x" * 70_000: 1}})
    assert not is_small([["x" * 100] * 100] * 100)
    around: list[Any] = []
    around.extend([around, around])
    assert not is_small(around)


def test_other_threads_have_turns_while_a_large_value_is_written() -> None:
    rows = [{"id": number, "of": ["a", 1.5]} for number in range(100_000)]
    with counting_turns() as turns:
        before = turns()
        encode_in_pieces(rows, 100)
        assert turns() - before > 20
