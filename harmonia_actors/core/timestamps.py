"""Milliseconds since 1970 to the API's timestamps (`2025-01-15T12:00:00Z`, whole seconds, UTC)."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

__all__ = ["timestamp", "timestamp_or_none"]


@lru_cache(maxsize=256)
def _of_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def timestamp(at_ms: int) -> str:
    """The API's form of a point in time; the part below a second is cut off."""
    return _of_second(at_ms // 1000)


def timestamp_or_none(at_ms: int | None) -> str | None:
    """As `timestamp`, and None stays None."""
    return None if at_ms is None else timestamp(at_ms)
