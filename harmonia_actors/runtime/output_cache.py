"""Outputs of tasks, decoded, kept in memory for those that will need them: bounded by size.

A cache only: what is not here is read from the store.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

__all__ = ["OutputCache"]

#: Decoded JSON takes several times the memory of its text.
_DECODED_FACTOR = 5
_ENTRY_BYTES = 300


class OutputCache:
    """Least recently used outputs go first. Keys are (execution id, output key)."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._entries: OrderedDict[tuple[str, str], tuple[Any, int]] = OrderedDict()

    def put(self, key: tuple[str, str], value: Any, size: int) -> None:
        """Keep a value whose JSON has `size` bytes, unless it alone would fill the cache."""
        cost = size * _DECODED_FACTOR + _ENTRY_BYTES
        if cost > self._bytes_max or key in self._entries:
            return
        self._entries[key] = (value, cost)
        self._bytes += cost
        while self._bytes > self._bytes_max:
            _, (_, freed) = self._entries.popitem(last=False)
            self._bytes -= freed

    def get(self, key: tuple[str, str]) -> tuple[Any] | None:
        """The value in a tuple, or None if it is not here."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return (entry[0],)

    def drop(self, key: tuple[str, str]) -> None:
        """Forget a value."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1]
