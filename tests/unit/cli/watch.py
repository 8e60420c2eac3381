"""A watchdog over the stand-in: `python -m tests.unit.cli.watch PLAN`. Reports go to stdout."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from harmonia_serve.cli.installation import reports
from harmonia_serve.cli.installation.plan import Plan
from harmonia_serve.cli.installation.watchdog import Watchdog
from harmonia_serve.cli.problems import CommandFailed


def show(report: reports.Report) -> None:
    sys.stdout.write(json.dumps([type(report).__name__, asdict(report)]) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        Watchdog(
            Plan.from_json(json.loads(sys.argv[1])), show, ray_process="tests.unit.cli.stand_in"
        ).run()
    except CommandFailed as error:
        show(reports.Failed(error.message, error.way_out))
        sys.exit(1)
