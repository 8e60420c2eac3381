"""What goes wrong in a command, as one clear line with the way out, and its exit code.

Exit codes: 0 done, 1 it failed, 2 the command was given something unusable, 130 interrupted.
"""

from __future__ import annotations

import os
from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from harmonia_serve.cli.output import plain
from harmonia_serve.client import (
    ApiError,
    AuthenticationFailed,
    CannotBeSent,
    ClientError,
    NotConfigured,
    PermissionDenied,
    ServiceUnreachable,
    ValidationFailed,
)

__all__ = ["CommandFailed", "CommandGroup", "UsageProblem"]

_FIELDS_SHOWN = 10


class CommandFailed(Exception):
    """A command cannot do what it was asked. `way_out` says what the reader can do about it."""

    exit_code = 1

    def __init__(self, message: str, way_out: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.way_out = way_out


class UsageProblem(CommandFailed):
    """The command was given something unusable: a file that is not there, a malformed input."""

    exit_code = 2


class CommandGroup(TyperGroup):
    """A group of commands that reports what goes wrong without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; turn known errors into a line on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except CommandFailed as error:
            _report(error.message, error.way_out)
            raise typer.Exit(error.exit_code) from None
        except ClientError as error:
            _report(_message(error), _way_out(error))
            raise typer.Exit(2 if _is_of_arguments(error) else 1) from None
        except BrokenPipeError:
            # Whoever read our output has seen enough (`harmonia … | head`). What is still
            # buffered must not raise again when the interpreter flushes it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise typer.Exit(0) from None
        except OSError as error:
            # A full disk, a place that is not ours: nothing that a traceback would explain.
            place = f": {error.filename}" if error.filename else ""
            _report(f"{error.strerror or error}{place}", "")
            raise typer.Exit(1) from None


def _is_of_arguments(error: ClientError) -> bool:
    """Whether it is the command's own arguments that cannot be used.

    What a request asks for in its query is all from there. Of what is not valid in a body, the
    service says so of a workflow, an execution and the like.
    """
    if isinstance(error, ValidationFailed):
        return error.message.startswith("query is not valid")
    return isinstance(error, CannotBeSent)


def _report(message: str, way_out: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("error: ", "bold red"), plain(message)))
    if way_out:
        console.print(Text(plain(way_out), style="dim"))


def _message(error: ClientError) -> str:
    if isinstance(error, ServiceUnreachable):
        return f"no Harmonia answers at {error.url} ({error.reason})"
    if isinstance(error, ApiError):
        return f"{error.message} [{error.error_code}]"
    return str(error)


def _way_out(error: ClientError) -> str:
    match error:
        case ServiceUnreachable() | NotConfigured():
            return (
                "Start it with `harmonia up`, or say where it runs: --url, --data-dir, "
                "or HARMONIA_URL and HARMONIA_API_KEY."
            )
        case AuthenticationFailed():
            return (
                "The key comes from HARMONIA_API_KEY or from connection.json in the data "
                "directory (--data-dir)."
            )
        case PermissionDenied():
            return "A key with more scopes: `harmonia keys create --scope …` with an admin key."
        case ValidationFailed():
            return _fields(error)
        case _:
            return ""


def _fields(error: ValidationFailed) -> str:
    errors = error.details.get("errors")
    if not isinstance(errors, list) or len(errors) < 2:
        return ""
    lines = [f"  {item.get('field')}: {item.get('message')}" for item in errors[:_FIELDS_SHOWN]]
    hidden = int(error.details.get("total", len(errors))) - len(lines)
    return "\n".join([*lines, *([f"  and {hidden} more"] if hidden > 0 else [])])
