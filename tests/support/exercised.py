"""What tests did with each item of the API reference's data, so that none is left out unseen."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.acceptance.reference import Operation, assert_same_shape, load, operations

__all__ = ["Exercised", "counts", "expected", "whole_module_runs"]


class Exercised:
    """Marks what was checked, as (section, kind, name). Kinds: request, response, parameter,
    event, error, example."""

    def __init__(self) -> None:
        self.marks: set[tuple[str, str, str]] = set()
        self._operations = {operation.name: operation for operation in operations()}

    def operation(self, name: str) -> Operation:
        """An operation of the reference by its title."""
        return self._operations[name]

    def request(self, name: str, **fields: Any) -> Any:
        """The body that the reference prints for an operation, with other values for fields."""
        found = self._operations[name]
        self.marks.add((found.section, "request", name))
        assert found.request is not None, f"{name} prints no request"
        return {**copy.deepcopy(found.request), **fields}

    def response(self, name: str, answer: httpx.Response, example: Any = None) -> dict[str, Any]:
        """Hold an answer against what the reference prints for the operation; the document.

        `example` stands for what is printed where another state of the same thing is meant.
        """
        found = self._operations[name]
        assert answer.request.method == found.method, answer.request.url
        assert answer.status_code == found.status, answer.text
        assert answer.headers["content-type"] == "application/json"
        document: dict[str, Any] = answer.json()
        assert_same_shape(found.response if example is None else example, document, name)
        self.marks.add((found.section, "response", name))
        return document

    def parameters(self, name: str, **values: Any) -> dict[str, Any]:
        """Query parameters for a list; the reference must name each of them."""
        found = self._operations[name]
        for parameter in values:
            assert parameter in found.query_parameters
            self.marks.add((found.section, "parameter", f"{name}: {parameter}"))
        return values

    def event(self, section: str, example: Any, actual: Any, name: str) -> None:
        """Hold an event against what the reference prints for it."""
        assert_same_shape(example, actual, name)
        self.marks.add((section, "event", name))


def expected(*kinds: str) -> set[tuple[str, str, str]]:
    """What the reference's data holds of these kinds, as the marks that it should get."""
    found = set()
    for operation in operations():
        section, name = operation.section, operation.name
        if operation.request is not None:
            found.add((section, "request", name))
        found.add((section, "response", name))
        for parameter in operation.query_parameters:
            found.add((section, "parameter", f"{name}: {parameter}"))
    for part in ("websocket", "sse"):
        section = load(part)["section"]
        for event in load(part)["events"]:
            found.add((section, "event", event.get("name") or event["event"]))
    errors = load("errors")
    found.add((errors["section"], "example", errors["example"]["error"]["code"]))
    for row in errors["codes"]:
        found.add((errors["section"], "error", row["code"]))
    return {mark for mark in found if mark[1] in kinds}


def counts(marks: set[tuple[str, str, str]]) -> Counter[tuple[str, str]]:
    """How many items of each section and kind."""
    return Counter((section, kind) for section, kind, _ in marks)


def whole_module_runs(request: pytest.FixtureRequest) -> bool:
    """Whether every test of the test's module was selected: only then can all be covered."""
    selected = {
        item.function.__name__
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module
    }
    return selected >= {name for name in vars(request.module) if name.startswith("test_")}
