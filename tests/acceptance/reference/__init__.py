"""The API reference's examples, complete and verbatim, as data, and how to compare with them.

Each JSON file holds one section: the operations with their requests, responses and statuses, the
events, the errors. Where the reference leaves something out (`{ ... }`), the data has the string
"..."; it stands for any value, and in a list for any further items. The statuses of creates (201)
and accepted executions (202) are ours, since the reference names none.

`assert_same_shape` holds a real document against an example: every key of the example must be
there with the same JSON type, ids and timestamps in the same form. Values are free, and so are
further keys.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ELIDED", "Operation", "assert_same_shape", "load", "operations", "without_elisions"]

ELIDED = "..."
_FOLDER = Path(__file__).parent
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_ID = re.compile(rf"(wf|exec|tmpl|cp)-{_UUID}")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True)
class Operation:
    """One operation of the reference, with what is printed for it."""

    section: str
    name: str
    method: str
    path: str
    status: int
    response: Any
    request: Any = None
    query_parameters: tuple[str, ...] = ()


def load(name: str) -> dict[str, Any]:
    """One section: workflows, executions, templates, state, websocket, sse or errors."""
    found: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def operations() -> list[Operation]:
    """Every REST operation, in the reference's order."""
    found = []
    for name in ("workflows", "executions", "templates", "state"):
        section = load(name)
        found += [
            Operation(
                section=section["section"],
                name=raw["operation"],
                method=raw["method"],
                path=raw["path"],
                status=raw["status"],
                response=raw["response"],
                request=raw.get("request"),
                query_parameters=tuple(item["name"] for item in raw.get("query_parameters", ())),
            )
            for raw in section["operations"]
        ]
    return found


def without_elisions(value: Any) -> Any:
    """The value with elided members taken as empty objects, and elided list items left out."""
    if value == ELIDED:
        return {}
    if isinstance(value, dict):
        return {key: without_elisions(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_elisions(item) for item in value if item != ELIDED]
    return value


def assert_same_shape(example: Any, actual: Any, where: str = "") -> None:
    """Raise AssertionError, naming the place, unless `actual` has the shape of `example`.

    Null in an example says that there may be no value yet: anything but an object or an array
    may stand there.
    """
    place = where or "the document"
    if example == ELIDED:
        return
    if example is None:
        assert not isinstance(actual, dict | list), f"{place}: {actual!r} where a scalar belongs"
    elif isinstance(example, dict):
        assert isinstance(actual, dict), f"{place}: {actual!r} is not an object"
        missing = [key for key in example if key not in actual]
        assert not missing, f"{place}: lacks {missing}; has {sorted(actual)}"
        for key, item in example.items():
            assert_same_shape(item, actual[key], f"{where}.{key}" if where else key)
    elif isinstance(example, list):
        assert isinstance(actual, list), f"{place}: {actual!r} is not an array"
        assert actual or not example, f"{place}: is empty"
        shown = [item for item in example if item != ELIDED]
        for index, item in enumerate(actual if shown else []):
            assert_same_shape(shown[min(index, len(shown) - 1)], item, f"{where}[{index}]")
    elif isinstance(example, str):
        _assert_same_text(example, actual, place)
    else:
        same = _kind(actual) == _kind(example)
        assert same, f"{place}: {actual!r} is not {_kind(example)}, like {example!r}"


def _assert_same_text(example: str, actual: Any, place: str) -> None:
    assert isinstance(actual, str), f"{place}: {actual!r} is not a string"
    identity = _ID.fullmatch(example)
    if identity:
        found = _ID.fullmatch(actual)
        assert found and found[1] == identity[1], f"{place}: {actual!r} is no {identity[1]}- id"
    if _TIMESTAMP.fullmatch(example):
        assert _TIMESTAMP.fullmatch(actual), f"{place}: {actual!r} is no timestamp like {example}"


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    return "a number" if isinstance(value, int | float) else type(value).__name__
