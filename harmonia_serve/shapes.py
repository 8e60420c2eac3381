"""From pydantic's findings about a body to the API's errors: 400 for types, 422 for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from harmonia_actors.core.errors import HarmoniaError, InvalidRequest, Problem, ValidationFailed
from harmonia_serve.queries import nearest

__all__ = ["shape_error"]

#: Pydantic's name of an error to what the value must be.
_TYPES: Final = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "an object",
    "list_type": "an array",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_JSON_NOUNS: Final = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
}


def shape_error(error: ValidationError, model: type[BaseModel]) -> HarmoniaError:
    """The error for a body that does not fit its model: about types first, if there are any."""
    details = error.errors(include_url=False, include_context=False)
    wrong = [item for item in details if item["type"] in _TYPES]
    if wrong:
        problems = [Problem(_path(item["loc"]), _type_message(item)) for item in wrong]
        first = problems[0]
        shown = [problem.to_json() for problem in problems[: ValidationFailed.SHOWN_MAX]]
        return InvalidRequest(
            f"{first.field} {first.message}", {"errors": shown, "total": len(problems)}
        )
    return ValidationFailed(
        "request", (Problem(_path(item["loc"]), _message(item, model)) for item in details)
    )


def _type_message(item: ErrorDetails) -> str:
    given = item["input"]
    noun = "null" if given is None else _JSON_NOUNS.get(type(given), "something else")
    if isinstance(given, float) and item["type"].startswith("int"):
        noun = str(given)
    return f"must be {_TYPES[item['type']]}, not {noun}"


def _message(item: ErrorDetails, model: type[BaseModel]) -> str:
    if item["type"] == "missing":
        return "is required"
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, item["loc"][:-1])
        hint = nearest(str(item["loc"][-1]), known) or f"; there are: {', '.join(known)}"
        return f"there is no such field{hint}"
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input should ")
    return f"must {message}" if item["msg"].startswith("Input should ") else message


def _fields_at(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """Names of the fields of the model that a place in the body belongs to."""
    current: type[BaseModel] | None = model
    for step in loc:
        field = current.model_fields.get(str(step)) if current else None
        # A step that is no field is a key or an index within the model that was found before.
        found = next(_models(field.annotation), None) if field else current
        current = found or current
    return [field.alias or name for name, field in current.model_fields.items()] if current else []


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _path(loc: Sequence[int | str]) -> str:
    """`tasks.a.depends_on[0]`."""
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
