"""`harmonia up`: start the service and watch over it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from harmonia_serve.cli.installation import records, remote, reports
from harmonia_serve.cli.installation.plan import Plan, make_plan
from harmonia_serve.cli.installation.terminal import Presenter

__all__ = ["up"]

_INTERRUPTED = 130
_RAY = "Ray"
_STORE = "Store"
_SAFETY = "Safety"


_RedisUrl = Annotated[
    str | None,
    typer.Option(
        help="Use this Redis instead of an embedded store. A password is safer in "
        "HARMONIA_REDIS_URL: other users of this machine can read a command line.",
        rich_help_panel=_STORE,
        show_default=False,
    ),
]
_DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Where the embedded store, files, logs and the first key are kept. "
        "Else HARMONIA_DATA_DIR, else .harmonia.",
        rich_help_panel=_STORE,
        show_default=False,
    ),
]
_Address = Annotated[
    str,
    typer.Option(
        help="Deploy onto the running Ray cluster at this address (`auto`: this machine's) "
        "instead of starting one. Its token comes from RAY_AUTH_TOKEN or "
        "RAY_AUTH_TOKEN_PATH.",
        rich_help_panel=_RAY,
        show_default=False,
    ),
]
_NumCpus = Annotated[
    float | None,
    typer.Option(
        min=1,
        help="CPUs that Ray may use. Default: all.",
        rich_help_panel=_RAY,
        show_default=False,
    ),
]
_Host = Annotated[
    str | None,
    typer.Option(
        help="Address to listen on. Beyond loopback --allow-commands is required. "
        "Default: 127.0.0.1.",
        show_default=False,
    ),
]
_Port = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=65_535,
        help="Port to listen on. Default: 8002, or the next free one.",
        show_default=False,
    ),
]
_Detach = Annotated[
    bool, typer.Option("--detach", "-d", help="Return once it is ready; it goes on.")
]
_Components = Annotated[
    str | None,
    typer.Option(
        metavar="MODULES",
        help="Modules with further components, and URLs of services with remote ones, "
        "comma-separated.",
        show_default=False,
    ),
]
_AllowCommands = Annotated[
    str | None,
    typer.Option(
        metavar="PROGRAMS",
        help="Programs that commands may run, comma-separated. Default: any.",
        rich_help_panel=_SAFETY,
        show_default=False,
    ),
]
_NewKey = Annotated[
    bool,
    typer.Option(
        "--new-key",
        help="Make another admin key and write it to connection.json: if the first one was lost.",
        rich_help_panel=_SAFETY,
    ),
]
_AsJson = Annotated[
    bool, typer.Option("--json", help="Once it is ready, print where as a line of JSON.")
]


def up(
    redis_url: _RedisUrl = None,
    data_dir: _DataDir = None,
    address: _Address = "",
    num_cpus: _NumCpus = None,
    host: _Host = None,
    port: _Port = None,
    detach: _Detach = False,
    components: _Components = None,
    allow_commands: _AllowCommands = None,
    new_key: _NewKey = False,
    as_json: _AsJson = False,
) -> None:
    """Start Harmonia: a store, Ray and the service; then watch over them until Ctrl-C.

    Without options everything runs on this machine and is reachable from this machine only.

    Examples: `harmonia up`, `harmonia up --detach --port 9000`,
    `HARMONIA_REDIS_URL=redis://:…@host:6379/0 harmonia up --address auto`
    """
    plan = make_plan(
        {
            "redis_url": redis_url,
            "data_dir": data_dir,
            "host": host,
            "port": port,
            "components": components,
            "allow_commands": allow_commands,
        },
        address=address,
        num_cpus=num_cpus,
        detach=detach,
        new_key=new_key,
    )
    show = _Announcer(plan, as_json)
    try:
        _run(plan, show)
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    finally:
        show.rest()


def _run(plan: Plan, show: _Announcer) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    data_dir = plan.settings.data_dir
    console.print(Text(f"Harmonia, with its data in {data_dir}", style="bold"))
    plan = _with_remote_components(plan, show)
    if plan.detach:
        from harmonia_serve.cli.installation.background import start_in_background

        start_in_background(plan, show)
        way = f"harmonia down --data-dir {data_dir}"
        if plan.address:
            way = f"harmonia down --address {plan.address}"
        console.print(Text(f"It goes on without you. Stop it: {way}", style="dim"))
        return
    from harmonia_serve.cli.installation.watchdog import Watchdog

    Watchdog(plan, show).run()
    console.print(Text("Harmonia has stopped; its data stays.", style="dim"))


def _with_remote_components(plan: Plan, show: _Announcer) -> Plan:
    """The plan with what services elsewhere offer, before anything is started."""
    if not remote.has_services(plan.settings):
        return plan
    begun = time.monotonic()
    show(reports.Step("asking for remote components"))
    settings = remote.with_catalogues(plan.settings)
    ms = round((time.monotonic() - begun) * 1000)
    for line in remote.offered(settings):
        show(reports.Done(f"remote components at {line}", ms))
    return plan.with_settings(component_catalogues=settings.component_catalogues)


class _Announcer(Presenter):
    """Shows reports, and for programs one line of JSON when all is ready."""

    def __init__(self, plan: Plan, as_json: bool) -> None:
        super().__init__(plan.settings.data_dir)
        self._plan = plan
        self._as_json = as_json
        self._begun = time.monotonic()

    def __call__(self, report: reports.Report) -> None:
        super().__call__(report)
        if not isinstance(report, reports.Ready) or not self._as_json:
            return
        data_dir = self._plan.settings.data_dir
        running = records.read_running(data_dir)
        document = {
            "url": report.url,
            "data_dir": str(data_dir),
            "pid": running.pid if running else None,
            "seconds": round(time.monotonic() - self._begun, 2),
        }
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
