"""`harmonia components`: the catalogue of what tasks can call."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from harmonia_serve.cli.options import AsJson, DataDir, Url, connect
from harmonia_serve.cli.output import out, plain, show_json, show_table
from harmonia_serve.cli.problems import CommandGroup

__all__ = ["app"]

app = typer.Typer(
    cls=CommandGroup, no_args_is_help=True, help="See which components and actions tasks can call."
)


@app.command("list")
def list_(url: Url = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List components and their actions."""
    with connect(url, data_dir) as client:
        found = client.list_components()
    if as_json:
        show_json(found)
        return
    rows = [
        (component, action["name"], _first_line(action.get("description")))
        for component in found["items"]
        for action in component["actions"]
    ]
    # Where remote ones are is worth a column only if there are any.
    if any(component.get("url") for component, *_ in rows):
        heads: tuple[str, ...] = ("component", "action", "at", "description")
        show_table(heads, [(c["name"], a, c.get("url") or "", d) for c, a, d in rows])
    else:
        heads = ("component", "action", "description")
        show_table(heads, [(c["name"], a, d) for c, a, d in rows])


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="COMPONENT", show_default=False)],
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show a component's actions and the inputs they take.

    Example: harmonia components show sophia
    """
    with connect(url, data_dir) as client:
        component = client.get_component(name)
    if as_json:
        show_json(component)
        return
    console = out()
    console.print(plain(component["name"]), style="bold", markup=False)
    console.print(plain(component.get("description") or ""), markup=False)
    if component.get("url"):
        console.print(f"remote, at {plain(component['url'])}", markup=False)
    for action in component["actions"]:
        console.print()
        console.print(plain(action["name"]), style="bold", markup=False)
        if action.get("description"):
            console.print(plain(action["description"]), markup=False)
        show_table(("input", "type", "required", "default"), _inputs(action))


def _first_line(text: object) -> str:
    return str(text or "").split("\n", 1)[0]


def _inputs(action: dict[str, Any]) -> list[tuple[object, ...]]:
    schema = action.get("input_schema") or {}
    required = set(schema.get("required") or [])
    return [
        (
            name,
            _type_of(rule),
            "yes" if name in required else "",
            rule["default"] if rule.get("default") is not None else "",
        )
        for name, rule in (schema.get("properties") or {}).items()
    ]


def _type_of(rule: dict[str, Any]) -> str:
    if "enum" in rule:
        return " | ".join(str(value) for value in rule["enum"])
    if "anyOf" in rule:
        return " | ".join(_type_of(choice) for choice in rule["anyOf"])
    return str(rule.get("type", "any"))
