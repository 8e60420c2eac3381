"""An event, as every part of the store's contract sees it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StoredEvent"]


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as the log of its execution holds it."""

    seq: int
    body: bytes
