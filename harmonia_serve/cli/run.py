"""`harmonia run`: create a workflow, execute it, watch it, print its output."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from harmonia_serve.cli.follow import board_of, follow
from harmonia_serve.cli.options import (
    AsJson,
    DataDir,
    IdempotencyKey,
    InputFile,
    Inputs,
    Url,
    connect,
    read_inputs,
    read_json_object,
)
from harmonia_serve.cli.output import duration_text, elapsed_ms, out, plain, show_json
from harmonia_serve.client import Conflict, HarmoniaClient
from harmonia_serve.client.flows import JsonObject, is_kept_apart

__all__ = ["execution_options", "follow_to_end", "note_parts", "run", "watch"]

_INTERRUPTED = 130
#: Of the parts of an output that are kept apart, so many are named.
_PARTS_SHOWN = 10


def execution_options(
    timeout: float | None, max_retries: int | None, retry_interval: float | None
) -> JsonObject:
    """The `execution_options` of a request, as the reference has them."""
    options: JsonObject = {"async": True}
    if timeout is not None:
        options["timeout"] = timeout
    policy = {"max_retries": max_retries, "retry_interval": retry_interval}
    given = {name: value for name, value in policy.items() if value is not None}
    return {**options, "retry_policy": given} if given else options


def run(
    workflow: Annotated[
        str,
        typer.Argument(
            metavar="WORKFLOW",
            help="A JSON file with a definition, or the id of a stored workflow (wf-…).",
            show_default=False,
        ),
    ],
    inputs: Inputs = None,
    input_file: InputFile = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds the execution may take.", show_default=False),
    ] = None,
    max_retries: Annotated[
        int | None,
        typer.Option(min=0, help="How often a failed task is tried again.", show_default=False),
    ] = None,
    retry_interval: Annotated[
        float | None, typer.Option(min=0, help="Seconds between tries.", show_default=False)
    ] = None,
    cancel_on_interrupt: Annotated[
        bool,
        typer.Option(
            "--cancel-on-interrupt",
            help="Ctrl-C cancels the execution. By default it goes on without you.",
        ),
    ] = False,
    idempotency_key: IdempotencyKey = None,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Run a workflow: create it, execute it, show its progress, print its output.

    Exit code 0 if it completed, 1 if it failed or was cancelled.

    Example: harmonia run workflow.json --input name=Ada --input count=3
    """
    values = read_inputs(inputs, input_file)
    is_id = workflow.startswith("wf-") and not Path(workflow).exists()
    definition: str | JsonObject = workflow if is_id else read_json_object(workflow)
    options = execution_options(timeout, max_retries, retry_interval)
    with connect(url, data_dir) as client:
        try:
            execution = client.run(definition, values, options, idempotency_key=idempotency_key)
        except KeyboardInterrupt:
            console = Console(stderr=True, highlight=False)
            _say(console, "\nInterrupted before it was known to have started.")
            _say(console, "  See whether it has: harmonia executions list")
            raise typer.Exit(_INTERRUPTED) from None
        watch(client, execution.id, as_json=as_json, cancel_on_interrupt=cancel_on_interrupt)


def watch(
    client: HarmoniaClient, execution_id: str, *, as_json: bool, cancel_on_interrupt: bool
) -> NoReturn:
    """Follow an execution, and exit as it ended: 0 completed, 1 not, 130 interrupted."""
    try:
        final = follow_to_end(
            client, execution_id, quiet=as_json, cancel_on_interrupt=cancel_on_interrupt
        )
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    if as_json:
        show_json(final)
    raise typer.Exit(0 if final["status"] == "completed" else 1)


def follow_to_end(
    client: HarmoniaClient,
    execution_id: str,
    *,
    quiet: bool = False,
    cancel_on_interrupt: bool = False,
) -> JsonObject:
    """Follow an execution, print how it ended, and return its final state with its whole output.

    Ctrl-C leaves it running, says how to come back, and raises KeyboardInterrupt; or it cancels
    the execution, if that was asked for.
    """
    # What a program reads from stdout is the output alone; all else goes to stderr, and to whom
    # wants it quiet, what has to be known.
    console = Console(stderr=True, highlight=False)
    progress = Console(stderr=True, highlight=False, quiet=quiet)
    try:
        _say(progress, f"Execution {plain(execution_id)}", "dim")
        _follow_and_cancel(client, execution_id, progress, cancel_on_interrupt)
        final = client.execution(execution_id).wait()
    except KeyboardInterrupt:
        _say(console, f"\nExecution {plain(execution_id)} goes on without you.")
        _say(console, f"  Follow it again: harmonia executions follow {execution_id}")
        _say(console, f"  Cancel it:       harmonia executions cancel {execution_id}")
        raise
    if is_kept_apart(final.get("output")):
        final = {**final, "output": json.loads(client.get_execution_output(execution_id))}
    if not quiet:
        _print_end(final, console)
    note_parts(execution_id, final.get("output"))
    return final


def note_parts(execution_id: str, output: object) -> None:
    """Say on stderr which parts of an output are not in it, and how to get them."""
    if not isinstance(output, dict):
        return
    names = [name for name, part in output.items() if is_kept_apart(part)]
    if not names:
        return
    console = Console(stderr=True, highlight=False)
    _say(console, "Large outputs of tasks are kept apart. To have them whole:", "yellow")
    for name in names[:_PARTS_SHOWN]:
        _say(console, f"  harmonia executions output {execution_id} {shlex.quote(plain(name))}")
    if len(names) > _PARTS_SHOWN:
        _say(console, f"  and {len(names) - _PARTS_SHOWN} more")


def _follow_and_cancel(
    client: HarmoniaClient, execution_id: str, progress: Console, cancel_on_interrupt: bool
) -> None:
    board = board_of(client, execution_id)
    try:
        follow(client, execution_id, progress, board)
    except KeyboardInterrupt:
        if not cancel_on_interrupt:
            raise
        console = Console(stderr=True, highlight=False)
        _say(console, f"Cancelling {plain(execution_id)}; Ctrl-C again leaves it to itself.")
        try:
            client.cancel_execution(execution_id)
        except Conflict:
            # It ended in the meantime: there is nothing to cancel, and its end is shown.
            return
        # Another console: what the interrupted one was just writing, it would write again.
        progress = Console(stderr=True, highlight=False, quiet=progress.quiet)
        follow(client, execution_id, progress, board)


def _print_end(final: dict[str, Any], console: Console) -> None:
    took = duration_text(elapsed_ms(final))
    status = str(final["status"])
    if status == "completed":
        _say(console, f"Completed in {took}", "green")
        out().print_json(data=final.get("output"), ensure_ascii=False)
        return
    error = final.get("error") or {}
    reason = f": {plain(error.get('message', ''))}" if isinstance(error, dict) and error else ""
    _say(console, f"{status.capitalize()} after {took}{reason}", "red")
    _say(console, f"See it: harmonia executions show {plain(final['execution_id'])}", "dim")


def _say(console: Console, text: str, style: str = "") -> None:
    """A line as it is: an id that is wrapped cannot be copied."""
    console.print(Text(text, style=style), soft_wrap=True)
