"""`harmonia events`: what happens in all executions, in the order in which it happens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from harmonia_serve.cli.follow import event_line, log_line
from harmonia_serve.cli.options import AsJson, DataDir, Url, connect
from harmonia_serve.cli.output import local_time, out, plain, show_json_line
from harmonia_serve.client import Event
from harmonia_serve.client.events import log_lines

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
        show_json_line(event)
        return
    for line in _lines(event):
        out().print(line, soft_wrap=True)


def _lines(event: Event) -> Iterator[Text]:
    """What there is to say of an event: one line, or each of those that a task has written."""
    if event["type"] == "gap":
        yield _gap_line(event)
        return
    begin = Text(f"{local_time(event['timestamp'])}  ", style="dim")
    begin.append(f"{plain(event['execution_id'])}")
    if event["type"] != "task_log":
        yield begin.append_text(event_line(event))
        return
    for line in log_lines(event):
        yield begin.copy().append(f"{event['seq']:>5}  ").append_text(log_line(line))


def _gap_line(event: Event) -> Text:
    reason = str(event["data"].get("reason"))
    return Text(f"events are missing: {plain(_REASONS.get(reason, reason))}", style="yellow")
