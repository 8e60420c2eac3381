"""How large a JSON value is, without looking at more of it than the answer needs."""

from __future__ import annotations

from typing import Any

__all__ = ["holds_no_more"]


def holds_no_more(value: Any, *, parts: int, chars: int) -> bool:
    """Whether a value has at most so many parts (values within values) and characters of text."""
    waiting: list[Any] = [value]
    while waiting:
        parts -= 1
        item = waiting.pop()
        if isinstance(item, str):
            chars -= len(item)
        elif isinstance(item, dict):
            if len(item) > parts:
                return False
            chars -= sum(map(len, item))
            waiting.extend(item.values())
        elif isinstance(item, list):
            if len(item) > parts:
                return False
            waiting.extend(item)
        if parts < 0 or chars < 0:
            return False
    return True
