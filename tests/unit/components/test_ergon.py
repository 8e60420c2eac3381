"""Commands run without a shell, are limited, and leave nothing behind. All processes are real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from harmonia_actors.components.argv import check_words, split_command
from harmonia_actors.components.contract import ActionError
from harmonia_actors.components.ergon import component
from tests.unit.components.context import RecordingContext, context_in

ACTION = component.actions["execute_command"]
#: Tells its pid, starts a grandchild in a session of its own that does too, then both wait.
FAMILY = """
import os, sys, time, signal
if os.fork() == 0:
    os.setsid()
    {ignore}
    open("grandchild", "w").write(str(os.getpid()))
    time.sleep(600)
{ignore}
open("child", "w").write(str(os.getpid()))
time.sleep(600)
"""
IGNORE = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


def run(context: RecordingContext, command: Any, **given: Any) -> dict[str, Any]:
    """Call the action as the engine does: the input is checked first."""
    parsed = ACTION.parse({"command": command, **given})
    result: dict[str, Any] = ACTION.function(**parsed, context=context)
    return result


def failed(context: RecordingContext, command: Any, **given: Any) -> ActionError:
    with pytest.raises(ActionError) as error:
        run(context, command, **given)
    return error.value


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait for a condition, checking often; its value."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come true")
        pause.wait(0.01)
    return value


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def family(directory: Path) -> list[int] | None:
    """The pids of child and grandchild, once both have told them."""
    told = [directory / "child", directory / "grandchild"]
    texts = [file.read_text() for file in told if file.exists()]
    return [int(text) for text in texts] if len(texts) == 2 and all(texts) else None


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    return context_in(tmp_path)


def test_output_and_exit_code_come_back(context: RecordingContext) -> None:
    result = run(context, [sys.executable, "-c", "import sys; print('out'); sys.stderr.write('e')"])
    assert result["exit_code"] == 0
    assert (result["stdout"], result["stderr"]) == ("out\n", "e")
    assert (result["stdout_bytes"], result["stderr_bytes"]) == (4, 1)
    assert not result["stdout_truncated"]
    assert result["duration_seconds"] >= 0


def test_what_a_command_writes_is_told_while_it_runs(context: RecordingContext) -> None:
    """It goes on only when its first words have been heard."""
    code = (
        "import sys, pathlib, time\n"
        "print('first', flush=True); print('oops', file=sys.stderr, flush=True)\n"
        "while not pathlib.Path('heard').exists(): time.sleep(0.01)\n"
        "print('last')"
    )
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(run, context, [sys.executable, "-c", code])
        until(lambda: len(context.relayed) == 2)
        assert sorted(context.relayed) == [("stderr", b"oops\n"), ("stdout", b"first\n")]
        (context.workspace.directory / "heard").touch()
        result = running.result(20)
    assert context.relayed[2:] == [("stdout", b"last\n")]
    assert result["stdout"] == "first\nlast\n"


def test_a_string_is_split_without_substitution(context: RecordingContext) -> None:
    assert run(context, "echo 'a  b' $HOME *")["stdout"] == "a  b $HOME *\n"


@pytest.mark.parametrize("value", ["x; touch P", "$(touch P)", "`touch P`", "a\ntouch P", "| P"])
def test_values_are_literal_arguments_and_nothing_is_run(
    context: RecordingContext, value: str
) -> None:
    words = split_command("printf %s ${workflow.input.x}")
    argv = check_words(words, [*words[:-1], value])
    assert run(context, argv)["stdout"] == value
    assert list(context.workspace.directory.iterdir()) == []


def test_the_environment_is_small_and_without_the_services_secrets(
    context: RecordingContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARMONIA_REDIS_URL", "redis://:canary@localhost")
    result = run(context, "env", env={"EXTRA": "given", "LANG": "C"})
    found = dict(line.split("=", 1) for line in result["stdout"].splitlines())
    assert set(found) == {
        *("PATH", "HOME", "LANG", "EXTRA", "HARMONIA_EXECUTION_ID", "HARMONIA_TASK_NAME"),
        *("HARMONIA_ATTEMPT", "HARMONIA_IDEMPOTENCY_KEY"),
    }
    assert found["HOME"] == str(context.workspace.directory)
    assert (found["EXTRA"], found["LANG"]) == ("given", "C")
    assert found["HARMONIA_IDEMPOTENCY_KEY"] == "exec-1/a.task"


def test_no_descriptor_of_the_service_reaches_a_command(context: RecordingContext) -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    try:
        result = run(
            context, [sys.executable, "-c", "import os; print(os.listdir('/proc/self/fd'))"]
        )
    finally:
        os.close(read_end)
        os.close(write_end)
    # The directory that is being listed is the fourth.
    assert result["stdout"] == "['0', '1', '2', '3']\n"


def test_relative_paths_lie_in_the_workspace_or_in_cwd(context: RecordingContext) -> None:
    run(context, "touch here")
    run(context, "mkdir sub")
    run(context, "touch there", cwd="sub")
    assert (context.workspace.directory / "here").exists()
    assert (context.workspace.directory / "sub" / "there").exists()
    assert failed(context, "pwd", cwd="../..").code == "PATH_NOT_ALLOWED"
    assert failed(context, "pwd", cwd="nowhere").code == "FILE_NOT_FOUND"


def test_standard_input_is_given_and_otherwise_empty(context: RecordingContext) -> None:
    text = "línea\n" * 50_000
    result = run(context, "wc -c", stdin=text)
    assert int(result["stdout"]) == len(text.encode())
    assert run(context, "cat")["stdout"] == ""
    # A program that does not read its input is no error.
    assert run(context, "true", stdin=text)["exit_code"] == 0


def test_a_failing_command_fails_the_task_with_its_last_words(context: RecordingContext) -> None:
    error = failed(context, ["sh", "-c", "echo first >&2; echo last words >&2; exit 3"])
    assert error.code == "COMMAND_FAILED"
    assert error.message == "command 'sh' ended with exit code 3: last words"
    assert error.details == {"exit_code": 3, "stderr": "first\nlast words\n"}
    assert error.retriable


def test_without_check_the_exit_code_is_a_result(context: RecordingContext) -> None:
    assert run(context, ["sh", "-c", "exit 3"], check=False)["exit_code"] == 3
    assert run(context, ["sh", "-c", "kill -9 $$"], check=False)["exit_code"] == -9


def test_a_signal_is_told(context: RecordingContext) -> None:
    assert "ended by signal 9" in failed(context, ["sh", "-c", "kill -9 $$"]).message


@pytest.mark.parametrize("command", ["no-such-program x", "./no-such-file", "/no/such/file"])
def test_a_missing_program_is_told(context: RecordingContext, command: str) -> None:
    error = failed(context, command)
    assert error.code == "COMMAND_NOT_FOUND"
    assert error.details == {"command": command.split(maxsplit=1)[0]}
    assert not error.retriable


def test_a_file_that_is_no_program_is_told(context: RecordingContext) -> None:
    (context.workspace.directory / "data.txt").write_text("no program")
    assert failed(context, "./data.txt").code == "COMMAND_NOT_EXECUTABLE"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"command": "a | b"}, "split the command into tasks"),
        ({"command": []}, "empty"),
        ({"command": ["a\0"]}, "NUL"),
        ({"command": ["a", "\ud800"]}, "surrogate"),
        ({"command": "true", "timeout": 0}, "timeout"),
        ({"command": "true", "timeout": "NaN"}, "timeout"),
        ({"command": "true", "env": {"A=B": "x"}}, "env"),
        ({"command": "true", "env": {"A": "x\0"}}, "NUL"),
        ({"command": "true", "cmd": "x"}, "no such input"),
        ({"command": {"a": 1}}, "command"),
    ],
)
def test_bad_input_is_refused(context: RecordingContext, given: dict[str, Any], says: str) -> None:
    error = failed(context, **given)
    assert error.code == "INVALID_INPUT"
    assert says in error.message


def test_of_long_output_the_end_is_kept_and_the_size_told(context: RecordingContext) -> None:
    script = "import sys; sys.stdout.write('x' * 3_000_000 + 'the end')"
    result = run(context, [sys.executable, "-c", script], max_output_bytes=1000)
    assert len(result["stdout"]) == 1000
    assert result["stdout"].endswith("xthe end")
    assert result["stdout_bytes"] == 3_000_007
    assert result["stdout_truncated"]
    assert not result["stderr_truncated"]


def test_output_is_cut_between_characters_and_survives_other_bytes(
    context: RecordingContext,
) -> None:
    cut = run(context, ["printf", "é" * 100], max_output_bytes=11)
    assert cut["stdout"] == "é" * 5
    assert run(context, ["printf", "\\377ok"])["stdout"] == "\ufffdok"


def test_a_command_that_takes_too_long_is_ended(context: RecordingContext) -> None:
    error = failed(context, ["sh", "-c", "echo begun >&2; sleep 600"], timeout=0.5)
    assert error.code == "COMMAND_TIMEOUT"
    assert error.details["timeout_seconds"] == 0.5
    assert error.details["stderr"] == "begun\n"


@pytest.mark.parametrize("ignore", ["pass", IGNORE])
def test_cancelling_ends_the_command_and_all_its_descendants(
    context: RecordingContext, ignore: str
) -> None:
    ended: list[ActionError] = []
    command = [sys.executable, "-c", FAMILY.format(ignore=ignore)]
    thread = threading.Thread(target=lambda: ended.append(failed(context, command)))
    thread.start()
    pids = until(lambda: family(context.workspace.directory))
    context.cancel()
    thread.join(20)
    assert not thread.is_alive()
    assert ended[0].code == "CANCELLED"
    assert all(is_gone(pid) for pid in pids)


def test_a_command_is_told_to_end_before_it_is_killed(context: RecordingContext) -> None:
    script = "trap 'echo tidied > tidied; exit 0' TERM; echo > ready; while :; do sleep 0.01; done"
    thread = threading.Thread(target=lambda: failed(context, ["sh", "-c", script]))
    thread.start()
    until((context.workspace.directory / "ready").exists)
    context.cancel()
    thread.join(20)
    assert (context.workspace.directory / "tidied").read_text() == "tidied\n"


def test_an_attempt_cancelled_before_it_starts_runs_nothing(context: RecordingContext) -> None:
    context.cancel()
    assert failed(context, "touch here").code == "CANCELLED"
    assert not (context.workspace.directory / "here").exists()


def test_what_a_command_leaves_running_ends_with_it(context: RecordingContext) -> None:
    script = "setsid sleep 600 & echo $!"
    pid = int(run(context, ["sh", "-c", script])["stdout"])
    assert is_gone(pid)


def test_a_command_ends_when_its_worker_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.unit.components.context import context_in\n"
        "from harmonia_actors.components.ergon import component\n"
        "action = component.actions['execute_command'].function\n"
        "action([sys.executable, '-c', sys.argv[2]], context=context_in(Path(sys.argv[1])))\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), FAMILY.format(ignore=IGNORE)],
        cwd=Path(__file__).parents[3],
    )
    try:
        pids = until(lambda: family(tmp_path))
        guard = psutil.Process(pids[0]).parent()
        assert guard is not None
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    until(lambda: all(is_gone(pid) for pid in [*pids, guard.pid]))


def test_a_command_ends_when_its_guard_is_killed(context: RecordingContext) -> None:
    ended: list[ActionError] = []
    script = "import os, time; open('child', 'w').write(str(os.getpid())); time.sleep(600)"
    thread = threading.Thread(
        target=lambda: ended.append(failed(context, [sys.executable, "-c", script]))
    )
    thread.start()
    told = context.workspace.directory / "child"
    pid = int(until(lambda: told.exists() and told.read_text()))
    guard = psutil.Process(pid).parent()
    assert guard is not None
    guard.kill()
    thread.join(20)
    assert ended[0].code == "COMMAND_LOST"
    until(lambda: is_gone(pid))


@pytest.mark.parametrize("start", ["", "exec 1>&- 2>&-;", "trap '' TERM HUP;"])
def test_a_command_that_kills_its_guard_leaves_nothing_running(
    context: RecordingContext, start: str
) -> None:
    script = f"{start} sleep 600 & echo $! > child; kill -9 $PPID; sleep 600"
    assert failed(context, ["sh", "-c", script]).code == "COMMAND_LOST"
    pid = int((context.workspace.directory / "child").read_text())
    until(lambda: is_gone(pid))


def test_commands_run_side_by_side(tmp_path: Path) -> None:
    """Each waits for a file of the next: they end only if all of them run at once."""
    names = ["a", "b", "c", "d"]
    results: list[dict[str, Any]] = []

    def wait_for_next(at: int) -> None:
        script = f"echo > {names[at]}; until test -e {names[at - 1]}; do sleep 0.01; done"
        results.append(run(context_in(tmp_path), ["sh", "-c", script]))

    threads = [threading.Thread(target=wait_for_next, args=(at,)) for at in range(len(names))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [result["exit_code"] for result in results] == [0] * 4


def test_running_commands_leaks_no_descriptors(context: RecordingContext) -> None:
    run(context, "true")
    before = psutil.Process().num_fds()
    for _ in range(5):
        run(context, "true")
        failed(context, "false")
        failed(context, "no-such-program")
        failed(context, "./nothing")
    assert psutil.Process().num_fds() == before


class TestAllowedCommands:
    @pytest.fixture
    def limited(self, tmp_path: Path) -> RecordingContext:
        return context_in(tmp_path, allowed_commands=frozenset({"echo", "cat"}))

    def test_permitted_programs_run_by_name_and_by_path(self, limited: RecordingContext) -> None:
        assert run(limited, "echo hi")["stdout"] == "hi\n"
        assert run(limited, "/bin/echo hi")["stdout"] == "hi\n"

    @pytest.mark.parametrize("command", ["sh -c x", "/bin/sh", "env echo hi", "ech o", "../echo"])
    def test_others_are_refused_with_the_list(
        self, limited: RecordingContext, command: str
    ) -> None:
        error = failed(limited, command)
        assert error.code == "COMMAND_NOT_ALLOWED"
        assert error.details == {"allowed_commands": ["cat", "echo"]}
        assert not error.retriable

    def test_a_file_of_the_same_name_is_another_program(self, limited: RecordingContext) -> None:
        own = limited.workspace.directory / "echo"
        own.write_text("#!/bin/sh\ntouch P\n")
        own.chmod(0o755)
        assert failed(limited, "./echo").code == "COMMAND_NOT_ALLOWED"
        assert failed(limited, str(own)).code == "COMMAND_NOT_ALLOWED"
        own.unlink()
        own.symlink_to("/bin/sh")
        assert failed(limited, "./echo -c true").code == "COMMAND_NOT_ALLOWED"
        assert run(limited, "echo hi")["stdout"] == "hi\n"

    @pytest.mark.parametrize("variable", ["PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV"])
    def test_variables_that_steer_programs_are_refused(
        self, limited: RecordingContext, variable: str
    ) -> None:
        assert failed(limited, "echo hi", env={variable: "x"}).code == "COMMAND_NOT_ALLOWED"

    def test_nothing_is_permitted_by_an_empty_list(self, tmp_path: Path) -> None:
        error = failed(context_in(tmp_path, allowed_commands=frozenset()), "true")
        assert "allowed are: none" in error.message
