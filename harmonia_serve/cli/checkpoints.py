"""`harmonia checkpoints`: kept states of executions, and new executions made from them."""

from __future__ import annotations

from typing import Annotated

import typer

from harmonia_serve.cli.options import (
    AsJson,
    DataDir,
    InputFile,
    Inputs,
    Limit,
    Page,
    TaskInputs,
    Url,
    connect,
    parse_task_inputs,
    read_inputs,
)
from harmonia_serve.cli.output import (
    local_time,
    out,
    show_fields,
    show_json,
    show_page_note,
    show_table,
    status_text,
)
from harmonia_serve.cli.problems import CommandGroup
from harmonia_serve.client.flows import JsonObject

__all__ = ["app"]

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Keep the state of an execution; restore it as a new execution.",
)

CheckpointId = Annotated[str, typer.Argument(metavar="CHECKPOINT_ID", show_default=False)]


def _show(checkpoint: JsonObject) -> None:
    show_fields(
        {
            "checkpoint": checkpoint["checkpoint_id"],
            "name": checkpoint.get("name"),
            "execution": checkpoint.get("execution_id"),
            "workflow": checkpoint.get("workflow_id"),
            "description": checkpoint.get("description"),
            "taken": "automatically" if checkpoint.get("automatic") else "by hand",
            "created": local_time(checkpoint.get("created_at")),
        }
    )
    out().print()
    show_table(
        ("task", "status"),
        [
            (name, status_text(state["status"]))
            for name, state in (checkpoint.get("task_states") or {}).items()
        ],
    )


@app.command()
def create(
    execution_id: Annotated[str, typer.Argument(metavar="EXECUTION_ID", show_default=False)],
    name: Annotated[str, typer.Option(help="Name of the checkpoint.", show_default=False)],
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Keep the present state of an execution, running or ended.

    Example: harmonia checkpoints create exec-… --name before-report
    """
    with connect(url, data_dir) as client:
        checkpoint = client.create_checkpoint(execution_id, name, description=description)
    show_json(checkpoint) if as_json else _show(checkpoint)


@app.command("list")
def list_(
    execution: Annotated[
        str | None, typer.Option(help="Only those of this execution.", show_default=False)
    ] = None,
    page: Page = 1,
    limit: Limit = 20,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List checkpoints, newest first."""
    with connect(url, data_dir) as client:
        found = client.list_checkpoints(execution_id=execution, page=page, limit=limit)
    if as_json:
        show_json(found)
        return
    show_table(
        ("checkpoint", "name", "taken", "execution", "created", "description"),
        [
            (
                item["checkpoint_id"],
                item.get("name"),
                "automatically" if item.get("automatic") else "by hand",
                item.get("execution_id"),
                local_time(item.get("created_at")),
                item.get("description") or "",
            )
            for item in found["items"]
        ],
    )
    show_page_note(found, "checkpoint")


@app.command()
def show(
    checkpoint_id: CheckpointId, url: Url = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Show a checkpoint and the state of each task in it."""
    with connect(url, data_dir) as client:
        checkpoint = client.get_checkpoint(checkpoint_id)
    show_json(checkpoint) if as_json else _show(checkpoint)


@app.command()
def restore(
    checkpoint_id: CheckpointId,
    inputs: Inputs = None,
    input_file: InputFile = None,
    task_inputs: TaskInputs = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds the new execution may take.", show_default=False),
    ] = None,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Start a new execution from a checkpoint: what was completed is not run again.

    --input and --task-input edit what the other tasks are given.

    Example: harmonia checkpoints restore cp-… --input title=March
    """
    values, edited = read_inputs(inputs, input_file), parse_task_inputs(task_inputs)
    options = {} if timeout is None else {"timeout": timeout}
    with connect(url, data_dir) as client:
        execution = client.restore(checkpoint_id, options, input_values=values, task_inputs=edited)
    if as_json:
        show_json(execution)
        return
    execution_id = execution["execution_id"]
    show_fields({"execution": execution_id, "status": status_text(execution["status"])})
    out().print(f"Follow it: harmonia executions follow {execution_id}", style="dim")


@app.command()
def delete(
    checkpoint_id: CheckpointId, url: Url = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Delete a checkpoint. Executions restored from it stay."""
    with connect(url, data_dir) as client:
        answer = client.delete_checkpoint(checkpoint_id)
    show_json(answer) if as_json else out().print(f"deleted {checkpoint_id}", markup=False)
