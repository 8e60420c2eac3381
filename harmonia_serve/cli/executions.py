"""`harmonia executions`: start, watch, look into and cancel executions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from harmonia_serve.cli.follow import event_line, log_line
from harmonia_serve.cli.options import (
    AsJson,
    DataDir,
    IdempotencyKey,
    InputFile,
    Inputs,
    Limit,
    Page,
    Url,
    connect,
    read_inputs,
)
from harmonia_serve.cli.output import (
    duration_text,
    elapsed_ms,
    local_time,
    out,
    plain,
    show_fields,
    show_json,
    show_json_line,
    show_page_note,
    show_table,
    size_text,
    status_text,
)
from harmonia_serve.cli.problems import CommandFailed, CommandGroup
from harmonia_serve.cli.run import execution_options, note_parts, watch
from harmonia_serve.client import HarmoniaClient
from harmonia_serve.client.flows import JsonObject

__all__ = ["app"]

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Start, follow, look into and cancel executions.",
)

ExecutionId = Annotated[str, typer.Argument(metavar="EXECUTION_ID", show_default=False)]


@app.command()
def start(
    workflow_id: Annotated[str, typer.Argument(metavar="WORKFLOW_ID", show_default=False)],
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
    idempotency_key: IdempotencyKey = None,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Start an execution of a stored workflow and return at once.

    Example: harmonia executions start wf-… --input name=Ada
    """
    values = read_inputs(inputs, input_file)
    options = execution_options(timeout, max_retries, retry_interval)
    with connect(url, data_dir) as client:
        execution = client.execute(workflow_id, values, options, idempotency_key=idempotency_key)
    if as_json:
        show_json(execution)
        return
    execution_id = execution["execution_id"]
    show_fields({"execution": execution_id, "status": status_text(execution["status"])})
    out().print(f"Follow it: harmonia executions follow {execution_id}", style="dim")


@app.command("list")
def list_(
    workflow: Annotated[
        str | None, typer.Option(help="Only those of this workflow.", show_default=False)
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            help="Only pending, running, completed, failed, cancelling or cancelled ones.",
            show_default=False,
        ),
    ] = None,
    page: Page = 1,
    limit: Limit = 20,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List executions, newest first."""
    with connect(url, data_dir) as client:
        found = client.list_executions(workflow_id=workflow, status=status, page=page, limit=limit)
    if as_json:
        show_json(found)
        return
    show_table(
        ("execution", "status", "created", "took", "workflow"),
        [
            (
                item["execution_id"],
                status_text(item["status"]),
                local_time(item.get("created_at")),
                duration_text(elapsed_ms(item)),
                item.get("workflow_id"),
            )
            for item in found["items"]
        ],
    )
    show_page_note(found, "execution")


@app.command()
def show(
    execution_id: ExecutionId, url: Url = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Show an execution: its status, its progress, its tasks, and why it failed."""
    with connect(url, data_dir) as client:
        execution = client.get_execution(execution_id, outputs=as_json)
    if as_json:
        show_json(execution)
        return
    progress = execution.get("progress") or {}
    done, total = progress.get("completed_tasks"), progress.get("total_tasks")
    show_fields(
        {
            "execution": execution["execution_id"],
            "workflow": execution.get("workflow_id"),
            "status": status_text(execution["status"]),
            "tasks": f"{done} of {total} completed",
            "created": local_time(execution.get("created_at")),
            "took": duration_text(elapsed_ms(execution)),
            "error": _error(execution),
        }
    )
    out().print()
    _show_tasks(
        [{"task_name": name, **task} for name, task in (execution.get("task_status") or {}).items()]
    )


def _error(document: JsonObject) -> str:
    error = document.get("error")
    if not isinstance(error, dict):
        return str(error or "")
    return f"{error.get('message', '')} [{error.get('code', '')}]"


def _show_tasks(tasks: list[JsonObject]) -> None:
    show_table(
        ("task", "status", "attempt", "took", "error"),
        [
            (
                task["task_name"],
                status_text(task["status"]),
                task.get("attempt") or "",
                duration_text(elapsed_ms(task)),
                _error(task) if task.get("error") else "",
            )
            for task in tasks
        ],
    )


@app.command()
def tasks(
    execution_id: ExecutionId,
    page: Page = 1,
    limit: Limit = 100,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List an execution's tasks in the order of definition, by page."""
    with connect(url, data_dir) as client:
        found = client.list_tasks(execution_id, page=page, limit=limit)
    if as_json:
        show_json(found)
        return
    _show_tasks(found["items"])
    show_page_note(found, "task")


@app.command()
def output(
    execution_id: ExecutionId,
    task: Annotated[
        str | None,
        typer.Argument(metavar="[TASK]", help="One task's output, whole.", show_default=False),
    ] = None,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,  # noqa: ARG001 - it is JSON either way
) -> None:
    """Print the output of an execution, or of one of its tasks, as JSON.

    Example: harmonia executions output exec-… process_data | jq .results
    """
    with connect(url, data_dir) as client:
        if task is None:
            execution = client.get_execution(execution_id, outputs=False)
            if execution["status"] != "completed":
                raise CommandFailed(
                    f"execution {execution_id} is {execution['status']} and has no output",
                    f"See it: harmonia executions show {execution_id}",
                )
            whole = json.loads(client.get_execution_output(execution_id))
            show_json(whole)
            note_parts(execution_id, whole)
        elif sys.stdout.isatty():
            show_json(json.loads(client.get_task_output(execution_id, task)))
        else:
            # As it was stored: a large output is not parsed only to be printed again.
            sys.stdout.buffer.write(client.get_task_output(execution_id, task) + b"\n")


@app.command()
def events(
    execution_id: ExecutionId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the execution ends.")
    ] = False,
    after: Annotated[int, typer.Option(min=0, help="Only events with a higher seq.")] = 0,
    summary: Annotated[
        bool,
        typer.Option("--summary", help="Not each task's events, but how all of them stand."),
    ] = False,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Print the events of an execution, one to a line; with --json one JSON object to a line.

    Examples: harmonia executions events exec-… --follow --json | jq .type

    harmonia executions events exec-… --follow --summary
    """
    with connect(url, data_dir) as client:
        console = out()
        # Without --follow, those that there are now: more may come all the time.
        state = {} if follow else client.get_execution(execution_id, outputs=False)
        try:
            for event in client.events(
                execution_id,
                after=after,
                until=state.get("last_seq"),
                detail="summary" if summary else "full",
            ):
                if as_json:
                    show_json_line(event)
                else:
                    console.print(event_line(event), soft_wrap=True)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


@app.command()
def follow(
    execution_id: ExecutionId,
    cancel_on_interrupt: Annotated[
        bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C cancels the execution.")
    ] = False,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Watch an execution to its end, as `harmonia run` does; exit code 1 unless it completed."""
    with connect(url, data_dir) as client:
        client.execution(execution_id)
        watch(client, execution_id, as_json=as_json, cancel_on_interrupt=cancel_on_interrupt)


@app.command()
def logs(
    execution_id: ExecutionId,
    task: Annotated[
        str | None, typer.Option(help="Only lines of this task.", show_default=False)
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the execution ends.")
    ] = False,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Print what the tasks of an execution write; with --json one JSON object to a line.

    Example: harmonia executions logs exec-… --task build --follow
    """
    with connect(url, data_dir) as client:
        console = out()
        try:
            for line in client.logs(execution_id, task, follow=follow):
                if as_json:
                    show_json_line(line)
                else:
                    console.print(log_line(line), soft_wrap=True)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


@app.command()
def audit(
    execution_id: ExecutionId, url: Url = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Hold an execution's history against the rules; exit code 1 if it breaks one.

    While the execution goes on, only what has happened so far is judged.
    """
    with connect(url, data_dir) as client:
        found = client.audit_execution(execution_id)
    if as_json:
        show_json(found)
    else:
        _show_audit(found)
    if found["violations_total"]:
        raise typer.Exit(1)


def _show_audit(found: JsonObject) -> None:
    total, violations = found["violations_total"], found["violations"]
    verdict = f"{total} violation{'' if total == 1 else 's'}" if total else "no violations"
    show_fields(
        {
            "execution": found["execution_id"],
            "status": status_text(found["status"]),
            "events": f"{found['events']}{'' if found['complete'] else ' so far'}",
            "tasks": found["tasks"],
            "attempts": f"{found['attempts']} ({found['lost_attempts']} lost)",
            "audit": Text(verdict, style="bold red" if total else "bold green"),
        }
    )
    console = out()
    for violation in violations:
        place = "state" if violation["seq"] is None else f"event {violation['seq']}"
        about = "" if violation["task"] is None else f" task '{plain(violation['task'])}':"
        line = Text.assemble(
            (violation["rule"].ljust(4), "red"), f"{place}:{about} {plain(violation['message'])}"
        )
        console.print(line, soft_wrap=True)
    if total > len(violations):
        console.print(f"and {total - len(violations)} more", style="dim")


@app.command()
def files(
    execution_id: ExecutionId,
    download: Annotated[
        list[str] | None,
        typer.Option(
            "--download",
            metavar="PATH",
            help="Fetch this file; repeat for more.",
            show_default=False,
        ),
    ] = None,
    download_all: Annotated[bool, typer.Option("--all", help="Fetch every file.")] = False,
    to: Annotated[Path, typer.Option(help="Directory to put them in.")] = Path(),
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the files in an execution's workspace, or fetch some.

    Example: harmonia executions files exec-… --download report.pdf
    """
    with connect(url, data_dir) as client:
        listed = client.list_files(execution_id) if download_all or not download else {"items": []}
        if listed.get("truncated"):
            _note_more_files(len(listed["items"]))
        if not download and not download_all:
            _show_files(listed, as_json)
            return
        paths = [item["path"] for item in listed["items"]] if download_all else download or []
        saved = [_download(client, execution_id, path, to) for path in paths]
    if as_json:
        found = {"files": [str(path) for path in saved]}
        show_json({**found, "truncated": bool(listed.get("truncated"))})


def _note_more_files(count: int) -> None:
    text = (
        f"There are more files: the service lists {count:,} at most. Others can be fetched with "
        "--download, by their paths."
    )
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(text, style="yellow"))


def _show_files(listed: JsonObject, as_json: bool) -> None:
    if as_json:
        show_json(listed)
        return
    show_table(
        ("file", "size", "modified"),
        [
            (item["path"], size_text(item["size"]), local_time(item.get("modified_at")))
            for item in listed["items"]
        ],
    )


def _download(client: HarmoniaClient, execution_id: str, path: str, directory: Path) -> Path:
    """Fetch a file to the same relative path below `directory`."""
    target = (directory / path.lstrip("/")).resolve()
    if not target.is_relative_to(directory.resolve()):
        raise CommandFailed(f"the path '{path}' leads out of {directory}")
    try:
        saved = client.download_file(execution_id, path, target)
    except OSError as error:
        raise CommandFailed(
            f"cannot write {target}: {error.strerror}", "Choose another directory with --to."
        ) from error
    typer.echo(plain(saved), err=True)
    return saved


@app.command()
def cancel(
    execution_id: ExecutionId, url: Url = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Cancel an execution; what runs is stopped within the grace period."""
    with connect(url, data_dir) as client:
        answer = client.cancel_execution(execution_id)
    if as_json:
        show_json(answer)
    else:
        show_fields({"execution": execution_id, "status": status_text(answer["status"])})
