"""Input schemas: property maps or whole JSON Schemas, defaults, and what is wrong with values.

Pure functions, without bound in time and memory: a schema of a few lines can ask for hours. Whoever
serves others meanwhile asks `schema_checks` instead. Patterns run in a linear-time engine, and
references to other documents are never fetched, because both come from clients.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import jsonschema_rs

from harmonia_actors.core import jsontext
from harmonia_actors.core.definition import nearest
from harmonia_actors.core.errors import Problem
from harmonia_actors.core.references import compile_template
from harmonia_actors.core.workflow import Workflow

__all__ = [
    "as_json_schema",
    "check_schema",
    "find_input_problems",
    "find_problems",
    "inputs_of",
    "is_property_map",
    "missing_inputs",
    "required_inputs",
    "with_defaults",
    "with_defaults_filled_in",
]

_WHOLE_KEYWORDS = ("$schema", "$ref", "allOf", "anyOf", "oneOf", "additionalProperties")
#: What a default may refer to, and where it is.
_SHARED_KEYWORDS = ("$schema", "$defs", "definitions", "properties")
_UNUSABLE = (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError)
#: Keywords below which something holds only if other values are as they are.
_CONDITIONAL = frozenset({"if", "then", "else", "not", "anyOf", "oneOf", "unevaluatedProperties"})
#: Keywords below which one property is judged, whatever the others are.
_OF_ONE_PROPERTY = frozenset({"properties", "patternProperties", "additionalProperties"})
_PROBLEMS_MAX = 50
#: Looking for the name that was meant is slow.
_GUESSES_MAX = 10


def is_property_map(schema: Mapping[str, Any]) -> bool:
    """True for `{name: schema, …}`, False for a whole JSON Schema object."""
    if isinstance(schema.get("type"), str) or any(key in schema for key in _WHOLE_KEYWORDS):
        return False
    properties = schema.get("properties")
    return not (isinstance(properties, dict) and "type" not in properties)


def as_json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A property map as a whole JSON Schema; a whole one as it is."""
    if not is_property_map(schema):
        return dict(schema)
    properties = {}
    required = []
    for name, of_property in schema.items():
        if not isinstance(of_property, dict):
            properties[name] = of_property
            continue
        kept = dict(of_property)
        if isinstance(kept.get("required"), bool) and kept.pop("required"):
            required.append(name)
        properties[name] = kept
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _never_fetch(uri: str) -> Any:
    raise ValueError(f"'{uri}' is another document, and those are never fetched")


@lru_cache(maxsize=256)
def _validator(schema_text: str) -> Any:
    return jsonschema_rs.validator_for(
        jsontext.decode(schema_text),
        validate_formats=True,
        retriever=_never_fetch,
        pattern_options=jsonschema_rs.RegexOptions(),
    )


def check_schema(schema: Any) -> Iterable[tuple[str, str]]:
    """Problems of an `input_schema` or of template `parameters`, each as (where, message)."""
    if not isinstance(schema, dict):
        yield "", "must be an object: a schema for each input by name, or one JSON Schema"
        return
    if is_property_map(schema):
        for name, of_property in schema.items():
            if not isinstance(of_property, (dict, bool)):
                yield f".{name}", "must be a JSON Schema object"
                return
    try:
        _validator(jsontext.encode_text(as_json_schema(schema)))
    except _UNUSABLE as error:
        yield _within(schema, error), f"is not a schema that can be used: {_first_line(error)}"
        return
    yield from _check_defaults(schema)


def _within(schema: Mapping[str, Any], error: Exception) -> str:
    """Where in a schema an error is, as the schema was written."""
    steps = list(getattr(error, "instance_path", ()))
    if is_property_map(schema):
        steps = steps[1:]
    return _path(steps)


def _path(steps: Iterable[int | str]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _check_defaults(schema: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    defaults = _defaults(schema)
    if not defaults:
        return
    # Each on its own, so nothing is demanded of them together.
    kept = {k: v for k, v in as_json_schema(schema).items() if k in _SHARED_KEYWORDS}
    try:
        validator = _validator(jsontext.encode_text(kept))
    except _UNUSABLE:
        # They refer to yet another place of the schema, and are checked when they are used.
        return
    for name, default in defaults.items():
        try:
            validator.validate({name: default})
        except jsonschema_rs.ValidationError as error:
            yield f".{name}.default", _message(error)


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    whole = as_json_schema(schema)
    properties = whole.get("properties")
    return properties if isinstance(properties, dict) else {}


def _defaults(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    if schema is None:
        return {}
    return {
        name: of_property["default"]
        for name, of_property in _properties(schema).items()
        if isinstance(of_property, dict) and "default" in of_property
    }


def inputs_of(schema: Any) -> Collection[str] | None:
    """Names of all inputs that an execution can be given under a schema; None if any can."""
    if not isinstance(schema, dict):
        return None
    whole = as_json_schema(schema)
    is_closed = whole.get("additionalProperties") is False
    if not is_closed or "patternProperties" in whole or "$ref" in whole:
        return None
    return _properties(schema)


def required_inputs(workflow: Workflow) -> dict[str, str]:
    """Inputs that some reference needs and gives no default for, with that reference's text."""
    needed: dict[str, str] = {}
    for value in [*(task.input for task in workflow.tasks), workflow.output]:
        if value is None:
            continue
        for reference in compile_template(value, workflow.by_name).references:
            links = list(reference.chain())
            last = links[-1]
            if last.task is None and not last.has_default and last.path:
                needed.setdefault(str(last.path[0]), reference.text)
    return needed


def with_defaults_filled_in(
    values: Mapping[str, Any], schema: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The values, and the schema's defaults for what is not among them."""
    return {**_defaults(schema), **values}


def missing_inputs(
    values: Mapping[str, Any], needed: Mapping[str, str], told: Iterable[Problem], field: str
) -> Iterator[Problem]:
    """Problems for inputs that references need, unless they have been told of already."""
    fields = {problem.field for problem in told}
    for name, text in needed.items():
        where = f"{field}.{name}"
        if name not in values and where not in fields:
            yield Problem(where, f"is required: '{text}' refers to it")


def find_problems(
    values: Mapping[str, Any], schema: Mapping[str, Any], field: str
) -> Iterator[list[Problem]]:
    """What is wrong with values, told better each time: the last list is the one to show.

    Whether anything is wrong is cheap to tell, compared with what, and that with all of it: the
    library collects every error, with those of all branches of `anyOf`, before it gives the first.
    """
    whole = as_json_schema(schema)
    unknown: list[Problem] = []
    if is_property_map(schema):
        unknown = _unknown_inputs(values, _properties(schema), field)
        whole = {**whole, "additionalProperties": True}
    validator = _validator(jsontext.encode_text(whole))
    given = dict(values)
    if len(unknown) >= _PROBLEMS_MAX or validator.is_valid(given):
        yield unknown
        return
    yield [*unknown, Problem(field, "does not fit the schema; what is wrong takes long to find")]
    try:
        validator.validate(given)
    except jsonschema_rs.ValidationError as error:
        yield [*unknown, Problem(*_place(error, field))]
    found = [*unknown]
    for one in validator.iter_errors(given):
        found.append(Problem(*_place(one, field)))
        if len(found) >= _PROBLEMS_MAX:
            break
    yield found


def find_input_problems(
    values: Mapping[str, Any], schema: Mapping[str, Any], dynamic: Collection[str], field: str
) -> Iterator[Problem]:
    """What is wrong with the input of a task, for a whole schema of an action's input.

    Of inputs that are `dynamic`, whose references have no values yet, only their names are judged,
    and nothing is said of others that may depend on their values.
    """
    whole = schema
    known = inputs_of(schema)
    if known is not None:
        yield from _unknown_inputs(values, known, field)
        whole = {**schema, "additionalProperties": True}
    validator = _validator(jsontext.encode_text(whole))
    given = dict(values)
    if not validator.is_valid(given):
        for error in validator.iter_errors(given):
            if not dynamic or _is_of_what_is_known(error, dynamic):
                yield Problem(*_place(error, field))


def _is_of_what_is_known(error: Any, dynamic: Collection[str]) -> bool:
    """Whether an error will be there whatever the values of dynamic inputs are."""
    for step in error.evaluation_path:
        if step in _CONDITIONAL:
            return False
        if step in _OF_ONE_PROPERTY:
            break
    steps = list(error.instance_path)
    if steps:
        return steps[0] not in dynamic
    kind = type(error.kind).__name__
    return "Required" in kind or "AdditionalProperties" in kind


def _unknown_inputs(values: Mapping[str, Any], known: Collection[str], field: str) -> list[Problem]:
    found: list[Problem] = []
    for name in values:
        if name not in known:
            hint = nearest(name, known) if len(found) < _GUESSES_MAX else ""
            found.append(Problem(f"{field}.{name}", f"there is no such input{hint}"))
        if len(found) >= _PROBLEMS_MAX:
            break
    return found


def _place(error: Any, field: str) -> tuple[str, str]:
    where = field + _path(error.instance_path)
    kind = type(error.kind).__name__
    if "Required" in kind:
        name = str(error.kind.property).strip('"')
        return f"{where}.{name}", "is required"
    return where, _message(error)


def _message(error: Any) -> str:
    return str(error.message)


def _first_line(error: Exception) -> str:
    return str(getattr(error, "message", error)).strip().splitlines()[0]


def with_defaults(schema: Mapping[str, Any] | None, values: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with these values as the defaults of its inputs; inputs it lacks are added."""
    if schema is None:
        # A property map would refuse all inputs that it does not name.
        return {"type": "object", "properties": _put_defaults({}, values)}
    made = dict(schema)
    if not is_property_map(schema):
        properties = dict(made.get("properties") or {})
        made["properties"] = _put_defaults(properties, values)
        kept = [name for name in made.get("required", []) if name not in values]
        made["required"] = kept
        return made
    return _put_defaults(made, values)


def _put_defaults(properties: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in values.items():
        known = properties.get(name)
        kept = dict(known) if isinstance(known, dict) else {}
        if isinstance(kept.get("required"), bool):
            kept["required"] = False
        properties[name] = {**kept, "default": value}
    return properties
