"""A watchdog over the stand-in: `python -m tests.unit.cli.watch PLAN`. Reports go to stdout.

WATCH_STORE_TAKES is how many seconds each start of the store takes, by the watchdog's clock.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict

from harmonia_serve.cli.installation import reports
from harmonia_serve.cli.installation.plan import Plan
from harmonia_serve.cli.installation.watchdog import Watchdog
from harmonia_serve.cli.problems import CommandFailed

store_starts: list[str] = []


def now_s() -> float:
    return time.monotonic() + len(store_starts) * float(os.environ.get("WATCH_STORE_TAKES", "0"))


def show(report: reports.Report) -> None:
    if isinstance(report, reports.Step) and report.text == "starting the store":
        store_starts.append(report.text)
    sys.stdout.write(json.dumps([type(report).__name__, asdict(report)]) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        Watchdog(
            Plan.from_json(json.loads(sys.argv[1])),
            show,
            ray_process="tests.unit.cli.stand_in",
            now_s=now_s,
        ).run()
    except CommandFailed as error:
        show(reports.Failed(error.message, error.way_out))
        sys.exit(1)
