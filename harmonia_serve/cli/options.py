"""Options that many commands share, and the client they lead to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from harmonia_serve.cli.problems import UsageProblem
from harmonia_serve.client import CannotBeSent, HarmoniaClient
from harmonia_serve.client.flows import once_key
from harmonia_serve.client.wire import check_json

__all__ = [
    "AsJson",
    "DataDir",
    "IdempotencyKey",
    "InputFile",
    "Inputs",
    "Limit",
    "Page",
    "TaskInputs",
    "Url",
    "connect",
    "parse_pairs",
    "parse_task_inputs",
    "read_inputs",
    "read_json_object",
]

_CONNECTION = "Where the service is"

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="URL of the service. Else HARMONIA_URL, else the data directory. The key is taken "
        "from HARMONIA_API_KEY or the data directory, never from the command line.",
        rich_help_panel=_CONNECTION,
        show_default=False,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Data directory of a `harmonia up`. Else HARMONIA_DATA_DIR, else .harmonia.",
        rich_help_panel=_CONNECTION,
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Page = Annotated[int, typer.Option("--page", min=1, help="Which page of the list.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100, help="Items on a page.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="NAME=VALUE",
        help="One input value; repeat for more. JSON if it parses as JSON, else text.",
        show_default=False,
    ),
]
InputFile = Annotated[
    str | None,
    typer.Option(
        "--input-file",
        metavar="FILE",
        help="A JSON object with input values (`-`: standard input); --input overrides it.",
        show_default=False,
    ),
]
TaskInputs = Annotated[
    list[str] | None,
    typer.Option(
        "--task-input",
        metavar="TASK=OBJECT",
        help="The whole input of a task, as a JSON object or @FILE; repeat for more.",
        show_default=False,
    ),
]


def _checked_key(key: str | None) -> str | None:
    try:
        return None if key is None else once_key(key)
    except ValueError as error:
        raise UsageProblem(str(error)) from None


IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        help="Start it once: the same command with the same key is the same execution.",
        callback=_checked_key,
        show_default=False,
    ),
]


def connect(url: str | None, data_dir: Path | None) -> HarmoniaClient:
    """The client that a command's options lead to."""
    return HarmoniaClient(url, data_dir=data_dir)


def parse_pairs(pairs: list[str] | None) -> dict[str, Any]:
    """`name=value` pairs; a value that parses as JSON is JSON, any other is text."""
    values: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise UsageProblem(f"'{pair}' is not NAME=VALUE", "Example: --input count=3")
        values |= _sendable({name: _value(text)}, f"input {name}")
    return values


def parse_task_inputs(pairs: list[str] | None) -> dict[str, dict[str, Any]]:
    """`task=object` pairs; the object is JSON, or `@` and the file that holds it."""
    inputs: dict[str, dict[str, Any]] = {}
    for pair in pairs or []:
        name, _, text = pair.partition("=")
        if text.startswith("@"):
            inputs[name] = read_json_object(text[1:])
            continue
        given = _value(text)
        if not name or not isinstance(given, dict):
            raise UsageProblem(
                f"'{pair}' is not TASK=OBJECT", """Example: --task-input 'report={"title": "x"}'"""
            )
        inputs[name] = _sendable(given, f"task input {name}")
    return inputs


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text


def _sendable(values: dict[str, Any], what: str) -> dict[str, Any]:
    """The values, if a request can hold them. Raises UsageProblem that says which it cannot."""
    try:
        check_json(values)
    except CannotBeSent as error:
        raise UsageProblem(f"{what}: {error}") from None
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def read_inputs(pairs: list[str] | None, input_file: str | None) -> dict[str, Any]:
    """Input values of a file and of the command line, which wins."""
    from_file = read_json_object(input_file) if input_file else {}
    return {**from_file, **parse_pairs(pairs)}


def read_json_object(path: str) -> dict[str, Any]:
    """The JSON object in a file, or on standard input for `-`."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        found = json.loads(text, parse_constant=_refuse_constant)
    except OSError as error:
        raise UsageProblem(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageProblem(f"{path} is not JSON: {error}") from error
    except RecursionError:
        raise UsageProblem(f"{path} is nested too deeply") from None
    if not isinstance(found, dict):
        raise UsageProblem(f"{path} must hold a JSON object, not a {type(found).__name__}")
    return _sendable(found, path)
