"""Checks of schemas, and of values against schemas, whose cost is bounded whatever clients send.

What is plain and small is checked at once: its cost grows with its size. Everything else goes to a
process of its own that may die of it, see `schema_process`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import Problem, ServiceUnavailable, ValidationFailed
from harmonia_actors.core.sizes import holds_no_more
from harmonia_actors.runtime.service.schema import (
    check_schema,
    find_input_problems,
    find_problems,
    is_property_map,
    missing_inputs,
    with_defaults_filled_in,
)
from harmonia_actors.runtime.service.schema_process import (
    TAKES_LONG,
    CheckLimits,
    Findings,
    ProcessGone,
    SchemaProcess,
)

__all__ = ["ActionInput", "AtOnce", "SchemaChecks"]

_log = logging.getLogger(__name__)

#: Keywords whose checks cost no more than the value they look at. Not among them: references and
#: combinations, which can multiply, and patterns.
_PLAIN: Final = frozenset(
    {
        *("type", "enum", "const", "default", "format", "title", "description", "examples"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
        *("uniqueItems", "properties", "required", "items", "additionalProperties", "$comment"),
        *("deprecated", "readOnly", "writeOnly"),
    }
)
#: Checks that go on at the same time in one replica; others wait their turn, but not for ever.
_AT_A_TIME: Final = 2
_TURN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class AtOnce:
    """Up to which size what is plain is checked at once: JSON values, and characters in all."""

    schema_parts_max: int = 500
    schema_chars_max: int = 20_000
    value_parts_max: int = 1_000
    value_chars_max: int = 20_000
    #: Up to which number of parts, of each of the two, all that is wrong is told at once.
    told_parts_max: int = 70


@dataclass(frozen=True, slots=True)
class ActionInput:
    """The input of a task, or of an attempt, and the schema of its action's input."""

    schema: Mapping[str, Any]
    values: Mapping[str, Any]
    #: Inputs whose references have no values yet.
    dynamic: Collection[str] = ()


class SchemaChecks:
    """The checks of one replica."""

    def __init__(
        self,
        limits: CheckLimits,
        at_once: AtOnce | None = None,
        *,
        turn_s: float | None = _TURN_S,
    ) -> None:
        """`turn_s` is how long a check waits for its turn at most; None: as long as it takes."""
        self._limits = limits
        self._turn_s = turn_s
        self._at_once = at_once or AtOnce()
        self._turns = asyncio.Semaphore(_AT_A_TIME)
        self._idle: list[SchemaProcess] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._idle)

    async def of_schema(self, schema: Any) -> list[tuple[str, str]]:
        """Problems of an `input_schema` or of template `parameters`, each as (where, message)."""
        if not isinstance(schema, dict) or self._is_plain(schema):
            return list(check_schema(schema))
        findings = await self._ask({"schema": schema})
        if findings.whole and findings.found is not None:
            return findings.found
        return [
            (
                "",
                f"takes more than {self._bounds()} to check; a schema with fewer references below "
                "anyOf, oneOf or allOf, or with shorter repetitions in its patterns, takes less",
            )
        ]

    async def of_values(
        self, values: Mapping[str, Any], schema: Mapping[str, Any], field: str
    ) -> list[Problem]:
        """What is wrong with values, the first of it."""
        at_once = self._of_values_at_once(values, schema, field)
        if at_once is not None:
            return at_once
        findings = await self._ask({"schema": schema, "values": values, "field": field})
        if findings.found is not None:
            return [Problem(where, message) for where, message in findings.found]
        return [Problem(field, self._too_long)]

    async def of_inputs(self, inputs: Sequence[ActionInput]) -> list[list[tuple[str, str]]]:
        """What is wrong with each, as (where, message), for inputs of one definition.

        What is not plain and small is checked in one go, within the bounds of one check.
        """
        found = [self._of_input_at_once(each) for each in inputs]
        left = [number for number, problems in enumerate(found) if problems is None]
        if left:
            for number, problem in await self._of_inputs_apart([inputs[each] for each in left]):
                found[left[number]] = [*(found[left[number]] or ()), problem]
        return [problems or [] for problems in found]

    async def _of_inputs_apart(
        self, inputs: Sequence[ActionInput]
    ) -> list[tuple[int, tuple[str, str]]]:
        schemas: dict[int, Mapping[str, Any]] = {id(each.schema): each.schema for each in inputs}
        place = {key: number for number, key in enumerate(schemas)}
        asked = [[place[id(each.schema)], each.values, [*each.dynamic]] for each in inputs]
        findings = await self._ask({"schemas": [*schemas.values()], "inputs": asked})
        if findings.found is None:
            return [(0, ("", self._too_long))]
        told: list[tuple[int, tuple[str, str]]] = []
        for where, message in findings.found:
            number, _, path = where.partition(":")
            told.append((int(number), (path, message if message != TAKES_LONG else self._too_long)))
        return told

    def _of_input_at_once(self, given: ActionInput) -> list[tuple[str, str]] | None:
        """None if it may take long to tell."""
        most = self._at_once
        parts_max = most.told_parts_max
        schema, values = given.schema, given.values
        if not (
            holds_no_more(values, parts=parts_max, chars=most.value_chars_max)
            and holds_no_more(schema, parts=parts_max, chars=most.schema_chars_max)
            and self._is_plain(schema)
        ):
            return None
        telling = find_input_problems(values, schema, given.dynamic, "")
        return [(problem.field, problem.message) for problem in telling]

    async def complete_input(
        self,
        values: Mapping[str, Any],
        schema: Mapping[str, Any] | None,
        needed: Mapping[str, str],
        *,
        subject: str = "execution",
        field: str = "input",
    ) -> dict[str, Any]:
        """The input with defaults filled in, checked. Raises ValidationFailed."""
        complete = with_defaults_filled_in(values, schema)
        problems = []
        if schema is not None:
            problems = await self.of_values(complete, schema, field)
        problems += missing_inputs(complete, needed, problems, field)
        if problems:
            raise ValidationFailed(subject, problems)
        return complete

    def _of_values_at_once(
        self, values: Mapping[str, Any], schema: Mapping[str, Any], field: str
    ) -> list[Problem] | None:
        """None if it may take long to tell."""
        most = self._at_once
        small = holds_no_more(values, parts=most.value_parts_max, chars=most.value_chars_max)
        if not small or not self._is_plain(schema):
            return None
        telling = find_problems(values, schema, field)
        last = next(telling)
        if (better := next(telling, None)) is None:
            return last
        # Each part of the schema may find fault with each part of the values.
        if not all(
            holds_no_more(one, parts=most.told_parts_max, chars=10**9) for one in (schema, values)
        ):
            return None
        *_, last = better, *telling
        return last

    def _is_plain(self, schema: Mapping[str, Any]) -> bool:
        most = self._at_once
        if not holds_no_more(schema, parts=most.schema_parts_max, chars=most.schema_chars_max):
            return False
        if is_property_map(schema):
            return all(_is_plain(of_property) for of_property in schema.values())
        return _is_plain({key: value for key, value in schema.items() if key != "$schema"})

    @property
    def _too_long(self) -> str:
        return (
            f"takes more than {self._bounds()} to hold against its schema; a simpler schema, "
            "or less of an input, takes less"
        )

    def _bounds(self) -> str:
        megabytes = self._limits.memory_bytes_max // 1_000_000
        return f"{self._limits.cpu_s_max:g} s of processor time or {megabytes} MB of memory"

    async def _ask(self, request: Mapping[str, Any]) -> Findings:
        """Raises ServiceUnavailable."""
        try:
            async with asyncio.timeout(self._turn_s):
                await self._turns.acquire()
        except TimeoutError:
            raise ServiceUnavailable(
                "other schemas that take long are being checked; try again"
            ) from None
        checking = asyncio.get_running_loop().run_in_executor(None, self._check, request)
        # A request that is given up leaves its check under way, which still takes up its place.
        checking.add_done_callback(self._done)
        try:
            return await asyncio.shield(checking)
        except (ProcessGone, OSError) as error:
            _log.warning("a schema could not be checked: %s", error)
            raise ServiceUnavailable("the schema could not be checked; try again") from error

    def _done(self, checking: asyncio.Future[Findings]) -> None:
        self._turns.release()
        if not checking.cancelled():
            checking.exception()

    def _check(self, request: Mapping[str, Any]) -> Findings:
        """In a thread."""
        with self._lock:
            process = self._idle.pop() if self._idle else SchemaProcess(self._limits)
        try:
            return process.check(jsontext.encode(request))
        finally:
            with self._lock:
                self._idle.append(process)


def _is_plain(schema: Any) -> bool:
    """Whether a check against a schema, which is small, costs no more than the value is large."""
    if schema is None or isinstance(schema, bool):
        return True
    if not isinstance(schema, dict):
        return False
    if not schema.keys() <= _PLAIN or schema.get("format") == "regex":
        return False
    properties = schema.get("properties", {})
    below = [*properties.values()] if isinstance(properties, dict) else []
    below += [schema.get("items"), schema.get("additionalProperties")]
    return all(_is_plain(inner) for inner in below)


def _close_all(processes: list[SchemaProcess]) -> None:
    while processes:
        processes.pop().close()
