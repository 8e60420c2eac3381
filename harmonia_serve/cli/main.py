"""The `harmonia` command: all groups of commands under one name."""

from __future__ import annotations

from typing import Annotated

import typer

from harmonia_serve.cli import checkpoints, components, executions, keys, templates, workflows
from harmonia_serve.cli.doctor import doctor
from harmonia_serve.cli.down import down
from harmonia_serve.cli.events import events
from harmonia_serve.cli.problems import CommandGroup
from harmonia_serve.cli.run import run
from harmonia_serve.cli.status import status
from harmonia_serve.cli.up import up

__all__ = ["app"]

_SERVICE = "The service"
_WORK = "Workflows"

app = typer.Typer(
    cls=CommandGroup,
    name="harmonia",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Harmonia runs workflows durably on Ray and shows them live.\n\n"
    "Start with `harmonia up`; then `harmonia run WORKFLOW.json --input name=value`.",
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"harmonia {version('harmonia')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """What all commands share."""


app.command(rich_help_panel=_SERVICE)(up)
app.command(rich_help_panel=_SERVICE)(down)
app.command(rich_help_panel=_SERVICE)(status)
app.command(rich_help_panel=_SERVICE)(doctor)
app.command(rich_help_panel=_WORK)(run)
app.command(rich_help_panel=_WORK)(events)
app.add_typer(workflows.app, name="workflows", rich_help_panel=_WORK)
app.add_typer(executions.app, name="executions", rich_help_panel=_WORK)
app.add_typer(templates.app, name="templates", rich_help_panel=_WORK)
app.add_typer(checkpoints.app, name="checkpoints", rich_help_panel=_WORK)
app.add_typer(components.app, name="components", rich_help_panel=_WORK)
app.add_typer(keys.app, name="keys", rich_help_panel=_SERVICE)
