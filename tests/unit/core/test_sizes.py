"""Whether a value is small is found out without looking at all of a large one."""

from __future__ import annotations

from typing import Any

import pytest

from harmonia_actors.core.sizes import holds_no_more


@pytest.mark.parametrize(
    ("value", "parts", "chars"),
    [
        (None, 1, 0),
        ("abc", 1, 3),
        ([], 1, 0),
        ([1, 2.5, True], 4, 0),
        ({"key": "value", "k": {"deep": []}}, 4, 13),
    ],
)
def test_parts_and_characters_are_counted(value: Any, parts: int, chars: int) -> None:
    assert holds_no_more(value, parts=parts, chars=chars)
    assert not holds_no_more(value, parts=parts - 1, chars=chars)
    if chars:
        assert not holds_no_more(value, parts=parts, chars=chars - 1)


def test_a_large_value_is_not_looked_through() -> None:
    class Counted(list[Any]):
        seen = 0

        def __iter__(self) -> Any:
            self.seen += 1
            return super().__iter__()

    large = Counted([1] * 1_000)
    assert not holds_no_more(large, parts=1_000, chars=0)
    assert large.seen == 0
