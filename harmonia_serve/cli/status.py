"""`harmonia status`: what runs, what it promises, and what it takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import typer
from rich.text import Text

from harmonia_serve.cli.installation import records
from harmonia_serve.cli.installation.lock import holder_of
from harmonia_serve.cli.installation.plan import data_dir_of
from harmonia_serve.cli.installation.processes import marked, memory_bytes
from harmonia_serve.cli.options import AsJson, DataDir, Url, connect
from harmonia_serve.cli.output import (
    duration_text,
    out,
    plain,
    show_fields,
    show_json,
    show_table,
    size_text,
)
from harmonia_serve.cli.problems import CommandFailed
from harmonia_serve.client import ClientError, NotConfigured, locate

__all__ = ["status"]


def status(url: Url = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show the service, its promise, its pools and counts, and its processes on this machine.

    Exit code 1 if the service does not answer.
    """
    directory = data_dir_of(data_dir)
    asked, service, problem = _service(url, data_dir)
    running = records.read_running(directory)
    # The service that was asked may be another one, of which this machine knows nothing more.
    is_here = asked in (None, running.url if running else _known_url(directory))
    holder = holder_of(directory) if is_here else None
    processes = _processes(directory, running) if running is not None and holder else []
    document = {
        "service": service,
        "problem": str(problem) if problem else None,
        "data_dir": str(directory) if is_here else None,
        "up": {"pid": holder.pid, "since_s": holder.since_s} if holder else None,
        "url": asked,
        "processes": processes,
    }
    if as_json:
        show_json(document)
    else:
        _show(document)
    if problem is not None and as_json:
        raise typer.Exit(1)
    if problem is not None:
        if holder is not None:
            raise CommandFailed(
                f"{problem}", f"`harmonia up` runs ({holder}); see {directory / 'harmonia.log'}."
            )
        raise problem


def _service(
    url: str | None, data_dir: Path | None
) -> tuple[str | None, dict[str, Any] | None, ClientError | None]:
    """Where the service is that is asked, what it says of itself, and why it does not."""
    asked = None
    try:
        with connect(url, data_dir) as client:
            asked = client.url
            return asked, client.service(), None
    except ClientError as error:
        return asked, None, error


def _known_url(directory: Path) -> str | None:
    """Where the service of a data directory was when it was last up."""
    with suppress(NotConfigured):
        return locate(data_dir=directory, environ={}).url
    return None


def _processes(directory: Any, running: records.Running) -> list[dict[str, Any]]:
    found = marked(directory)
    for pid in (running.pid, running.store_pid):
        if pid and psutil.pid_exists(pid):
            found.append(psutil.Process(pid))
    listed = []
    for process in found:
        try:
            with process.oneshot():
                listed.append(
                    {
                        "pid": process.pid,
                        "name": _name_of(process),
                        "memory_bytes": memory_bytes(process),
                        "cpu_s": round(sum(process.cpu_times()[:2]), 1),
                    }
                )
        except psutil.Error:
            continue
    return sorted(listed, key=lambda item: -int(item["memory_bytes"]))


def _name_of(process: psutil.Process) -> str:
    """What a process calls itself: Ray's workers rename theirs (`ray::TaskActor`)."""
    words = process.cmdline()
    if not words or words[0].startswith("ray::"):
        return words[0] if words else process.name()
    modules = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "-m"]
    scripts = [Path(word).stem for word in words if word.endswith(".py")]
    return next(iter([*modules, *scripts]), process.name())


def _show(document: Mapping[str, Any]) -> None:
    service, up = document["service"], document["up"]
    show_fields(
        {
            "service": Text("answers", style="green")
            if service
            else Text("does not answer", style="red"),
            "url": document["url"],
            "data": document["data_dir"],
            "up": f"process {up['pid']}, for {duration_text((time.time() - up['since_s']) * 1000)}"
            if up
            else "",
            **_flat(service or {}),
        }
    )
    if document["processes"]:
        out().print()
        show_table(
            ("pid", "process", "memory", "CPU time"),
            [
                (item["pid"], item["name"], size_text(item["memory_bytes"]), f"{item['cpu_s']} s")
                for item in document["processes"]
            ],
        )
        total = sum(item["memory_bytes"] for item in document["processes"])
        note = f"{len(document['processes'])} processes, {size_text(total)} in all"
        out().print(Text(note, style="dim"))


def _flat(service: Mapping[str, Any]) -> dict[str, object]:
    """What the service says of itself, in lines: nested objects as `name value, name value`.

    What the store promises has two lines: what that means, and why it is so.
    """
    if "durability" in service:
        found = service["durability"]
        meant = {"promise": f"{found['promise']}: {found['meaning']}", "because": found["detail"]}
        service = {**service, "durability": None, **meant}
    return {
        plain(name): ", ".join(f"{key} {value}" for key, value in found.items())
        if isinstance(found, dict)
        else found
        for name, found in service.items()
    }
