"""An order: all that a task actor needs to run one attempt, and what it reports back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harmonia_actors.core.resources import ResourceRequest
from harmonia_actors.core.stimuli import AttemptStimulus

__all__ = ["AttemptId", "AttemptOrder", "Found", "QueueKey", "Report"]

#: (execution id, task index, attempt): names an attempt everywhere outside its execution.
AttemptId = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class QueueKey:
    """Attempts with the same key are served by the same task actors.

    `resources` decides the class of actor, `node_id` (if any) where it must be; `shared` is True
    for async actions, which share one actor.
    """

    resources: ResourceRequest = field(default_factory=ResourceRequest)
    node_id: str = ""
    shared: bool = False

    def same_class(self, other: QueueKey) -> bool:
        """Whether actors of one kind serve both, on whatever node they are."""
        mine, theirs = self.resources.quantised(), other.resources.quantised()
        return self.shared == other.shared and mine == theirs


@dataclass(frozen=True, slots=True)
class AttemptOrder:
    """One attempt to be run.

    `input` is the resolved input as JSON. If some of the values are blobs, it is the input as
    written and `values` has what its references need, by task name ("" for the execution's
    input): JSON as bytes, or the URL of a blob as text; the task actor then resolves it.
    """

    execution_id: str
    workflow_id: str
    epoch: int
    task: int
    task_name: str
    attempt: int
    component: str
    action: str
    input: bytes
    key: QueueKey
    values: Mapping[str, bytes | str] | None = None
    #: Names of all tasks, needed to read the references in `input` if `values` is given.
    tasks: tuple[str, ...] = ()
    max_retries: int = 0
    #: Executions from whose checkpoints this one descends, nearest first: its workspace begins with
    #: the files of the first that has any.
    files_from: tuple[str, ...] = ()
    #: The rest of a stretch, in order: each may run once the outcome of the one before it is
    #: durable. What their inputs refer to and is not in their `values` comes of those before them.
    then: tuple[AttemptOrder, ...] = ()
    #: Tells it from others of the same attempt, under its epoch.
    number: int = 0

    @property
    def id(self) -> AttemptId:
        """The attempt's name."""
        return (self.execution_id, self.task, self.attempt)


@dataclass(frozen=True, slots=True)
class Report:
    """What a task actor tells about an attempt."""

    execution_id: str
    stimulus: AttemptStimulus
    #: The entry in the execution's inbox that says the same, if there is one.
    entry_id: str = ""
    #: Epoch and number of the order that comes back: its attempt may have been handed out anew.
    returned_from: tuple[int, int] = (0, 0)

    @property
    def attempt_id(self) -> AttemptId:
        """The attempt that it is about."""
        return (self.execution_id, self.stimulus.task, self.stimulus.attempt)


#: What a task actor has of executions that were asked for, by execution: attempts that run; and,
#: of these the lines that were told last, of those that have ended lately starts and outcomes. What
#: it has nothing of is not in it.
Found = dict[str, tuple[list[AttemptId], list[Report]]]
