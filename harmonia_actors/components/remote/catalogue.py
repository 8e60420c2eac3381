"""What a service says that it offers: fetched within bounds, and made into components.

The schemas in it are not judged here: whoever fetches it does that in a process of its own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from harmonia_actors.components.contract import Action, Component
from harmonia_actors.components.registry import ComponentLoadError
from harmonia_actors.components.remote.actions import make_action
from harmonia_actors.components.remote.exchange import (
    Answer,
    AnswerTooLarge,
    BrokenOff,
    Silent,
    Unreachable,
    exchange,
    parsed,
)
from harmonia_actors.components.remote.service import RemoteService

__all__ = ["components_of", "fetch_catalogue"]

#: What can stand in a URL's path as it is, and cannot mean another place.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_OK = 200


async def fetch_catalogue(service: RemoteService) -> Any:
    """What the service answers, as JSON. Raises ComponentLoadError that names URL and cause."""
    limits = service.limits
    try:
        async with (
            asyncio.timeout(limits.catalogue_s_max),
            exchange(
                service,
                "GET",
                service.url,
                headers={"Accept": "application/json"},
                begins_within_s=limits.catalogue_s_max,
            ) as answer,
        ):
            return await _read(service, answer)
    except (TimeoutError, Silent):
        cause = f"it does not answer within {limits.catalogue_s_max:g} s"
    except Unreachable as error:
        cause = f"it cannot be reached: {error}"
    except BrokenOff as error:
        cause = f"the connection broke off: {error}"
    except AnswerTooLarge as error:
        cause = str(error)
    raise ComponentLoadError(f"the catalogue of {service.url} cannot be had: {cause}")


async def _read(service: RemoteService, answer: Answer) -> Any:
    where = f"the catalogue of {service.url} cannot be had: it answered"
    if answer.status in (401, 403):
        raise ComponentLoadError(
            f"{where} {answer.status} {answer.reason}; "
            "its bearer token is set by HARMONIA_COMPONENT_TOKENS"
        )
    if 300 <= answer.status < 400:
        raise ComponentLoadError(f"{where} {answer.status}, and redirects are not followed")
    if answer.status != _OK:
        raise ComponentLoadError(f"{where} {answer.status} {answer.reason}")
    if answer.encoding != "identity":
        raise ComponentLoadError(f"{where} with Content-Encoding '{answer.encoding}', unasked")
    try:
        return parsed(await answer.whole(service.limits.catalogue_bytes_max))
    except ValueError as error:
        raise ComponentLoadError(f"{where} what is not JSON: {error}") from error


def components_of(service: RemoteService, catalogue: Any) -> list[Component]:
    """The components of a catalogue. Raises ComponentLoadError that names the place."""
    reading = _Reading(service)
    found = reading.object("components", reading.object("", catalogue).get("components"))
    return [reading.component(name, found[name]) for name in found]


class _Reading:
    """Reads a catalogue of a service and says where it is wrong."""

    def __init__(self, service: RemoteService) -> None:
        self._service = service

    def component(self, name: str, raw: Any) -> Component:
        where = f"components.{self._name('components', name)}"
        raw = self.object(where, raw)
        actions = self.object(f"{where}.actions", raw.get("actions"))
        made = {action: self._action(where, name, action, actions[action]) for action in actions}
        description = self._text(f"{where}.description", raw.get("description"))
        return Component(name, description, made, url=self._service.url)

    def _action(self, where: str, component: str, name: str, raw: Any) -> Action:
        where = f"{where}.actions.{self._name(f'{where}.actions', name)}"
        raw = self.object(where, raw)
        if raw.get("uses_files", False) is not False:
            raise self._wrong(
                f"{where}.uses_files",
                "is not supported: a service elsewhere has no workspace; leave it out, and hand "
                "over what is needed in input and output",
            )
        schema = self.object(f"{where}.input_schema", raw.get("input_schema"))
        if schema.get("type") != "object":
            raise self._wrong(
                f"{where}.input_schema",
                'must be the JSON Schema of an object, with "type": "object"',
            )
        description = self._text(f"{where}.description", raw.get("description"))
        return make_action(self._service, component, name, description, schema)

    def object(self, where: str, value: Any) -> Mapping[str, Any]:
        if isinstance(value, dict) and (value or where.endswith("input_schema")):
            return value
        kind = "an empty object" if value == {} else _kind(value)
        raise self._wrong(where or "the whole", f"must be a JSON object that is not empty: {kind}")

    def _text(self, where: str, value: Any) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(where, f"must be text: {_kind(value)}")
        return value.encode("utf-8", "backslashreplace").decode()

    def _name(self, where: str, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise self._wrong(
                where,
                f"has the name {name[:128]!a}; names have up to 128 letters, digits, _ . - "
                "and do not begin with . or -",
            )
        return name

    def _wrong(self, where: str, problem: str) -> ComponentLoadError:
        return ComponentLoadError(
            f"the catalogue of {self._service.url} cannot be used: {where} {problem}"
        )


def _kind(value: Any) -> str:
    return "it is missing" if value is None else f"it is {type(value).__name__}"
