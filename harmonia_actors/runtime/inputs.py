"""From a task and the outputs it refers to, to the input its action gets.

A workflow's references are parsed once, when its first execution here is loaded. Commands are split
into words before anything is filled in, so that a value is always one word.
This module must not know where outputs are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harmonia_actors.components.argv import check_words, split_command
from harmonia_actors.components.contract import ActionError
from harmonia_actors.components.registry import Registry
from harmonia_actors.core import jsontext
from harmonia_actors.core.definition import output_template
from harmonia_actors.core.references import (
    INPUT,
    MissingValue,
    ResolvedTooLarge,
    Template,
    compile_template,
    resolve,
)
from harmonia_actors.core.resources import ResourceRequest
from harmonia_actors.core.stimuli import Failure
from harmonia_actors.core.workflow import Task, Workflow

__all__ = [
    "InputPlan",
    "PlannedWorkflow",
    "ResolveFailed",
    "input_values",
    "make_plan",
    "resolve_input",
    "words_of",
]


class ResolveFailed(Exception):
    """An input cannot be made; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class InputPlan:
    """A task's input, ready to be resolved."""

    template: Template
    #: The input with its commands split into words.
    written: Mapping[str, Any]
    #: Names of the tasks whose outputs it refers to.
    needs: tuple[str, ...]
    #: Inputs that are commands.
    argv: frozenset[str]
    #: The finished input, if it has no references.
    constant: bytes | None
    #: Whether it refers to the execution's input.
    uses_input: bool


def words_of(task_input: Mapping[str, Any], argv: frozenset[str]) -> dict[str, Any]:
    """The input with each command given as text split into words."""
    return {
        key: split_command(value) if key in argv and isinstance(value, str) else value
        for key, value in task_input.items()
    }


def make_plan(task: Task, names: Mapping[str, Any], registry: Registry) -> InputPlan:
    """Parse a task's input. Raises ResolveFailed if its action is not known here."""
    try:
        argv = registry.action(task.component, task.action).argv_inputs
        written = words_of(task.input, argv)
    except (ValueError, ActionError) as error:
        raise ResolveFailed(Failure(str(error), "UNKNOWN_ACTION", {}, "engine", False)) from error
    template = compile_template(written, names)
    constant = None
    if template.is_constant:
        constant = jsontext.encode(template.node)
    links = [link for reference in template.references for link in reference.chain()]
    uses_input = any(link.task is None for link in links)
    needs = tuple(sorted(template.tasks()))
    return InputPlan(template, written, needs, argv, constant, uses_input)


@dataclass
class PlannedWorkflow:
    """A workflow with the plans of its tasks' inputs, shared by all its executions here."""

    workflow: Workflow
    registry: Registry
    _plans: dict[int, InputPlan] = field(default_factory=dict)
    _referenced: frozenset[int] | None = None
    _joined: frozenset[int] | None = None

    def plan(self, task: int) -> InputPlan:
        """The plan of one task; made when it is first needed."""
        found = self._plans.get(task)
        if found is None:
            definition = self.workflow.tasks[task]
            found = make_plan(definition, self.workflow.by_name, self.registry)
            self._plans[task] = found
        return found

    @property
    def referenced(self) -> frozenset[int]:
        """Tasks whose outputs anything refers to: only those are worth keeping in memory."""
        if self._referenced is None:
            names: set[str] = set()
            for task in self.workflow.tasks:
                if self.workflow.graph.parents[task.index]:
                    names |= compile_template(task.input, self.workflow.by_name).tasks()
            output = output_template(self.workflow)
            if output is not None:
                names |= output.tasks()
            self._referenced = frozenset(self.workflow.by_name[name].index for name in names)
        return self._referenced

    @property
    def joined(self) -> frozenset[int]:
        """Tasks that a worker which has run the one before can run next, in the same call.

        Both are plain actions that need the same: async ones run side by side with others, and
        whoever waits for them is not what they wait for.
        """
        if self._joined is None:
            graph = self.workflow.graph
            self._joined = frozenset(
                task.index
                for task in self.workflow.tasks
                if graph.parents[task.index]
                and (worker := self._worker(task)) is not None
                and all(
                    worker == self._worker(self.workflow.tasks[parent])
                    for parent in graph.parents[task.index]
                    if len(graph.children[parent]) == 1
                )
            )
        return self._joined

    def _worker(self, task: Task) -> tuple[ResourceRequest, bool] | None:
        """What its worker must be; None if no other task can be joined to it."""
        try:
            action = self.registry.action(task.component, task.action)
        except ValueError:
            return None
        return None if action.is_async else (task.resources, action.uses_files)


def resolve_input(
    written: Mapping[str, Any],
    template: Template,
    argv: frozenset[str],
    values: Mapping[str | None, Any],
    limit_bytes: int,
) -> dict[str, Any]:
    """The finished input. `values` has outputs by task name and the execution's input at INPUT.

    `written` is what `template` was compiled from.

    Raises ResolveFailed.
    """

    def lookup(task: str | None) -> Any:
        if task not in values:
            raise MissingValue(f"task '{task}' has no output")
        return values[task]

    try:
        resolved: dict[str, Any] = resolve(template, lookup, limit_bytes=limit_bytes)
        for key in argv:
            if isinstance(resolved.get(key), list):
                words = [
                    word if isinstance(word, str) else jsontext.encode_text(word)
                    for word in resolved[key]
                ]
                resolved[key] = check_words(_words(written.get(key)), words)
    except MissingValue as error:
        raise ResolveFailed(
            Failure(str(error), "MISSING_VALUE", {"type": "validation_error"}, "engine", False)
        ) from error
    except (ResolvedTooLarge, RecursionError) as error:
        raise ResolveFailed(
            Failure(str(error), "INPUT_TOO_LARGE", {"type": "validation_error"}, "engine", False)
        ) from error
    except ActionError as error:
        raise ResolveFailed(
            Failure(error.message, error.code, error.details, "engine", False)
        ) from error
    return resolved


def _words(written: Any) -> list[str]:
    """The words as written; a word that is not text cannot hold a reference."""
    if not isinstance(written, list):
        return []
    return [word if isinstance(word, str) else jsontext.encode_text(word) for word in written]


def input_values(execution_input: Any, outputs: Mapping[str, Any]) -> dict[str | None, Any]:
    """Values for `resolve_input` from an execution's input and the outputs of tasks."""
    values: dict[str | None, Any] = {INPUT: execution_input}
    values.update(outputs)
    return values
