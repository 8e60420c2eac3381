"""`harmonia keys`: who may talk to the service."""

from __future__ import annotations

from typing import Annotated

import typer

from harmonia_serve.cli.options import AsJson, DataDir, Limit, Page, Url, connect
from harmonia_serve.cli.output import (
    local_time,
    out,
    plain,
    show_fields,
    show_json,
    show_page_note,
    show_table,
)
from harmonia_serve.cli.problems import CommandGroup

__all__ = ["app"]

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Create, list and revoke API keys. Needs a key with the scope admin.",
)


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Whom or what it is for.", show_default=False)],
    scope: Annotated[
        list[str],
        typer.Option(
            help="What it may do: read, execute, write or admin; repeat for more.",
            show_default=False,
        ),
    ],
    rate_limit: Annotated[
        float | None,
        typer.Option(
            min=0, help="Requests a second. Default: the service's own.", show_default=False
        ),
    ] = None,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once.

    Example: harmonia keys create --name ci --scope read --scope execute
    """
    with connect(url, data_dir) as client:
        key = client.create_key(name, scope, rate_limit_per_s=rate_limit)
    if as_json:
        show_json(key)
        return
    show_fields(
        {
            "key id": key["key_id"],
            "name": key.get("name"),
            "scopes": ", ".join(key.get("scopes") or []),
            "API key": key["api_key"],
        }
    )
    out().print("The key is shown this once; only its digest is kept.", style="dim")


@app.command("list")
def list_(
    page: Page = 1,
    limit: Limit = 20,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List keys, without their secrets."""
    with connect(url, data_dir) as client:
        found = client.list_keys(page=page, limit=limit)
    if as_json:
        show_json(found)
        return
    show_table(
        ("key id", "name", "scopes", "requests/s", "created"),
        [
            (
                item["key_id"],
                item.get("name"),
                ", ".join(item.get("scopes") or []),
                item.get("rate_limit_per_s") or "default",
                local_time(item.get("created_at")),
            )
            for item in found["items"]
        ],
    )
    show_page_note(found, "key")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", show_default=False)],
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """End a key at once; open streams that use it are closed too."""
    with connect(url, data_dir) as client:
        answer = client.revoke_key(key_id)
    show_json(answer) if as_json else out().print(f"revoked {plain(key_id)}", markup=False)
