"""Single mutations of an event log: one event dropped, told twice, moved or altered.

What follows is numbered anew, so that nothing is wrong with the log but its story.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["altered", "dropped", "every_mutation", "numbered", "swapped", "told_twice"]

Message = dict[str, Any]

#: Texts that a log may hold of whatever content, so that nothing in it can contradict them.
_FREE = ("message", "name", "progress", "output", "duration_seconds")


def numbered(log: Sequence[Message]) -> list[Message]:
    """The log with its events numbered from 1, and log lines as parts of the one before."""
    made, seq, part = [], 0, 0
    for message in log:
        seq, part = (seq, part + 1) if message["type"] == "task_log" else (seq + 1, 0)
        place = {"seq": seq, "part": part} if part else {"seq": seq}
        made.append({**{k: v for k, v in message.items() if k != "part"}, **place})
    return made


def dropped(log: Sequence[Message]) -> Iterator[tuple[str, list[Message]]]:
    """One event is not there."""
    for place, message in enumerate(log):
        yield f"drop {place + 1} {message['type']}", numbered([*log[:place], *log[place + 1 :]])


def told_twice(log: Sequence[Message]) -> Iterator[tuple[str, list[Message]]]:
    """One event is there once more, anywhere after its place."""
    for place, message in enumerate(log):
        for second in range(place + 1, len(log) + 1):
            name = f"tell {place + 1} {message['type']} again before {second + 1}"
            yield name, numbered([*log[:second], copy.deepcopy(message), *log[second:]])


def swapped(log: Sequence[Message]) -> Iterator[tuple[str, list[Message]]]:
    """Two events have changed places."""
    for first in range(len(log)):
        for second in range(first + 1, len(log)):
            changed = list(log)
            changed[first], changed[second] = log[second], log[first]
            yield f"swap {first + 1} and {second + 1}", numbered(changed)


def altered(log: Sequence[Message]) -> Iterator[tuple[str, list[Message]]]:
    """One value in one event is another: one that stands in such a place elsewhere, or odd."""
    values = _values(log)
    for place, message in enumerate(log):
        for path, value in _leaves(message):
            for other in _others(path, value, values):
                changed = copy.deepcopy(list(log))
                _set(changed[place], path, other)
                yield f"{place + 1} {'.'.join(path)}: {value!r} -> {other!r}", changed


def every_mutation(log: Sequence[Message]) -> Iterator[tuple[str, list[Message]]]:
    """All of them."""
    yield from dropped(log)
    yield from told_twice(log)
    yield from swapped(log)
    yield from altered(log)


def _leaves(message: Message) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield ("type",), message["type"]
    yield ("execution_id",), message["execution_id"]
    for key, value in message["data"].items():
        if isinstance(value, dict) and key not in _FREE:
            for inner, inner_value in value.items():
                yield ("data", key, inner), inner_value
        elif key not in _FREE:
            yield ("data", key), value


def _values(log: Sequence[Message]) -> dict[tuple[str, ...], list[Any]]:
    found: dict[tuple[str, ...], list[Any]] = {}
    for message in log:
        for path, value in _leaves(message):
            known = found.setdefault(path, [])
            if value not in known:
                known.append(value)
    return found


def _others(
    path: tuple[str, ...], value: Any, values: dict[tuple[str, ...], list[Any]]
) -> Iterator[Any]:
    yield from (other for other in values[path] if other != value)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value - 1, value + 1)
    elif isinstance(value, str):
        yield "something else"


def _set(message: Message, path: tuple[str, ...], value: Any) -> None:
    place = message
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
