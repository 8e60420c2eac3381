"""JSON as Harmonia keeps it: strict, compact, UTF-8, and faithful to what clients sent.

The standard library's codec is used because it carries integers of any size and refuses NaN;
faster codecs change one or the other silently.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["decode", "encode", "encode_canonical", "encode_text", "nests_deeper"]

_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=True, separators=(",", ":")
)
_CANONICAL = json.JSONEncoder(allow_nan=False, sort_keys=True, separators=(",", ":"))


def encode_text(value: Any) -> str:
    """A value as compact JSON text.

    Raises ValueError (NaN, Infinity, circular), TypeError (not JSON) or RecursionError.
    """
    return _ENCODER.encode(value)


def encode(value: Any) -> bytes:
    """A value as compact UTF-8 JSON. Raises as `encode_text`; a lone surrogate is a ValueError."""
    return _ENCODER.encode(value).encode("utf-8")


def encode_canonical(value: Any) -> bytes:
    """A value as JSON that is the same for equal values, in whatever order their keys came."""
    return _CANONICAL.encode(value).encode("ascii")


def nests_deeper(value: Any, levels: int) -> bool:
    """Whether objects and arrays of a parsed value stand in each other more than `levels` deep.

    Level by level, without recursion.
    """
    outer = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        outer = [
            inner
            for each in outer
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not outer:
            return False
    return bool(outer)


def decode(text: bytes | str) -> Any:
    """Parse JSON that Harmonia has checked before. Raises ValueError."""
    return json.loads(text)
