"""A component that ends, by SIGKILL, each execution actor that looks at its actions.

Loaded by the service under test with `--components tests.support.deadly`. An execution actor runs
no action, but it has to know two things of each: whether it uses files, once its execution is
loaded, and which of its inputs are commands, once its turn has come. Here the answers kill whoever
asks for them, as a defect in native code would, each time and for ever. Nobody else is harmed.
Each death is written down before it comes, in the file that the environment names.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil

from harmonia_actors.components.contract import Component

__all__ = ["JOURNAL", "component", "deaths"]

#: Name of the environment variable.
JOURNAL = "DEADLY_JOURNAL"

component = Component("deadly", "Actions that end whoever drives their executions")


def deaths(journal: Path) -> list[tuple[str, int]]:
    """What ended whom: the action, and the process."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [(action, int(pid)) for action, pid in map(str.split, lines)]


def _end_execution_actor(action: str) -> None:
    me = psutil.Process()
    if not me.cmdline()[0].startswith("ray::ExecutionActor"):
        return
    with Path(os.environ[JOURNAL]).open("a") as journal:
        journal.write(f"{action} {me.pid}\n")
    os.kill(me.pid, signal.SIGKILL)


class _Flag(int):
    """False, for those who live to hear it."""

    def __bool__(self) -> bool:
        _end_execution_actor("once_loaded")
        return False


class _Names(frozenset[str]):
    """No names, for the same."""

    def __contains__(self, name: object) -> bool:
        _end_execution_actor("once_planned")
        return False


@component.action
def once_loaded() -> None:
    """Nobody comes as far as to run it."""


@component.action
def once_planned(word: str) -> None:
    """Nobody comes as far as to run it, either."""


_actions = component.actions
_actions["once_loaded"] = replace(_actions["once_loaded"], uses_files=_Flag())  # type: ignore[arg-type]
_actions["once_planned"] = replace(_actions["once_planned"], argv_inputs=_Names())
