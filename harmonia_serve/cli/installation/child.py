"""A Python process of ours: started with an order on its standard input, heard through reports.

Closing its standard input asks it to end. Its output goes to the log.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from harmonia_serve.cli.installation.reports import Report, ReportReader

__all__ = ["Child", "log_path", "log_tail", "open_log"]

_LOG = "harmonia.log"
_LOG_BYTES_MAX = 10_000_000
_TAIL_LINES = 15


def log_path(data_dir: Path) -> Path:
    """Where an installation's processes write what they have to say."""
    return data_dir / _LOG


def open_log(data_dir: Path) -> int:
    """A descriptor of the log; the last one is kept beside it once it has grown large."""
    path = log_path(data_dir)
    with suppress(FileNotFoundError):
        if path.stat().st_size > _LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def log_tail(data_dir: Path) -> str:
    """The last lines of the log."""
    try:
        with log_path(data_dir).open("rb") as file:
            file.seek(max(0, log_path(data_dir).stat().st_size - 8_192))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_TAIL_LINES:])


class Child:
    """A running process of ours."""

    def __init__(
        self,
        module: str,
        order: Mapping[str, Any],
        data_dir: Path,
        environ: Mapping[str, str],
        *,
        cwd: Path | None = None,
    ) -> None:
        reading, writing = os.pipe()
        log = open_log(data_dir)
        try:
            self._process = subprocess.Popen(
                # -P: a file that happens to lie where `up` was typed is not taken for a module.
                [sys.executable, "-P", "-m", module, str(writing)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=dict(environ),
                cwd=cwd,
                pass_fds=(writing,),
                # Ctrl-C in the terminal is for us: we end the child in good order.
                start_new_session=True,
            )
        finally:
            os.close(writing)
            os.close(log)
        self._reports = ReportReader(reading)
        with suppress(BrokenPipeError):
            self._stdin.write(json.dumps(order).encode() + b"\n")
            self._stdin.flush()

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def read(self, timeout_s: float) -> list[Report]:
        """Reports that have come, after waiting for the first one for so long at most."""
        if self._reports.ended:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
            return []
        return self._reports.read(timeout_s)

    def ask_to_end(self) -> None:
        """Close its standard input."""
        with suppress(BrokenPipeError):
            self._stdin.close()

    def terminate(self) -> None:
        """Ask it to end by a signal."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        self._reports.close()
        self.ask_to_end()
