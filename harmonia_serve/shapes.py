"""From pydantic's findings about a body to the API's errors: 400 for types, 422 for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from harmonia_actors.core.errors import HarmoniaError, InvalidRequest, Problem, ValidationFailed
from harmonia_serve.queries import nearest

__all__ = ["refuse_many_unknown", "shape_error"]

#: Pydantic's name of an error to what the value must be.
_TYPES: Final = {
    "string_type": "a string",
    "literal_error": "a string",
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


def refuse_many_unknown(document: Any, model: type[BaseModel]) -> None:
    """Raise ValidationFailed if an object has more unknown fields than are shown.

    To be asked before pydantic, which makes an error of each.
    """
    waiting: list[tuple[tuple[str, ...], Any, type[BaseModel]]] = [((), document, model)]
    while waiting:
        loc, value, kind = waiting.pop()
        if not isinstance(value, dict):
            continue
        fields = {field.alias or name: field for name, field in kind.model_fields.items()}
        if kind.model_config.get("extra") == "forbid":
            unknown = [name for name in value if name not in fields]
            if len(unknown) > ValidationFailed.SHOWN_MAX:
                shown = unknown[: ValidationFailed.SHOWN_MAX]
                found = [
                    Problem(_path([*loc, name]), _unknown_message(name, fields)) for name in shown
                ]
                raise ValidationFailed("request", found, total=len(unknown))
        waiting += [
            ((*loc, name), value[name], inner)
            for name, field in fields.items()
            if name in value and (inner := _model_itself(field.annotation)) is not None
        ]


def shape_error(error: ValidationError, model: type[BaseModel]) -> HarmoniaError:
    """The error for a body that does not fit its model: about types first, if there are any."""
    details = error.errors(include_url=False, include_context=False)
    wrong = [item for item in details if _is_wrong_type(item)]
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


def _is_wrong_type(item: ErrorDetails) -> bool:
    """Also of what must be one of some words, if it is no text at all."""
    is_word = item["type"] == "literal_error" and isinstance(item["input"], str)
    return item["type"] in _TYPES and not is_word


def _type_message(item: ErrorDetails) -> str:
    given = item["input"]
    noun = "null" if given is None else _JSON_NOUNS.get(type(given), "something else")
    if isinstance(given, float) and item["type"].startswith("int"):
        noun = str(given)
    if item["type"] == "float_type" and isinstance(given, int) and not isinstance(given, bool):
        return "must be a number that fits a float"
    return f"must be {_TYPES[item['type']]}, not {noun}"


def _message(item: ErrorDetails, model: type[BaseModel]) -> str:
    if item["type"] == "missing":
        return "is required"
    if item["type"] == "extra_forbidden":
        return _unknown_message(str(item["loc"][-1]), _fields_at(model, item["loc"][:-1]))
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input should ")
    return f"must {message}" if item["msg"].startswith("Input should ") else message


def _unknown_message(name: str, known: Iterable[str]) -> str:
    hint = nearest(name, known) or f"; there are: {', '.join(known)}"
    return f"there is no such field{hint}"


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


def _model_itself(annotation: Any) -> type[BaseModel] | None:
    """The model that a field's value must fit, if it is one, or None besides."""
    options = get_args(annotation) or (annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)


def _path(loc: Sequence[int | str]) -> str:
    """`tasks.a.depends_on[0]`."""
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
