"""What an execution wants done. Performed only once the decision that holds it is durable.

Commands are a function of state: `Execution.resume` derives every outstanding one again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "ArmTimer",
    "Command",
    "ComposeOutput",
    "StartAttempt",
    "StopAttempt",
    "StopReason",
    "TakeCheckpoint",
]


class StopReason(StrEnum):
    """Why an attempt is to stop."""

    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    #: Another task has failed: take it back if it has not started, else let it end.
    TAKEN_BACK = "taken_back"


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Run a task's action. Idempotent by (task, attempt).

    `then` is the rest of a stretch: (task, attempt) of tasks that follow one after the other, each
    waiting for nothing but the one before it. Whoever runs the first may go on with them, as long
    as each outcome is durable before the next one starts; those that he does not come to are
    answered by AttemptReturned.
    """

    task: int
    attempt: int
    then: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class StopAttempt:
    """Stop an attempt, or take it back; answered by AttemptStopped unless it ends otherwise."""

    task: int
    attempt: int
    reason: StopReason


@dataclass(frozen=True, slots=True)
class ArmTimer:
    """Send TimerFired at `due_ms`. A later ArmTimer replaces an earlier one."""

    due_ms: int


@dataclass(frozen=True, slots=True)
class ComposeOutput:
    """Make the execution's output; answered by OutputComposed or OutputRefused."""


@dataclass(frozen=True, slots=True)
class TakeCheckpoint:
    """Take the checkpoint that was decided on at `seq`; answered by AutomaticCheckpointTaken.

    Idempotent by seq. `kept` is how many of the execution's automatic ones stay.
    """

    seq: int
    kept: int


Command = StartAttempt | StopAttempt | ArmTimer | ComposeOutput | TakeCheckpoint
