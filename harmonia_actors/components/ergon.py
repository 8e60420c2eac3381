"""Component `ergon`: runs commands.

A command is a child process with the service's rights, not a sandbox: which files it touches
cannot be confined here. What is confined: it is an argv, never given to a shell; its environment
is made afresh, without the service's secrets; the setting `allow_commands` limits which programs
may run; and it ends, with all its descendants, when the task ends in whatever way.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from harmonia_actors.components.argv import CommandTemplateError, split_command
from harmonia_actors.components.commands import CommandEnd, StartFailed, run_command
from harmonia_actors.components.contract import ActionError, Component, TaskContext

__all__ = ["component"]

#: Of each output stream, how many bytes are kept unless the task says otherwise, and at most.
CAPTURE_BYTES = 65_536
CAPTURE_BYTES_MAX = 16_777_216
#: Characters of standard input.
STDIN_LENGTH_MAX = 16_777_216
#: Characters of stderr that a failure's details show.
STDERR_SHOWN_MAX = 2_000
#: Variables of a command's environment.
ENV_MAX = 1_000
#: Longest time limit of one command, in seconds.
TIMEOUT_S_MAX = 30 * 86_400.0

#: With `allow_commands`, these would let a permitted program run others.
_STEERING_VARIABLES = re.compile(r"LD_.*|DYLD_.*|PATH|ENV|BASH_ENV|GCONV_PATH|IFS")
_VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]

component = Component("ergon", description="Runs commands")


@component.action(uses_files=True, argv_inputs=("command",))
def execute_command(
    command: str | list[str],
    timeout: Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX)] | None = None,
    env: Annotated[dict[_VariableName, str], Field(max_length=ENV_MAX)] | None = None,
    cwd: str = ".",
    stdin: Annotated[str, Field(max_length=STDIN_LENGTH_MAX)] = "",
    check: bool = True,
    max_output_bytes: Annotated[int, Field(ge=0, le=CAPTURE_BYTES_MAX)] = CAPTURE_BYTES,
    *,
    context: TaskContext,
) -> dict[str, Any]:
    """Run a program, without a shell, in the execution's working directory.

    `command` is split into words before references get their values: a value is one argument, or
    part of one. `timeout` is in seconds. `env` is added to a small environment (PATH, HOME, LANG
    and who is running). With `check`, an exit code other than 0 fails the task. Of each output the
    last `max_output_bytes` are kept, and its lines are in the task's log while it runs.
    """
    argv = _argv(command)
    directory = context.workspace.resolve(cwd, write=False)
    if not directory.is_dir():
        raise ActionError(
            f"cwd '{cwd}' is not a directory", code="FILE_NOT_FOUND", details={"file": cwd}
        )
    program = _program(argv[0], directory, context.allowed_commands, env or {})
    try:
        end = run_command(
            program,
            argv,
            env=_environment(context, env or {}),
            cwd=directory,
            stdin=_encoded(stdin, "stdin"),
            timeout_s=timeout,
            capture_bytes=max_output_bytes,
            owner=context,
        )
    except StartFailed as error:
        raise _start_failure(argv[0], error) from None
    if end.timed_out:
        raise _failure(
            f"command '{argv[0]}' took longer than {timeout:g} seconds",
            "COMMAND_TIMEOUT",
            end,
            timeout_seconds=timeout,
        )
    if context.cancelled:
        raise ActionError("the command was stopped", code="CANCELLED", retriable=False)
    if end.exit_code is None:
        raise _failure("the command's guard process was killed", "COMMAND_LOST", end)
    if check and end.exit_code != 0:
        raise _failure(_ended_badly(argv[0], end), "COMMAND_FAILED", end)
    return {
        "exit_code": end.exit_code,
        "stdout": end.stdout.text,
        "stderr": end.stderr.text,
        "stdout_truncated": end.stdout.truncated,
        "stderr_truncated": end.stderr.truncated,
        "stdout_bytes": end.stdout.size,
        "stderr_bytes": end.stderr.size,
        "duration_seconds": round(end.duration_s, 3),
    }


def _argv(command: str | list[str]) -> list[str]:
    if isinstance(command, str):
        try:
            argv = split_command(command)
        except CommandTemplateError as error:
            raise ActionError(str(error), code="INVALID_INPUT", retriable=False) from None
    else:
        argv = command
    if not argv or not argv[0].strip():
        raise ActionError("the command is empty", code="INVALID_INPUT", retriable=False)
    for word in argv:
        _encoded(word, "command")
    return argv


def _encoded(text: str, field: str) -> bytes:
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise ActionError(
            f"'{field}' holds half a surrogate pair", code="INVALID_INPUT", retriable=False
        ) from None
    if field != "stdin" and b"\0" in encoded:
        raise ActionError(f"'{field}' holds a NUL character", code="INVALID_INPUT", retriable=False)
    return encoded


def _program(
    word: str, directory: Path, allowed: frozenset[str] | None, env: dict[str, str]
) -> str:
    """The file to run. A word with a slash is a path, relative to where the command runs.

    With `allow_commands`, the file is the one that the service's own PATH has under that name: a
    file of the same name in the workspace, or on a PATH of the task's, is another program.
    """
    path = os.environ.get("PATH", os.defpath)
    if allowed is None:
        if "/" in word:
            return str(directory / word)
        found = shutil.which(word, path=env.get("PATH", path))
        if found is None:
            raise _not_found(word)
        return found
    name = Path(word).name
    trusted = word if word in allowed and "/" in word else shutil.which(name, path=path)
    listed = ", ".join(sorted(allowed)) or "none"
    if word not in allowed and name not in allowed:
        raise _not_allowed(f"program '{word}' may not run here; allowed are: {listed}", allowed)
    if trusted is None:
        raise _not_found(word)
    if "/" in word and not _same_file(directory / word, trusted):
        raise _not_allowed(f"'{word}' is not the '{name}' that may run, {trusted}", allowed)
    for variable in env:
        if _STEERING_VARIABLES.fullmatch(variable):
            raise _not_allowed(
                f"variable '{variable}' may not be set where programs are limited", allowed
            )
    return trusted


def _same_file(one: Path, other: str) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _environment(context: TaskContext, given: dict[str, str]) -> dict[str, str]:
    for name, value in given.items():
        _encoded(value, f"env.{name}")
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(context.workspace.directory),
        "LANG": "C.UTF-8",
        "HARMONIA_EXECUTION_ID": context.execution_id,
        "HARMONIA_TASK_NAME": context.task_name,
        "HARMONIA_ATTEMPT": str(context.attempt),
        "HARMONIA_IDEMPOTENCY_KEY": context.idempotency_key,
        **given,
    }


def _ended_badly(program: str, end: CommandEnd) -> str:
    last = end.stderr.text.strip().rpartition("\n")[2][:300]
    how = (
        f"was ended by signal {-end.exit_code}"
        if end.exit_code is not None and end.exit_code < 0
        else f"ended with exit code {end.exit_code}"
    )
    return f"command '{program}' {how}" + (f": {last}" if last else "")


def _failure(message: str, code: str, end: CommandEnd, **details: Any) -> ActionError:
    return ActionError(
        message,
        code=code,
        details={
            **details,
            "exit_code": end.exit_code,
            "stderr": end.stderr.text[-STDERR_SHOWN_MAX:],
        },
    )


def _start_failure(program: str, error: StartFailed) -> ActionError:
    if error.errno == errno.ENOENT:
        return _not_found(program)
    code = "COMMAND_NOT_EXECUTABLE"
    if error.errno == errno.E2BIG:
        code = "INVALID_INPUT"
    return ActionError(
        f"command '{program}' cannot be started: {os.strerror(error.errno)}",
        code=code,
        details={"command": program},
        retriable=False,
    )


def _not_found(program: str) -> ActionError:
    return ActionError(
        f"command not found: '{program}'",
        code="COMMAND_NOT_FOUND",
        details={"command": program},
        retriable=False,
    )


def _not_allowed(message: str, allowed: frozenset[str]) -> ActionError:
    return ActionError(
        message,
        code="COMMAND_NOT_ALLOWED",
        details={"allowed_commands": sorted(allowed)},
        retriable=False,
    )
