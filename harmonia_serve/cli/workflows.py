"""`harmonia workflows`: definitions."""

from __future__ import annotations

from typing import Annotated

import typer

from harmonia_serve.cli.options import (
    AsJson,
    DataDir,
    Limit,
    Page,
    Url,
    connect,
    read_json_object,
)
from harmonia_serve.cli.output import (
    local_time,
    out,
    show_fields,
    show_json,
    show_page_note,
    show_table,
)
from harmonia_serve.cli.problems import CommandGroup
from harmonia_serve.client.flows import JsonObject

__all__ = ["app"]

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Create, look at, replace and delete workflow definitions.",
)

WorkflowId = Annotated[str, typer.Argument(metavar="WORKFLOW_ID", show_default=False)]
DefinitionFile = Annotated[
    str, typer.Argument(metavar="FILE", help="A JSON file; `-`: standard input.")
]


def _show(workflow: JsonObject) -> None:
    show_fields(
        {
            "workflow": workflow["workflow_id"],
            "name": workflow.get("name"),
            "version": workflow.get("version"),
            "description": workflow.get("description"),
            "created": local_time(workflow.get("created_at")),
            "updated": local_time(workflow.get("updated_at")),
            "inputs": ", ".join(_input_names(workflow)),
        }
    )
    out().print()
    show_table(
        ("task", "component", "action", "after"),
        [
            (name, task["component"], task["action"], ", ".join(task.get("depends_on") or []))
            for name, task in workflow["tasks"].items()
        ],
    )


def _input_names(workflow: JsonObject) -> list[str]:
    schema = workflow.get("input_schema") or {}
    properties = schema.get("properties")
    return list(properties if isinstance(properties, dict) else schema)


@app.command()
def create(
    file: DefinitionFile, url: Url = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Store a definition and print its id.

    Example: harmonia workflows create examples/data_processing_workflow.json
    """
    definition = read_json_object(file)
    with connect(url, data_dir) as client:
        workflow = client.create_workflow(definition)
    show_json(workflow) if as_json else _show(workflow)


@app.command("list")
def list_(
    page: Page = 1,
    limit: Limit = 20,
    sort_by: Annotated[
        str, typer.Option(help="created_at, updated_at, name or version.")
    ] = "created_at",
    sort_order: Annotated[str, typer.Option(help="asc or desc.")] = "desc",
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List definitions, newest first."""
    with connect(url, data_dir) as client:
        found = client.list_workflows(
            page=page, limit=limit, sort_by=sort_by, sort_order=sort_order
        )
    if as_json:
        show_json(found)
        return
    show_table(
        ("workflow", "name", "version", "updated", "description"),
        [
            (
                item["workflow_id"],
                item.get("name"),
                item.get("version"),
                local_time(item.get("updated_at")),
                item.get("description") or "",
            )
            for item in found["items"]
        ],
    )
    show_page_note(found, "workflow")


@app.command()
def show(
    workflow_id: WorkflowId, url: Url = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Show a definition; --json gives it whole."""
    with connect(url, data_dir) as client:
        workflow = client.get_workflow(workflow_id)
    show_json(workflow) if as_json else _show(workflow)


@app.command()
def replace(
    workflow_id: WorkflowId,
    file: DefinitionFile,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Replace a definition. What runs already keeps the one it started with."""
    definition = read_json_object(file)
    with connect(url, data_dir) as client:
        workflow = client.replace_workflow(workflow_id, definition)
    show_json(workflow) if as_json else _show(workflow)


@app.command()
def delete(
    workflow_id: WorkflowId, url: Url = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Delete a definition. What runs already goes on."""
    with connect(url, data_dir) as client:
        answer = client.delete_workflow(workflow_id)
    show_json(answer) if as_json else out().print(f"deleted {workflow_id}", markup=False)
