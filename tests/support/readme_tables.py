"""The README's tables and diagrams that say what the code says, made from the code.

    python -m tests.support.readme_tables     write them anew (`make docs`)

Each stands in the README between `<!-- begin NAME -->` and `<!-- end NAME -->`.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from harmonia_actors import settings as settings_module
from harmonia_actors import settings_handing_out, settings_telling
from harmonia_actors.components import argv, ergon
from harmonia_actors.components.analysis import columns
from harmonia_actors.components.registry import Registry
from harmonia_actors.components.remote import actions as remote_actions
from harmonia_actors.core import errors, events
from harmonia_actors.core.audit_findings import AUDIT_RULES
from harmonia_actors.core.statuses import EXECUTION_TRANSITIONS, TASK_TRANSITIONS
from harmonia_actors.core.stimuli import Failure, Output
from harmonia_actors.runtime import files
from harmonia_actors.runtime.remote_components import PACKED_BYTES_MAX
from harmonia_actors.settings import Settings
from harmonia_serve import once, problems
from harmonia_serve.app import build_app, guarded_routes
from harmonia_serve.cli.main import app

README = Path(__file__).resolve().parents[2] / "README.md"
_PLACE = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = (cell.replace("|", "\\|").replace("\n", " ") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def first_sentence(text: str | None) -> str:
    paragraph = " ".join((text or "").strip().split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s", paragraph)[0]


def settings_table() -> str:
    """Every setting, under the headings of its source."""
    source = inspect.getsource(settings_module).partition("model_config")[2]
    for part in (settings_handing_out, settings_telling):
        source += inspect.getsource(part)
    heading = ""
    groups: dict[str, list[Sequence[str]]] = {}
    for line in source.splitlines():
        if found := re.fullmatch(r"    # (\w.*)", line):
            heading = found.group(1)
        elif (found := re.match(r"    (\w+): ", line)) and found.group(1) in Settings.model_fields:
            name = found.group(1)
            field = Settings.model_fields[name]
            if field.exclude:
                # Not for users: it is handed on from process to process.
                continue
            row = (f"`HARMONIA_{name.upper()}`", _default(field), _code(field.description or ""))
            groups.setdefault(heading, []).append(row)
    return "\n\n".join(
        f"**{heading}**\n\n{table(('Variable', 'Default', 'What it is'), rows)}"
        for heading, rows in groups.items()
    )


def _code(text: str) -> str:
    """JSON in a description, set as code."""
    return re.sub(r"\[\{.*\}\]", lambda found: f"`{found[0]}`", text)


def _default(field: FieldInfo) -> str:
    value = field.get_default()
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None:
        return "unset"
    if isinstance(value, dict) and not value:
        return "empty"
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, int | float):
        whole = int(value) == value
        grouped = f"{int(value):_}" if value >= 10_000 else f"{int(value)}"
        value = grouped if whole else f"{value:g}"
    return f"`{value}`" if str(value) else "empty"


def fixed_limits() -> str:
    """Bounds that are no settings."""
    rows = [
        ("Bytes kept of a command's output, each stream", ergon.CAPTURE_BYTES),
        ("… and at most, with `max_output_bytes`", ergon.CAPTURE_BYTES_MAX),
        ("Bytes of `stderr` in the details of a failed command", ergon.STDERR_SHOWN_MAX),
        ("Lines that one attempt of a remote action may log", remote_actions.LOG_LINES_MAX),
        ("Bytes of all catalogues of remote components, compressed", PACKED_BYTES_MAX),
        ("Columns that `sophia.analyze_data` describes", columns.COLUMNS_MAX),
        ("Files that one listing of a workspace shows", files.FILES_SHOWN_MAX),
        ("Problems that one `validation_error` lists", errors.ValidationFailed.SHOWN_MAX),
        ("Characters of an `Idempotency-Key`", once.KEY_LENGTH_MAX),
        ("Characters of a command that is written as one text", argv.COMMAND_CHARS_MAX),
    ]
    return table(("What", "Limit"), [(what, f"{limit:,}") for what, limit in rows])


def commands() -> str:
    """The command line: each command with the first sentence of its help."""
    rows: list[Sequence[str]] = []
    for info in app.registered_commands:
        called = info.callback
        assert called is not None
        rows.append((f"`harmonia {called.__name__}`", first_sentence(called.__doc__)))
    for group in app.registered_groups:
        inner = group.typer_instance
        assert isinstance(inner, typer.Typer)
        names = [_command_name(info) for info in inner.registered_commands]
        listed = ", ".join(f"`{name}`" for name in names)
        rows.append((f"`harmonia {group.name} …`", listed))
    return table(("Command", "What it does"), rows)


def _command_name(info: Any) -> str:
    return str(info.name or info.callback.__name__.strip("_").replace("_", "-"))


def routes() -> str:
    """The HTTP API: each route with the scope that it needs."""
    surfaces: Any = None
    rows = []
    for route, scope in guarded_routes(build_app(surfaces, Settings())):
        path = re.sub(r":path}", "}", route.path)
        documented = getattr(route, "include_in_schema", True) or path in ("/docs", "/openapi.json")
        methods = getattr(route, "methods", None) or {"WebSocket"}
        if path == "/{path}" or methods == {"HEAD"} or not documented:
            continue
        summary = getattr(route, "summary", None) or first_sentence(route.endpoint.__doc__)
        rows.append((f"`{', '.join(methods)} {path}`", summary.rstrip("."), scope or "open"))
    return table(("Route", "What it does", "Scope"), rows)


def audit_rules() -> str:
    """What an audit asks of a history."""
    return table(("Rule", "What must hold"), AUDIT_RULES.items())


def actions() -> str:
    """The components that come with Harmonia."""
    rows = []
    for component in Registry.load().components():
        for name, action in sorted(component.actions.items()):
            needed = set(action.input_schema.get("required", ()))
            inputs = [
                f"`{key}`" if key in needed else f"`{key}`?"
                for key in action.input_schema.get("properties", {})
            ]
            does = first_sentence(action.description)
            rows.append((f"`{component.name}.{name}`", does, ", ".join(inputs) or "none"))
    return table(("Action", "What it does", "Inputs (`?`: optional)"), rows)


def statuses() -> str:
    """Both tables of transitions, as diagrams."""
    return "\n\n".join(
        f"{title}\n\n```mermaid\n{_diagram(transitions)}\n```"
        for title, transitions in (
            ("An execution:", EXECUTION_TRANSITIONS),
            ("A task:", TASK_TRANSITIONS),
        )
    )


def _diagram(transitions: Mapping[Any, frozenset[Any]]) -> str:
    lines = ["stateDiagram-v2", "    [*] --> pending"]
    for start, finishes in transitions.items():
        targets = [status.value for status in transitions if status in finishes] or ["[*]"]
        lines += [f"    {start.value} --> {target}" for target in targets]
    return "\n".join(lines)


def event_types() -> str:
    """Every event, with what its data object holds."""
    rows = []
    for kind in get_args(events.Event):
        made = kind(**{field.name: _sample(field) for field in dataclasses.fields(kind)})
        keys = json.loads(made.data("exec-0"))
        rows.append((f"`{kind.type}`", first_sentence(kind.__doc__), ", ".join(keys)))
    return table(("Type", "When", "`data`"), rows)


def _sample(field: dataclasses.Field[Any]) -> Any:
    samples: dict[str, Any] = {
        "str": "",
        "int": 0,
        "float": 0.0,
        "bool": False,
        "Output": Output(2, b"{}"),
        "tuple[LogLine, ...]": (),
        "Failure": Failure("", "", {}, "component"),
        "dict[str, Any]": {},
    }
    return samples[str(field.type)]


def error_codes() -> str:
    """Every error, by its code."""
    found: dict[str, Sequence[str]] = {}
    for kind in [*vars(errors).values(), problems.MethodNotAllowed]:
        if isinstance(kind, type) and issubclass(kind, errors.HarmoniaError):
            code = getattr(kind, "code", None)
            if code is not None:
                made = kind.__new__(kind)
                if isinstance(made, errors.InvalidRequest):
                    made.too_large = False
                found[code] = (
                    f"`{code}`",
                    str(problems.status_of(made)),
                    str(problems.close_code(made)),
                    first_sentence(kind.__doc__),
                )
    rows = sorted(found.values(), key=lambda row: (row[1], row[0]))
    return table(("Code", "HTTP", "WebSocket close", "When"), rows)


MAKERS: Mapping[str, Callable[[], str]] = {
    "actions": actions,
    "audit_rules": audit_rules,
    "commands": commands,
    "error_codes": error_codes,
    "event_types": event_types,
    "fixed_limits": fixed_limits,
    "routes": routes,
    "settings": settings_table,
    "statuses": statuses,
}


def with_tables(text: str) -> str:
    """The README's text with every table as the code has it now."""
    return _PLACE.sub(lambda found: f"{found[1]}{MAKERS[found[2]]()}\n{found[3]}", text)


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
