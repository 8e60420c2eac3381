"""Numbers and values of a table as clean JSON: no NaN, no infinity, no numpy, bounded text."""

from __future__ import annotations

import datetime
import math
from typing import Any

__all__ = ["SHOWN_LENGTH_MAX", "cell", "number", "percent", "shown"]

#: Characters of a value that results show.
SHOWN_LENGTH_MAX = 80
_SIGNIFICANT_DIGITS = 6


def number(value: Any) -> float | int | None:
    """A number to six significant digits, whole part kept; None for what is no finite number."""
    value = _plain(value)
    if isinstance(value, int):
        return int(value)
    try:
        value = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return _rounded(value) if math.isfinite(value) else None


def _rounded(value: float) -> float | int:
    if value == 0:
        return 0
    digits = _SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, min(max(0, digits), 300))
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def percent(part: float, whole: float) -> float:
    """What `part` is of `whole`, in per cent with one decimal; 0 of nothing."""
    return round(100 * float(part) / float(whole), 1) if whole else 0.0


def shown(value: Any) -> str:
    """A value as text, valid Unicode, cut if it is long."""
    text = str(_plain(value)).encode("utf-8", "replace").decode()
    return text if len(text) <= SHOWN_LENGTH_MAX else text[: SHOWN_LENGTH_MAX - 1] + "…"


def cell(value: Any) -> Any:
    """A table's cell as JSON: null, boolean, number or text."""
    value = _plain(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, (datetime.datetime, datetime.date)):
        try:
            return value.isoformat()
        except ValueError:  # pandas' "not a time"
            return None
    if isinstance(value, (str, bytes, list, dict, tuple)):
        return shown(value)
    text = shown(value)
    return None if text in ("<NA>", "NaT", "nan") else text


def _plain(value: Any) -> Any:
    """The value without numpy: its scalars and arrays as Python's own, also within others."""
    import numpy as np

    match value:
        case str():
            return value
        case np.generic():
            return value.item()
        case np.ndarray() | list():
            return [_plain(member) for member in value]
        case dict():
            return {key: _plain(member) for key, member in value.items()}
        case _:
            return value
