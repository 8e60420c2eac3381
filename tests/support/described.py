"""Holds every answer of a service against the description that the service gives of itself."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import httpx
import jsonschema_rs

__all__ = ["Described"]

#: Parameters that may hold slashes.
_LONG = ("path", "task_name")


class Described:
    """An OpenAPI document; `check` is a hook for the answers of an httpx client.

    `done` names the operations that were answered without an error, as (method, path).
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self.done: set[tuple[str, str]] = set()
        paths = sorted(document["paths"], key=lambda path: (path.count("{"), -len(path)))
        self._patterns = [(re.compile(_pattern(path)), path) for path in paths]

    @property
    def operations(self) -> set[tuple[str, str]]:
        """All that are described."""
        return {
            (method.upper(), path)
            for path, methods in self._document["paths"].items()
            for method in methods
        }

    def check(self, response: httpx.Response) -> None:
        """Raise AssertionError unless an answer is one that its operation is described with."""
        request = response.request
        path = self._path(request.url.path)
        what = f"{request.method} {path}: {response.status_code}"
        operation = self._document["paths"][path][request.method.lower()]
        answers = operation["responses"]
        assert str(response.status_code) in answers, f"{what} is not described: {sorted(answers)}"
        content = answers[str(response.status_code)].get("content", {})
        response.read()
        kind = response.headers.get("content-type", "").partition(";")[0]
        is_described = kind in content or "*/*" in content
        assert is_described or not (content or response.content), f"{what}: {kind}"
        schema = content.get(kind, {}).get("schema")
        if schema:
            problems = self._problems(json.dumps(schema), response.json())
            assert not problems, f"{what}: {problems}: {response.text[:1000]}"
        if response.is_success:
            self.done.add((request.method, path))

    def _path(self, path: str) -> str:
        return next(template for pattern, template in self._patterns if pattern.fullmatch(path))

    def _problems(self, schema: str, value: Any) -> list[str]:
        return [
            f"{e.instance_path}: {e.message}" for e in self._validator(schema).iter_errors(value)
        ]

    @cache  # noqa: B019 - as long as a test
    def _validator(self, schema: str) -> Any:
        whole = {**json.loads(schema), "components": self._document["components"]}
        return jsonschema_rs.validator_for(whole, validate_formats=True)


def _pattern(path: str) -> str:
    parts = re.split(r"\{(\w+)\}", path)
    for place in range(1, len(parts), 2):
        parts[place] = ".+" if parts[place] in _LONG else "[^/]+"
    parts[::2] = map(re.escape, parts[::2])
    return "".join(parts)
