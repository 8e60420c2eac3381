"""`harmonia doctor`: can Harmonia run here, and if not, what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from harmonia_serve.cli.diagnosis import Finding, diagnose
from harmonia_serve.cli.options import AsJson, DataDir
from harmonia_serve.cli.output import out, plain, show_json

__all__ = ["doctor"]

_STYLES = {"ok": ("✓ ok  ", "green"), "warn": ("! warn", "yellow"), "fail": ("✗ fail", "red")}


def doctor(
    redis_url: Annotated[
        str | None,
        typer.Option(
            help="Look at this Redis; else at HARMONIA_REDIS_URL, else at the embedded store.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine, the store and the data directory; exit code 1 if anything fails."""
    findings = diagnose({"redis_url": redis_url, "data_dir": data_dir})
    if as_json:
        show_json({"checks": [finding.to_json() for finding in findings]})
    else:
        for finding in findings:
            _show(finding)
    raise typer.Exit(1 if any(finding.verdict == "fail" for finding in findings) else 0)


def _show(finding: Finding) -> None:
    mark, style = _STYLES[finding.verdict]
    console = out()
    console.print(
        Text.assemble((mark, style), "  ", (f"{finding.subject}: ", "bold"), plain(finding.text))
    )
    if finding.way_out:
        console.print(Text(f"        {plain(finding.way_out)}", style="dim"))
