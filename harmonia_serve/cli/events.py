"""`harmonia events`: what happens in all executions, in the order in which it happens."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.text import Text

from harmonia_serve.cli.follow import event_line
from harmonia_serve.cli.options import AsJson, DataDir, Url, connect
from harmonia_serve.cli.output import local_time, out, plain
from harmonia_serve.client import Event

__all__ = ["events"]

_REASONS = {
    "trimmed": "the log does not reach back that far",
    "expired": "their executions are not kept any more",
    "unreadable": "another version of Harmonia has written their executions",
    "unknown_cursor": "the cursor is not of this log",
}


def events(
    workflow: Annotated[
        str | None, typer.Option(help="Only executions of this workflow.", show_default=False)
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type", help="Only events of this type; repeat for more.", show_default=False
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Only events of tasks with this name.", show_default=False)
    ] = None,
    statuses: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            help="Only events by which a task or execution comes to this status; repeat for more.",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens from now on.")
    ] = False,
    after: Annotated[
        str | None,
        typer.Option(
            metavar="CURSOR",
            help="Only events after this one; 0: all that are kept.",
            show_default="0; with --follow: the last one",
        ),
    ] = None,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Print the events of all executions, one to a line; with --json one JSON object to a line.

    Example: harmonia events --follow --type execution_failed --json | jq .execution_id
    """
    start = after if follow or after is not None else "0"
    with connect(url, data_dir) as client:
        try:
            for event in client.events(
                after=start,
                types=types,
                task=task,
                workflow_id=workflow,
                statuses=statuses,
                follow=follow,
            ):
                _show(event, as_json=as_json)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _show(event: Event, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return
    out().print(_gap_line(event) if event["type"] == "gap" else _line(event), soft_wrap=True)


def _line(event: Event) -> Text:
    when = Text(f"{local_time(event['timestamp'])}  ", style="dim")
    return when.append(f"{plain(event['execution_id'])}").append_text(event_line(event))


def _gap_line(event: Event) -> Text:
    reason = str(event["data"].get("reason"))
    return Text(f"events are missing: {plain(_REASONS.get(reason, reason))}", style="yellow")
