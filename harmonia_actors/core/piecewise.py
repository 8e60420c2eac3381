"""JSON of values of any size, written in pieces, so that other threads have turns in between.

The standard library's encoder holds the interpreter lock from a value's first byte to its last. It
is given no more at a time than takes a few milliseconds, except for a single text that is larger.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harmonia_actors.core import jsontext

__all__ = ["TooDeep", "encode_in_pieces", "is_small"]

#: About the bytes of a piece: what is in it counts with its text, and each value with some more.
_PIECE_BYTES = 65_536
_VALUE_BYTES = 8
#: Elements of a large object or array that are tried as one piece.
_BATCH = 64


class TooDeep(ValueError):
    """Objects and arrays stand in each other more often than is allowed."""


def is_small(value: Any) -> bool:
    """Whether a value is so small that it is written at once. Takes no longer for a large one."""
    return _levels_of_small(value) is not None


def encode_in_pieces(value: Any, levels_max: int) -> bytes:
    """What `jsontext.encode` gives. Raises as it does, or TooDeep, which takes no recursion."""
    writing = _Writing(levels_max)
    writing.write(value, 0)
    return b"".join(writing.pieces)


def _levels_of_small(value: Any) -> int | None:
    """How many objects and arrays stand in each other in a small value; None if it is large."""
    size = levels = 0
    found = [value]
    while True:
        inner: list[Any] = []
        containers = 0
        size += _VALUE_BYTES * len(found)
        for each in found:
            if isinstance(each, str):
                size += len(each)
            elif isinstance(each, dict | list | tuple):
                containers += 1
                if size + _VALUE_BYTES * (len(inner) + len(each)) > _PIECE_BYTES:
                    return None
                if isinstance(each, dict):
                    size += sum(len(key) for key in each if isinstance(key, str))
                    inner.extend(each.values())
                else:
                    inner.extend(each)
        if size > _PIECE_BYTES:
            return None
        if not containers:
            return levels
        levels += 1
        found = inner


class _Writing:
    """The pieces of one value, in order."""

    def __init__(self, levels_max: int) -> None:
        self.pieces: list[bytes] = []
        self._levels_max = levels_max
        self._outer: set[int] = set()

    def write(self, value: Any, level: int) -> None:
        """Write a value that stands in so many objects and arrays."""
        levels = _levels_of_small(value)
        if levels is not None or not isinstance(value, dict | list | tuple):
            self._require(level + (levels or 0))
            self.pieces.append(jsontext.encode(value))
            return
        if id(value) in self._outer:
            raise ValueError("Circular reference detected")
        self._require(level + 1)
        self._outer.add(id(value))
        first, last = (b"{", b"}") if isinstance(value, dict) else (b"[", b"]")
        self.pieces.append(first)
        for number, batch in enumerate(_batches(value)):
            if number:
                self.pieces.append(b",")
            self._write_batch(batch, level)
        self.pieces.append(last)
        self._outer.discard(id(value))

    def _write_batch(self, batch: dict[Any, Any] | list[Any], level: int) -> None:
        """Write elements of a large object or array: together if they are small, or each alone."""
        levels = _levels_of_small(batch)
        if levels is not None:
            self._require(level + levels)
            self.pieces.append(jsontext.encode(batch)[1:-1])
            return
        keys = iter(batch)
        for number, each in enumerate(batch.values() if isinstance(batch, dict) else batch):
            if number:
                self.pieces.append(b",")
            if isinstance(batch, dict):
                self.pieces.append(jsontext.encode({next(keys): None})[1 : -len("null}")])
            self.write(each, level + 1)

    def _require(self, levels: int) -> None:
        if levels > self._levels_max:
            raise TooDeep(f"nested more than {self._levels_max} deep")


def _batches(value: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> Iterator[Any]:
    if isinstance(value, dict):
        batch: dict[Any, Any] = {}
        for key, each in value.items():
            batch[key] = each
            if len(batch) == _BATCH:
                yield batch
                batch = {}
        if batch:
            yield batch
    else:
        for at in range(0, len(value), _BATCH):
            yield list(value[at : at + _BATCH])
