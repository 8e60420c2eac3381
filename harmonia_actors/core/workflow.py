"""A workflow as the core runs it: immutable, checked, with its graph and its retry policies.

Made from a definition by `definition.parse_definition`; this module only says what there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harmonia_actors.core.graph import Graph
from harmonia_actors.core.options import CheckpointPolicy
from harmonia_actors.core.resources import ResourceRequest
from harmonia_actors.core.retry import RetryPolicy

__all__ = ["Task", "Workflow"]


@dataclass(frozen=True, slots=True)
class Task:
    """A node of a workflow. `index` is its place in the order of definition, from 0."""

    index: int
    name: str
    component: str
    action: str
    #: As written, with references.
    input: Mapping[str, Any]
    depends_on: tuple[str, ...] = ()
    timeout_ms: int | None = None
    #: None: the execution's policy applies.
    retry: RetryPolicy | None = None
    resources: ResourceRequest = field(default_factory=ResourceRequest)


@dataclass(frozen=True)
class Workflow:
    """An acyclic set of tasks."""

    name: str
    tasks: tuple[Task, ...]
    graph: Graph
    #: As written: a mapping of references, or None for the merged outputs of the sinks.
    output: Any = None
    timeout_ms: int | None = None
    retry: RetryPolicy | None = None
    #: None: the execution's options alone say whether it takes checkpoints by itself.
    checkpoint: CheckpointPolicy | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {task.name: task for task in self.tasks})

    @property
    def by_name(self) -> Mapping[str, Task]:
        """Tasks by their names."""
        found: Mapping[str, Task] = self.__dict__["_by_name"]
        return found
