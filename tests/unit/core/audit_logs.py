"""Event logs for the tests of the auditor, written event by event: good ones and broken ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harmonia_actors.core import events as ev
from harmonia_actors.core import jsontext
from harmonia_actors.core.audit import Auditor
from harmonia_actors.core.log_lines import LogLine
from harmonia_actors.core.quarantine import quarantine_error
from harmonia_actors.core.state import CANCELLED_REASON, NumberedEvent, timeout_error, why_ending
from harmonia_actors.core.stimuli import Failure
from tests.support.executions import EXECUTION_ID, new_head, output, workflow_of

__all__ = [
    "AT_MS",
    "BROKEN",
    "GOOD",
    "HEAD",
    "REST",
    "TIMED_OUT",
    "WORKFLOW",
    "audited",
    "begin",
    "checkpoint",
    "complete",
    "completed",
    "found",
    "lines",
    "messages",
    "progress",
    "ran_out",
    "run",
    "start",
]

#: `b` needs what `a` does not, so that whoever runs `a` cannot go on with it.
WORKFLOW = workflow_of(
    {
        "a": {"retry_policy": {"max_retries": 1}},
        "b": {"depends_on": ["a"], "resources": {"num_cpus": 2}},
        "c": "",
    },
    timeout=60,
)
HEAD = new_head(WORKFLOW)
NAMES = [task.name for task in WORKFLOW.tasks]
AT_MS = 1_000_500

A_FAILED = why_ending({"task": "a"})
C_FAILED = why_ending({"task": "c"})
TIMED_OUT = why_ending({"code": "timeout"})
QUARANTINED = why_ending({"code": "quarantined"})


# Writing logs ------------------------------------------------------------------------------------


def begin() -> ev.Event:
    return ev.ExecutionStarted(HEAD.workflow_id, "wf")


def start(name: str, attempt: int = 1) -> ev.Event:
    return ev.TaskStarted(name, NAMES.index(name), 3, attempt)


def progress(name: str) -> ev.Event:
    return ev.TaskProgress(name, 0.5, "half way")


def lines(name: str, attempt: int = 1, *texts: str, dropped: int = 0) -> ev.Event:
    return ev.TaskLog(
        name, attempt, tuple(LogLine("stdout", text, AT_MS) for text in texts), dropped
    )


def complete(name: str, attempt: int = 1) -> ev.Event:
    return ev.TaskCompleted(name, NAMES.index(name), 3, attempt, output({"of": name}))


def fail(name: str, attempt: int = 1, *, retries: int = 0, again: bool = False) -> ev.Event:
    failure = Failure("it broke", "BROKE", {})
    most = 1 if name == "a" else 0
    return ev.TaskFailed(name, NAMES.index(name), 3, attempt, failure, retries, most, again)


def lose(name: str, attempt: int = 1, *, losses: int = 1, again: bool = True) -> ev.Event:
    failure = Failure("its node died", "WORKER_LOST", {"lost_attempts": losses}, "engine")
    most = 1 if name == "a" else 0
    return ev.TaskFailed(name, NAMES.index(name), 3, attempt, failure, 0, most, again)


def skip(name: str, reason: str) -> ev.Event:
    return ev.TaskSkipped(name, NAMES.index(name), 3, reason)


def cancel(name: str, reason: str = CANCELLED_REASON) -> ev.Event:
    return ev.TaskCancelled(name, NAMES.index(name), 3, reason)


def checkpoint(checkpoint_id: str = "cp-1") -> ev.Event:
    return ev.CheckpointCreated(checkpoint_id, "here")


def completed(duration_ms: int = 0) -> ev.Event:
    return ev.ExecutionCompleted(HEAD.workflow_id, "wf", duration_ms, output({}))


def failed(**changed: Any) -> ev.Event:
    """The execution has failed, by default because `c` has."""
    error = {
        "code": "component_error",
        "message": "task 'c' failed: it broke",
        "details": {"code": "BROKE"},
        "task": "c",
    }
    return ev.ExecutionFailed(HEAD.workflow_id, "wf", 0, {**error, **changed})


def ran_out(timeout_ms: int = 60_000) -> ev.Event:
    return ev.ExecutionFailed(HEAD.workflow_id, "wf", 0, timeout_error(timeout_ms))


def quarantined() -> ev.Event:
    return ev.ExecutionFailed(HEAD.workflow_id, "wf", 0, quarantine_error(3))


def failed_output() -> ev.Event:
    error = {"code": "execution_error", "message": "", "details": {"code": "MISSING_VALUE"}}
    return ev.ExecutionFailed(HEAD.workflow_id, "wf", 0, error)


def cancelled() -> ev.Event:
    return ev.ExecutionCancelled(HEAD.workflow_id, "wf", 0)


def run(name: str, attempt: int = 1) -> list[ev.Event]:
    return [start(name, attempt), complete(name, attempt)]


def messages(*events: ev.Event | Sequence[ev.Event]) -> list[dict[str, Any]]:
    flat = [e for each in events for e in (each if isinstance(each, Sequence) else [each])]
    told, seq, part = [], 0, 0
    for index, event in enumerate(flat, 1):
        is_log = isinstance(event, ev.TaskLog)
        seq, part = (seq, part + 1) if is_log else (seq + 1, 0)
        numbered = NumberedEvent(seq, AT_MS, event, part, index)
        told.append(jsontext.decode(numbered.encoded(EXECUTION_ID)))
    return told


def audited(log: Sequence[dict[str, Any]], **given: Any) -> Auditor:
    auditor = Auditor(WORKFLOW, given.pop("head", HEAD), **given)
    for index, message in enumerate(log, 1):
        auditor.feed(index, jsontext.encode(message))
    return auditor


def found(auditor: Auditor) -> list[str]:
    return [violation.rule for violation in auditor.findings.violations]


GOOD: dict[str, list[Any]] = {
    "straight": [begin(), run("a"), run("c"), run("b"), completed()],
    "nothing yet": [],
    "under way": [begin(), start("a"), progress("a"), start("c")],
    "retried and lost": [
        *(begin(), start("a"), fail("a", again=True), start("a", 2), lose("a", 2)),
        *(run("a", 3), run("b"), run("c"), completed()),
    ],
    "with log lines": [
        *(begin(), start("a"), lines("a", 1, "one", "two"), lose("a"), start("a", 2)),
        *(lines("a", 2, "one", dropped=7), lines("a", 2, dropped=1), complete("a", 2)),
        *(run("b"), run("c"), completed()),
    ],
    "lost before it was seen to start": [
        *(begin(), run("a", 4), run("b", 2), lose("c", 7, losses=6, again=False)),
        failed(
            code="execution_error",
            message="task 'c' failed: its node died",
            details={"code": "WORKER_LOST", "lost_attempts": 6},
        ),
    ],
    "failed before it started": [begin(), fail("c"), skip("b", C_FAILED), run("a"), failed()],
    "others may end": [
        *(begin(), start("a"), start("c"), fail("c"), skip("b", C_FAILED)),
        *(progress("a"), checkpoint(), complete("a"), failed()),
    ],
    "taken back too late": [
        *(begin(), start("c"), fail("c"), skip("b", C_FAILED)),
        *(start("a"), cancel("a", C_FAILED), failed()),
    ],
    "time ran out": [
        *(begin(), start("a"), skip("b", TIMED_OUT), cancel("a", TIMED_OUT)),
        *(skip("c", TIMED_OUT), ran_out()),
    ],
    "time ran out at the very end": [begin(), run("a"), run("b"), run("c"), ran_out()],
    "time ran out before a failure": [
        *(begin(), run("a"), start("b"), start("c"), fail("c")),
        *(cancel("b", TIMED_OUT), ran_out()),
    ],
    "no output could be made": [
        *(begin(), run("a"), run("b"), run("c")),
        failed_output(),
    ],
    "cancelled": [begin(), start("a"), cancel("b"), cancel("c"), cancel("a"), cancelled()],
    "cancelled too late": [begin(), run("a"), run("b"), run("c"), cancelled()],
    "cancelled while it failed": [
        *(begin(), start("a"), start("c"), fail("c"), skip("b", C_FAILED), cancel("a")),
        cancelled(),
    ],
    "cancelled before it began": [cancel("a"), cancel("b"), cancel("c"), cancelled()],
    "as far in the next attempt": [
        *(begin(), start("a"), progress("a"), lose("a"), start("a", 2), progress("a")),
        *(complete("a", 2), run("b"), run("c"), completed()),
    ],
    "quarantined": [
        *(begin(), start("a"), skip("b", QUARANTINED), skip("c", QUARANTINED)),
        *(cancel("a", QUARANTINED), quarantined()),
    ],
    "quarantined by its head": [begin(), start("a"), quarantined()],
    "quarantined before it began": [quarantined()],
    "quarantined while it failed": [begin(), start("a"), fail("c"), skip("b", C_FAILED), failed()],
    "quarantined while time ran out": [begin(), run("a"), start("b"), start("c"), ran_out()],
    "quarantined while it was cancelled": [begin(), start("a"), cancel("b"), quarantined()],
}


REST = [*run("b"), *run("c"), completed()]

#: Rule, and a log that breaks it and no other.
BROKEN: list[tuple[str, str, list[Any]]] = [
    ("A3", "no beginning", [run("a"), REST]),
    ("A3", "begins twice", [begin(), begin(), run("a"), REST]),
    ("A3", "begins later", [checkpoint(), begin(), run("a"), REST]),
    ("A4", "goes on", [begin(), run("a"), REST, checkpoint()]),
    ("A4", "ends twice", [begin(), run("a"), REST, completed()]),
    ("A5", "unknown task", [begin(), run("a"), ev.TaskProgress("x", 0.5, ""), REST]),
    ("A5", "index", [begin(), ev.TaskStarted("a", 1, 3, 1), complete("a"), REST]),
    ("A5", "total", [begin(), ev.TaskStarted("a", 0, 4, 1), complete("a"), REST]),
    ("A5", "workflow's name", [ev.ExecutionStarted(HEAD.workflow_id, "x"), run("a"), REST]),
    ("A5", "workflow's id", [ev.ExecutionStarted("wf-2", "wf"), run("a"), REST]),
    (
        *("A5", "max_retries"),
        [
            *(begin(), start("a")),
            ev.TaskFailed("a", 0, 3, 1, Failure("x", "X", {}), 0, 5, will_retry=True),
            *(run("a", 2), REST),
        ],
    ),
    (
        *("A6", "starts too early"),
        [begin(), start("b"), run("a"), complete("b"), run("c"), completed()],
    ),
    (
        *("A6", "fails too early"),
        [
            *(begin(), start("a"), fail("b"), complete("a"), run("c")),
            failed(task="b", message="task 'b' failed: it broke"),
        ],
    ),
    (
        *("A7", "the same attempt again"),
        [begin(), start("a"), fail("a", again=True), run("a"), REST],
    ),
    ("A8", "two at a time", [begin(), start("a"), run("a", 2), REST]),
    ("A9", "completes without a start", [begin(), complete("a"), REST]),
    ("A9", "another one completes", [begin(), start("a", 2), complete("a", 1), REST]),
    (
        *("A9", "the same progress again"),
        [begin(), start("a"), progress("a"), checkpoint(), progress("a"), complete("a"), REST],
    ),
    ("A9", "progress of none", [begin(), progress("a"), run("a"), REST]),
    ("A9", "lines of none", [begin(), lines("a", 1, "x"), run("a"), REST]),
    ("A9", "lines of another", [begin(), start("a", 2), lines("a", 1, "x"), run("c")]),
    ("A9", "no line", [begin(), start("a"), lines("a", 1), complete("a"), REST]),
    ("A10", "lines after its end", [begin(), run("a"), lines("a", 1, "x"), REST]),
    (
        *("A9", "an outcome twice"),
        [
            *(begin(), start("a"), fail("a", again=True), fail("a", retries=1)),
            *(skip("b", A_FAILED), run("c"), failed(task="a", message="task 'a' failed: it broke")),
        ],
    ),
    ("A9", "a loss of what never began", [begin(), lose("a"), run("a", 2), REST]),
    ("A10", "completes twice", [begin(), run("a"), complete("a"), REST]),
    ("A10", "starts after its end", [begin(), run("a"), start("a", 2), REST]),
    ("A10", "progress after its end", [begin(), run("a"), progress("a"), REST]),
    (
        *("A11", "more retries than there are"),
        [begin(), run("a"), run("b"), start("c"), fail("c", again=True), run("c", 2), completed()],
    ),
    (
        *("A11", "retries miscounted"),
        [begin(), start("a"), fail("a", retries=1, again=True), run("a", 2), REST],
    ),
    (
        *("A11", "losses miscounted"),
        [begin(), start("a"), lose("a", losses=2), run("a", 2), REST],
    ),
    (
        *("A11", "more losses than numbers"),
        [
            *(begin(), start("a", 2), lose("a", 2), start("a", 3), lose("a", 3, losses=3)),
            *(run("a", 4), REST),
        ],
    ),
    (
        *("A11", "losses that do not grow"),
        [begin(), start("a"), lose("a"), start("a", 2), lose("a", 2), run("a", 3), REST],
    ),
    (
        *("A12", "skipped while it runs"),
        [begin(), run("a"), start("b"), fail("c"), skip("b", C_FAILED), failed()],
    ),
    (
        *("A12", "skipped by a cancel"),
        [begin(), run("a"), skip("b", CANCELLED_REASON), cancel("c"), cancelled()],
    ),
    (
        *("A12", "cancelled without need"),
        [begin(), fail("c"), cancel("b", C_FAILED), run("a"), failed()],
    ),
    ("A12", "another reason", [begin(), fail("c"), skip("b", A_FAILED), run("a"), failed()]),
    (
        *("A12", "reasons that differ"),
        [begin(), fail("c"), skip("b", C_FAILED), skip("a", TIMED_OUT), failed()],
    ),
    (
        *("A12", "fails while it is cancelled"),
        [begin(), start("a"), cancel("b"), cancel("c"), fail("a"), cancelled()],
    ),
    (
        *("A12", "another reason after a cancel"),
        [begin(), start("a"), cancel("b"), cancel("a"), skip("c", TIMED_OUT), cancelled()],
    ),
    (
        *("A12", "lost without having begun"),
        [begin(), fail("c"), skip("b", C_FAILED), lose("a", again=False), failed()],
    ),
    (
        *("A13", "what runs is dropped first"),
        [begin(), start("a"), cancel("a"), cancel("b"), cancel("c"), cancelled()],
    ),
    (
        *("A13", "dropped too late"),
        [begin(), start("a"), fail("c"), complete("a"), skip("b", C_FAILED), failed()],
    ),
    (
        *("A13", "goes on all the same"),
        [begin(), start("a"), fail("c"), complete("a"), run("b"), failed()],
    ),
    (
        *("A13", "tried again"),
        [
            *(begin(), start("a"), fail("c"), skip("b", C_FAILED)),
            *(fail("a", again=True), run("a", 2), failed()),
        ],
    ),
    ("A14", "a task without an end", [begin(), run("a"), run("b"), start("c"), cancelled()]),
    (
        *("A14", "completed in spite of a failure"),
        [begin(), run("a"), run("b"), fail("c"), completed()],
    ),
    (
        *("A13", "in the midst of a quarantine"),
        [begin(), start("a"), skip("b", QUARANTINED), complete("a"), skip("c", QUARANTINED)],
    ),
    (
        *("A12", "cancelled in the midst of a quarantine"),
        [begin(), skip("a", QUARANTINED), cancel("b"), skip("c", QUARANTINED), quarantined()],
    ),
    (
        *("A14", "quarantined, but not all of it"),
        [begin(), skip("a", QUARANTINED), skip("b", QUARANTINED), quarantined()],
    ),
    ("A14", "a timeout that dropped nothing", [begin(), start("a"), ran_out()]),
    (
        *("A14", "a timeout after a cancel"),
        [begin(), start("a"), cancel("b"), ran_out()],
    ),
    (
        *("A14", "quarantined after a failure"),
        [begin(), fail("c"), skip("b", C_FAILED), run("a"), quarantined()],
    ),
    ("A3", "quarantined without a beginning", [skip("a", QUARANTINED)]),
    ("A14", "failed without a failure", [begin(), run("a"), run("b"), run("c"), failed()]),
    (
        *("A14", "failed while it was cancelled"),
        [begin(), start("c"), fail("c"), cancel("b"), cancel("a"), failed()],
    ),
    (
        *("A14", "another failure than the first"),
        [begin(), run("a"), fail("c"), fail("b"), failed(task="b")],
    ),
    ("A14", "an error of its own", [begin(), run("a"), run("b"), fail("c"), failed(message="no")]),
    ("A14", "other details", [begin(), run("a"), run("b"), fail("c"), failed(details={})]),
    ("A14", "an odd code", [begin(), run("a"), run("b"), fail("c"), failed(code="odd")]),
    ("A14", "another cause", [begin(), fail("c"), skip("b", C_FAILED), run("a"), ran_out()]),
    (
        *("A14", "a cause that came first"),
        [begin(), run("a"), skip("b", TIMED_OUT), fail("c"), failed()],
    ),
    (
        *("A14", "a loss that came first"),
        [begin(), run("a"), run("b"), lose("c", again=False), ran_out()],
    ),
    ("A14", "another timeout", [begin(), run("a"), run("b"), run("c"), ran_out(5_000)]),
    (
        *("A14", "nobody's error"),
        [
            *(begin(), run("a"), run("b"), fail("c")),
            ev.ExecutionFailed(
                HEAD.workflow_id, "wf", 0, {"code": "odd", "message": "", "details": {}}
            ),
        ],
    ),
    ("A14", "a duration of its own", [begin(), run("a"), run("b"), run("c"), completed(1)]),
    ("A15", "told twice", [begin(), checkpoint(), run("a"), checkpoint(), REST]),
]  # fmt: skip
