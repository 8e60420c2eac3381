"""`harmonia up --detach`: the watchdog in a process of its own, heard until it is ready."""

from __future__ import annotations

import json
import os
import sys
import traceback

from harmonia_serve.cli.installation import reports
from harmonia_serve.cli.installation.child import Child
from harmonia_serve.cli.installation.plan import Plan
from harmonia_serve.cli.installation.watchdog import Watchdog
from harmonia_serve.cli.problems import CommandFailed

__all__ = ["main", "start_in_background"]

_MODULE = "harmonia_serve.cli.installation.background"
_LOOK_S = 0.5


def start_in_background(plan: Plan, show: reports.Show) -> int:
    """Start a watchdog that outlives this process; return its pid once the service is ready.

    Raises CommandFailed if it could not start. Ctrl-C stops it before it is ready.
    """
    plan.settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    child = Child(_MODULE, {"plan": plan.to_json()}, plan.settings.data_dir, os.environ)
    try:
        return _follow(child, show)
    except KeyboardInterrupt:
        child.terminate()
        while child.exit_code is None:
            for report in child.read(_LOOK_S):
                show(report)
        raise


def _follow(child: Child, show: reports.Show) -> int:
    while True:
        found = child.read(_LOOK_S)
        for report in found:
            if isinstance(report, reports.Failed):
                raise CommandFailed(report.message, report.way_out)
            show(report)
            if isinstance(report, reports.Ready):
                return child.pid
        if not found and child.exit_code is not None:
            raise CommandFailed(f"the background process ended (exit code {child.exit_code})")


def main() -> int:
    """Run a watchdog as the order on standard input says."""
    report = reports.ReportWriter(int(sys.argv[1]))
    plan = Plan.from_json(json.loads(sys.stdin.buffer.readline())["plan"])
    try:
        Watchdog(plan, _Both(report)).run()
    except CommandFailed as error:
        sys.stderr.write(f"error: {error.message}\n")
        report(reports.Failed(error.message, error.way_out))
        return 1
    except Exception as error:
        traceback.print_exc()
        report(reports.Failed(f"{type(error).__name__}: {error}"))
        return 1
    return 0


class _Both:
    """Reports go to whoever started us, and without keys into the log."""

    def __init__(self, report: reports.ReportWriter) -> None:
        self._report = report

    def __call__(self, report: reports.Report) -> None:
        self._report(report)
        if not isinstance(report, reports.FirstKey):
            sys.stdout.write(f"{report}\n")
            sys.stdout.flush()
        if isinstance(report, reports.Ready):
            # Whoever waited for us may go now; later reports are for the log only.
            self._report.close()


if __name__ == "__main__":
    sys.exit(main())
