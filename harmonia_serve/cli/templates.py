"""`harmonia templates`: definitions with parameters, and workflows made from them."""

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
    parse_pairs,
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
from harmonia_serve.cli.problems import CommandGroup, UsageProblem
from harmonia_serve.client.flows import JsonObject

__all__ = ["app"]

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Create, look at, instantiate and delete templates.",
)

TemplateId = Annotated[str, typer.Argument(metavar="TEMPLATE_ID", show_default=False)]


def _show(template: JsonObject) -> None:
    show_fields(
        {
            "template": template["template_id"],
            "name": template.get("name"),
            "workflow": template.get("workflow_id"),
            "description": template.get("description"),
            "created": local_time(template.get("created_at")),
        }
    )
    schema = template.get("parameters") or {}
    required = schema.get("required")
    names_required = set(required) if isinstance(required, list) else set()
    properties = schema.get("properties")
    parameters = properties if isinstance(properties, dict) else schema
    out().print()
    show_table(
        ("parameter", "type", "required", "default", "description"),
        [
            (
                name,
                rule.get("type", "any"),
                "yes" if name in names_required or rule.get("required") is True else "",
                rule.get("default", ""),
                rule.get("description", ""),
            )
            for name, rule in parameters.items()
            if isinstance(rule, dict)
        ],
    )


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Name of the template.", show_default=False)],
    workflow: Annotated[
        str | None, typer.Option(help="Id of the workflow to make it from.", show_default=False)
    ] = None,
    definition: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Or: a JSON file with a definition.", show_default=False),
    ] = None,
    parameters: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="JSON file with the parameters' schema. Default: the workflow's inputs.",
            show_default=False,
        ),
    ] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a template from a stored workflow or from a definition.

    Example: harmonia templates create --name monthly --definition workflow.json
    """
    if (workflow is None) == (definition is None):
        raise UsageProblem("a template is made from --workflow ID or from --definition FILE")
    source = read_json_object(definition) if definition else None
    schema = read_json_object(parameters) if parameters else None
    with connect(url, data_dir) as client:
        template = client.create_template(
            name,
            parameters=schema,
            workflow_id=workflow,
            definition=source,
            description=description,
        )
    show_json(template) if as_json else _show(template)


@app.command("list")
def list_(
    page: Page = 1,
    limit: Limit = 20,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List templates, newest first."""
    with connect(url, data_dir) as client:
        found = client.list_templates(page=page, limit=limit)
    if as_json:
        show_json(found)
        return
    show_table(
        ("template", "name", "workflow", "created", "description"),
        [
            (
                item["template_id"],
                item.get("name"),
                item.get("workflow_id"),
                local_time(item.get("created_at")),
                item.get("description") or "",
            )
            for item in found["items"]
        ],
    )
    show_page_note(found, "template")


@app.command()
def show(
    template_id: TemplateId, url: Url = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Show a template and its parameters."""
    with connect(url, data_dir) as client:
        template = client.get_template(template_id)
    show_json(template) if as_json else _show(template)


@app.command()
def instantiate(
    template_id: TemplateId,
    name: Annotated[str, typer.Option(help="Name of the new workflow.", show_default=False)],
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--value",
            metavar="NAME=VALUE",
            help="Value of one parameter; repeat for more. JSON if it parses as JSON, else text.",
            show_default=False,
        ),
    ] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a workflow from a template, with values as the defaults of its input.

    Example: harmonia templates instantiate tmpl-… --name january --value month=1
    """
    given = parse_pairs(values)
    with connect(url, data_dir) as client:
        workflow = client.instantiate_template(template_id, name, given, description=description)
    if as_json:
        show_json(workflow)
        return
    show_fields({"workflow": workflow["workflow_id"], "name": workflow.get("name")})
    out().print(f"Run it: harmonia executions start {workflow['workflow_id']}", style="dim")


@app.command()
def delete(
    template_id: TemplateId, url: Url = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Delete a template. Workflows made from it stay."""
    with connect(url, data_dir) as client:
        answer = client.delete_template(template_id)
    show_json(answer) if as_json else out().print(f"deleted {template_id}", markup=False)
