"""What comes into an execution: what was asked of it, and what was reported to it.

Each stimulus carries its time in milliseconds. `task` is the index of a task in the order of
definition. Stimuli of an attempt that is not the task's current one are ignored and counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from harmonia_actors.core.log_lines import LogLine, cost_of
from harmonia_actors.core.safe_text import CODE_CHARS_MAX, safe_details, safe_text

__all__ = [
    "MIDWAY",
    "WORKER_LOST",
    "AttemptFailed",
    "AttemptLost",
    "AttemptReturned",
    "AttemptStarted",
    "AttemptStimulus",
    "AttemptStopped",
    "AttemptSucceeded",
    "AttemptWaiting",
    "AutomaticCheckpointTaken",
    "CancelRequested",
    "CheckpointTaken",
    "Failure",
    "LinesReported",
    "NodeChosen",
    "Output",
    "OutputComposed",
    "OutputRefused",
    "ProgressReported",
    "StartRequested",
    "Stimulus",
    "TimerFired",
]

#: The code of an attempt whose process died. The engine's own: no component may use it.
WORKER_LOST: Final = "WORKER_LOST"


@dataclass(frozen=True, slots=True)
class Output:
    """What a task or an execution returned: JSON kept inline, or the URL of a blob that holds it.

    Exactly one of `inline` and `url` is set. `size` is that of the JSON in bytes; `preview` is a
    short text of what a blob holds.
    """

    size: int
    inline: bytes | None = None
    url: str | None = None
    preview: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt or an execution failed.

    `origin` is "component" (the action raised), "engine" (anything else). `code` is
    UPPER_SNAKE_CASE for tasks; `details` is a JSON object. Whatever it is made of, it can be
    stored: text is cut and made UTF-8, details that are no JSON or too large are left out.
    """

    message: str
    code: str
    details: dict[str, Any]
    origin: str = "component"
    retriable: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", safe_text(self.message))
        object.__setattr__(self, "code", safe_text(self.code, CODE_CHARS_MAX))
        object.__setattr__(self, "details", safe_details(self.details))

    def shown_details(self) -> dict[str, Any]:
        """The code and the details in one object; no detail can stand in for the code."""
        return {"code": self.code} | self.details | {"code": self.code}


@dataclass(frozen=True, slots=True)
class StartRequested:
    """The execution is to begin."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """A worker has begun to run the attempt."""

    task: int
    attempt: int
    at_ms: int
    worker: str = ""


@dataclass(frozen=True, slots=True)
class AttemptSucceeded:
    """The action returned; its output is durable wherever it is not inline."""

    task: int
    attempt: int
    at_ms: int
    output: Output


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The action raised, or its input could not be made."""

    task: int
    attempt: int
    at_ms: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class AttemptLost:
    """The process that ran the attempt, or was to run it, has died."""

    task: int
    attempt: int
    at_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class AttemptStopped:
    """The attempt has ended because it was told to, or will never start."""

    task: int
    attempt: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class AttemptReturned:
    """Whoever had the attempt has not started it and never will: it is to be handed out anew."""

    task: int
    attempt: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class AttemptWaiting:
    """The attempt cannot start yet: the resources it needs are not free. `reason` says which."""

    task: int
    attempt: int
    at_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class ProgressReported:
    """The running action says how far it is, from 0.0 to 1.0."""

    task: int
    attempt: int
    at_ms: int
    fraction: float
    message: str


@dataclass(frozen=True, slots=True)
class LinesReported:
    """Lines that the attempt has written, numbered from 0: `first` is the number of the first here.

    Some may have been told before, and some before them may never be told. With `last`, there are
    no others to come: it goes with the outcome.
    """

    task: int
    attempt: int
    at_ms: int
    first: int
    lines: tuple[LogLine, ...]
    last: bool = False

    @property
    def end(self) -> int:
        """The number of the line that comes next."""
        return self.first + len(self.lines)

    @property
    def cost(self) -> int:
        """Bytes that it counts for."""
        return cost_of(self.lines)

    def without(self, count: int) -> LinesReported:
        """The same, but for the first so many lines."""
        return replace(self, first=self.first + count, lines=self.lines[count:])


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants the execution to stop."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class CheckpointTaken:
    """A checkpoint of this execution has been written."""

    at_ms: int
    checkpoint_id: str
    name: str


@dataclass(frozen=True, slots=True)
class AutomaticCheckpointTaken:
    """The checkpoint asked for by TakeCheckpoint with this seq is there."""

    at_ms: int
    seq: int
    checkpoint_id: str


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The time asked for by ArmTimer has come."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class NodeChosen:
    """A node for the execution's files is there; what uses them runs on it from now on."""

    at_ms: int
    place: str
    #: The one that was chosen before and is gone, with nothing of use on it; "" if none was.
    instead_of: str = ""


@dataclass(frozen=True, slots=True)
class OutputComposed:
    """The execution's output, asked for by ComposeOutput, is there."""

    at_ms: int
    output: Output


@dataclass(frozen=True, slots=True)
class OutputRefused:
    """The execution's output cannot be made."""

    at_ms: int
    failure: Failure


#: Those that task actors report: about one attempt.
AttemptStimulus = (
    AttemptStarted
    | AttemptSucceeded
    | AttemptFailed
    | AttemptLost
    | AttemptStopped
    | AttemptReturned
    | AttemptWaiting
    | ProgressReported
    | LinesReported
)

#: Those of them after which the attempt goes on.
MIDWAY: Final = (AttemptStarted, ProgressReported, LinesReported)

Stimulus = (
    AttemptStimulus
    | StartRequested
    | CancelRequested
    | CheckpointTaken
    | AutomaticCheckpointTaken
    | NodeChosen
    | TimerFired
    | OutputComposed
    | OutputRefused
)
