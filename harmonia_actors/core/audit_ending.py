"""Why an execution ends, as far as its log has told: what an audit holds each ending against.

An execution is bound to end when a task has failed for good, when its time has run out, when it is
cancelled, or when it is quarantined, which the log does not announce. The log names the cause with
each task that is dropped and with its last event; all of these must name the same one. Only a
cancel may overtake another cause. Nothing overtakes a cancel but a quarantine by the head alone:
it fails what was being cancelled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harmonia_actors.core.quarantine import QUARANTINED, quarantine_error
from harmonia_actors.core.state import CANCELLED_REASON, TIMED_OUT, timeout_error, why_ending

__all__ = ["QUARANTINED_REASON", "Ending"]

_TIMED_OUT = why_ending({"code": TIMED_OUT})
#: Why a task does not run, or not to its end, in an execution that is quarantined.
QUARANTINED_REASON = why_ending({"code": QUARANTINED})
_OF_TASKS = ("component_error", "execution_error")


class Ending:
    """What is known of an execution's ending. `timeout_ms` is the execution's own, if any."""

    def __init__(self, timeout_ms: int | None) -> None:
        self._timeout_ms = timeout_ms
        #: Seq of the first event that shows that the execution is bound to end; 0 if none has.
        self.seq = 0
        self.is_cancelled = False
        #: Whether a task was dropped because of a quarantine: the end is told with it.
        self.is_quarantined = False
        #: The first task that failed for good, and what the log told of that.
        self._first_name: str | None = None
        self._first_data: Mapping[str, Any] = {}
        #: The cause besides a cancel, in the words of `why_ending`, once it is certain.
        self._cause: str | None = None

    def bind(self, seq: int) -> None:
        """An event shows that the execution is bound to end."""
        self.seq = self.seq or seq

    def failed(self, seq: int, name: str, data: Mapping[str, Any], *, is_cause: bool) -> None:
        """A task has failed for good; `is_cause` if nothing else can have bound all to end."""
        self.bind(seq)
        if self._first_name is None:
            self._first_name, self._first_data = name, data
            if is_cause and self._cause is None:
                self._cause = self._first_cause

    def failure_problems(self, *, will_retry: bool, never_began: bool) -> Iterator[tuple[str, str]]:
        """What speaks against a failure at this point, each with its rule.

        `never_began`: the process of the attempt died before the attempt was seen to start.
        """
        if self.is_cancelled:
            yield "A12", "it fails, but the execution was being cancelled"
        elif self.seq and never_began:
            yield "A12", "it is lost without having begun, and should be skipped"
        elif self.seq and will_retry:
            yield "A13", f"it is tried again, but event {self.seq} has bound all to end"

    def drop_problem(
        self, reason: str, *, is_skip: bool, was_running: bool, was_blocked: bool
    ) -> str:
        """What speaks against a task's being skipped or cancelled with this reason."""
        if is_skip and was_running:
            return "it is skipped while an attempt of it runs"
        if reason == CANCELLED_REASON:
            return self._cancel_problem(is_skip=is_skip, was_blocked=was_blocked)
        if self.is_cancelled:
            return f"the reason is '{reason[:200]}', but the execution was being cancelled"
        if not is_skip and not was_running:
            return "it is cancelled, but no attempt of it runs; it should be skipped"
        if reason not in self._possible_causes():
            return f"the reason is '{reason[:200]}', which is not why the execution ends"
        self._cause = reason
        self.is_quarantined = reason == QUARANTINED_REASON
        return ""

    def _cancel_problem(self, *, is_skip: bool, was_blocked: bool) -> str:
        if self.is_quarantined:
            return "it is dropped by a cancel in the midst of a quarantine"
        self.is_cancelled = True
        if was_blocked and self._cause is None:
            # Any other cause would have dropped it before: only a quarantine can still come.
            self._cause = QUARANTINED_REASON
        return "it is skipped because of a cancel; it should be cancelled" if is_skip else ""

    def final_problems(
        self, kind: str, data: Mapping[str, Any], *, all_completed: bool, all_ended: bool
    ) -> Iterator[str]:
        """What speaks against this last event."""
        if kind == "execution_completed":
            if not all_completed:
                yield "the execution has completed, but not all its tasks have"
        elif kind == "execution_failed":
            if self.is_cancelled and all_ended:
                yield "the execution has failed, but it was being cancelled"
            yield from self._error_problems(data["error"], all_completed=all_completed)

    @property
    def _first_cause(self) -> str:
        return why_ending({"task": self._first_name})

    def _possible_causes(self) -> list[str]:
        if self._cause is not None:
            return [self._cause]
        causes = [QUARANTINED_REASON] if self._first_name is None else [self._first_cause]
        return [*causes, _TIMED_OUT] if self._timeout_ms else causes

    def _error_problems(self, error: Mapping[str, Any], *, all_completed: bool) -> Iterator[str]:
        if "task" in error:
            yield from self._task_error_problems(error)
        elif error["code"] == TIMED_OUT:
            if _TIMED_OUT not in self._possible_causes():
                yield "the error is a timeout, which is not why the execution ends"
            elif error != timeout_error(self._timeout_ms or 0):
                yield "the error names another timeout than the execution had"
        elif error["code"] == QUARANTINED:
            if QUARANTINED_REASON not in self._possible_causes():
                yield "the error is a quarantine, which is not why the execution ends"
            elif error != quarantine_error(error["details"].get("crashes", 0)):
                yield "the error is not that of a quarantine"
        elif not all_completed:
            yield f"the error is {error['code'][:200]} without a task, but not all have completed"
        elif error["code"] != "execution_error" or "code" not in error["details"]:
            yield f"the error is {error['code'][:200]}, but names no task"

    def _task_error_problems(self, error: Mapping[str, Any]) -> Iterator[str]:
        name = error["task"]
        if name != self._first_name:
            yield f"the error names task '{name[:200]}', which is not the first that failed"
        elif self._first_cause not in self._possible_causes():
            yield f"the error names task '{name}', which is not why the execution ends"
        else:
            if error["code"] not in _OF_TASKS:
                yield f"the error of a failed task has code {error['code'][:200]}"
            if error["message"] != f"task '{name}' failed: {self._first_data['error']}":
                yield f"the error's message is not what task '{name}' failed with"
            if error["details"] != self._first_data["error_details"]:
                yield f"the error's details are not what task '{name}' failed with"
