"""`harmonia down`: stop what `harmonia up` has started."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer

from harmonia_serve.cli.installation import records, reports
from harmonia_serve.cli.installation.child import Child
from harmonia_serve.cli.installation.lock import Holder, hold, holder_of
from harmonia_serve.cli.installation.plan import Plan, data_dir_of, make_plan, stop_s_max
from harmonia_serve.cli.installation.processes import end_all, marked, runs
from harmonia_serve.cli.installation.ray_environment import ray_environment, remove_scratch
from harmonia_serve.cli.installation.terminal import Presenter
from harmonia_serve.cli.options import AsJson, DataDir
from harmonia_serve.cli.output import out, show_json
from harmonia_serve.cli.problems import CommandFailed

__all__ = ["down", "stop"]

_LOOK_S = 0.1


def down(
    data_dir: DataDir = None,
    address: Annotated[
        str,
        typer.Option(
            help="End Harmonia on the running Ray cluster at this address, and nothing else there.",
            show_default=False,
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Stop the service of a data directory and wait until it has ended. Its data stays.

    If it was started on a running Ray cluster, it is ended there.
    Executions that were running go on at the next `harmonia up`.
    """
    directory = data_dir_of(data_dir)
    if address:
        plan = make_plan({"data_dir": directory}, address=address, checked=False)
        ended = _take_down(plan)
    else:
        ended = stop(directory)
    if as_json:
        show_json(ended)
    elif not ended["ended"]:
        out().print(f"nothing runs on {directory}", markup=False)
    else:
        out().print("; ".join(ended["ended"]), markup=False)


def stop(data_dir: Path, *, ray_process: str = "") -> dict[str, list[str]]:
    """End what an `up` on this directory has started, here or on the cluster it went to.

    `ray_process` is the module that ends it on a cluster, by default the one of `up`.
    """
    holder = holder_of(data_dir)
    if holder is not None:
        _ask(holder, data_dir, stop_s_max() * 2)
        return {"ended": [f"harmonia up (process {holder.pid}) has stopped", *_sweep(data_dir)]}
    running = records.read_running(data_dir)
    if running is None or not running.address:
        return {"ended": _sweep(data_dir)}
    settings = {"data_dir": data_dir, "namespace": running.namespace}
    plan = make_plan(settings, address=running.address, checked=False)
    try:
        ended = _take_down(plan, ray_process)
    except CommandFailed as error:
        raise CommandFailed(
            error.message,
            f"{error.way_out} If the cluster is gone, so is Harmonia on it: remove "
            f"{data_dir / records.RUNNING_FILE}.".lstrip(),
        ) from error
    return {"ended": [*ended["ended"], *_sweep(data_dir)]}


def _ask(holder: Holder, data_dir: Path, timeout_s: float) -> None:
    try:
        process = psutil.Process(holder.pid)
        os.kill(holder.pid, signal.SIGTERM)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return
    except PermissionError as error:
        raise CommandFailed(
            f"{holder} belongs to another user", "Let that user stop it."
        ) from error
    deadline = time.monotonic() + timeout_s
    while runs(process):
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"{holder} has not stopped within {timeout_s:.0f} s",
                f"See {data_dir / 'harmonia.log'}. `kill -9 {holder.pid}` and a new "
                "`harmonia down` end what is left; nothing accepted is lost.",
            )
        time.sleep(_LOOK_S)


def _sweep(data_dir: Path) -> list[str]:
    """End what an `up` that was killed has left behind."""
    if not data_dir.is_dir():
        return []
    from persistence.embedded import reap
    from persistence.errors import ServerFailed

    with hold(data_dir):
        count = end_all(marked(data_dir))
        try:
            count += reap(data_dir) is not None
        except ServerFailed as error:
            raise CommandFailed(str(error)) from error
        records.remove_running(data_dir)
        remove_scratch(data_dir, {})
    return [f"{count} processes that a killed `harmonia up` had left have ended"] if count else []


def _take_down(plan: Plan, ray_process: str = "") -> dict[str, list[str]]:
    """End Harmonia on somebody else's cluster."""
    data_dir = plan.settings.data_dir
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    order = {"task": "take_down", "plan": plan.to_json()}
    from harmonia_serve.cli.installation.watchdog import RAY_PROCESS

    module = ray_process or RAY_PROCESS
    child = Child(module, order, data_dir, ray_environment(plan), cwd=data_dir)
    show = Presenter(data_dir)
    try:
        while True:
            found = child.read(_LOOK_S)
            for report in found:
                if isinstance(report, reports.Failed):
                    raise CommandFailed(report.message, report.way_out)
                show(report)
            if not found and child.exit_code is not None:
                break
    finally:
        show.rest()
        child.kill()
    if child.exit_code:
        raise CommandFailed("Harmonia could not be ended", f"See {data_dir / 'harmonia.log'}.")
    running = records.read_running(data_dir)
    if running is not None and running.address:
        records.remove_running(data_dir)
    return {"ended": [f"Harmonia on the cluster at {plan.address} has stopped"]}
