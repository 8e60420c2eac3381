"""What an audit asks of an execution, as named rules, and what it has found to be broken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["AUDIT_RULES", "Findings", "Violation"]

#: A1 to A15 are asked of the event log, A16 to A18 of what is stored besides.
AUDIT_RULES: Final = {
    "A1": "The `seq` of events grows by one from 1, without gap or repeat, up to the last that "
    "was stored; log lines are parts of the one before.",
    "A2": "An event has the form of its type.",
    "A3": "The log begins with `execution_started`, which comes once; only an execution that was "
    "cancelled or quarantined before it began has none.",
    "A4": "Nothing follows the event that ends the execution.",
    "A5": "Names, indexes, counts and limits in events are those of the definition.",
    "A6": "A task starts, or fails before it starts, only after every task it depends on has "
    "completed.",
    "A7": "The attempt numbers of a task only grow, so that no attempt starts twice.",
    "A8": "At most one attempt of a task runs at a time.",
    "A9": "Outcomes, progress and log lines are those of the attempt that runs; only a failure may "
    "be of one that has not begun. Progress that says nothing new is not told.",
    "A10": "A task ends once, and nothing is told of it afterwards.",
    "A11": "`retry_count` is what was told; lost attempts count apart; nothing is retried more "
    "often than the policy allows. Of the failure that is stored, also whether it may be retried: "
    "if it may not, it is not; if it may, it does not end the execution. How many losses a task "
    "may bear is a setting, and is not asked.",
    "A12": "How tasks end fits why the execution ends: what runs is not skipped, the reasons "
    "agree, and after a cancel nothing fails.",
    "A13": "Once the execution is bound to end, only what was ready may still start, and what "
    "follows it one by one; nothing is tried again, and all else is dropped at once.",
    "A14": "The event that ends the execution fits how its tasks have ended.",
    "A15": "A checkpoint is told once.",
    "A16": "The stored status, error, times, counts and output of the execution are those of its "
    "log.",
    "A17": "The stored status, attempt, failures, times and output of a task are those of the log; "
    "blobs are not looked into.",
    "A18": "The outputs that the stored state refers to are stored; blobs are not looked for.",
}


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that is broken. `seq` is None if no single event breaks it, `task` if no task."""

    rule: str
    seq: int | None
    task: str | None
    message: str

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "rule": self.rule,
            "seq": self.seq,
            "task": self.task,
            "message": self.message,
        }


@dataclass(slots=True)
class Findings:
    """All that was found broken: the first ones, and how many there are."""

    kept_max: int
    violations: list[Violation] = field(default_factory=list)
    total: int = 0

    def add(self, violation: Violation) -> None:
        """Count one more, and keep it if there is room."""
        self.total += 1
        if len(self.violations) < self.kept_max:
            self.violations.append(violation)
