"""Edits of what a restored execution begins with: its input, and inputs of tasks that are to run.

What had completed keeps its output, so nothing may be edited that an output was made of: neither
the input of a completed task, nor a value of the execution's input that such a task refers to.
This module must not know checkpoints or stores.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import Problem
from harmonia_actors.core.references import compile_template
from harmonia_actors.core.workflow import Workflow

__all__ = ["InputUsers", "as_sent", "changed_inputs", "edited_definition", "users_of_inputs"]


def edited_definition(
    definition: Mapping[str, Any], task_inputs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """A copy of the definition with other inputs for some of its tasks."""
    tasks = {
        name: {**task, "input": task_inputs[name]} if name in task_inputs else task
        for name, task in definition["tasks"].items()
    }
    return {**definition, "tasks": tasks}


def changed_inputs(former: Mapping[str, Any], values: Mapping[str, Any]) -> set[str]:
    """Names of inputs that are not what they were; as JSON, where 1 is neither 1.0 nor true."""
    return {
        name
        for name in former.keys() | values.keys()
        if (name in former) != (name in values)
        or jsontext.encode_canonical(former[name]) != jsontext.encode_canonical(values[name])
    }


@dataclass(frozen=True, slots=True)
class InputUsers:
    """Which tasks refer to which inputs: the first of both, and how many there are."""

    #: By input, the first of the tasks that refer to it.
    named: Mapping[str, Sequence[str]] = field(default_factory=dict)
    #: All tasks that refer to the first input.
    tasks_of_first: int = 0
    #: All inputs that any task refers to.
    total: int = 0


def users_of_inputs(
    workflow: Workflow, tasks: Iterable[int], names: Collection[str], *, named_max: int
) -> InputUsers:
    """Which of the tasks refer to which of the inputs; the whole input is all of them.

    Pairs of them can be many more than either, so at most `named_max` of each are given.
    """
    used_by = {workflow.tasks[index].name: _inputs_used(workflow, index) for index in tasks}
    wanted = set(names)
    if not any(used is None for used in used_by.values()):
        wanted &= set().union(*(used or () for used in used_by.values()))
    if not wanted:
        return InputUsers()
    named = {}
    counts = []
    for name in heapq.nsmallest(named_max, wanted):
        users = [task for task, used in used_by.items() if used is None or name in used]
        named[name] = users[:named_max]
        counts.append(len(users))
    return InputUsers(named, counts[0], len(wanted))


def _inputs_used(workflow: Workflow, index: int) -> set[str] | None:
    """Inputs that a task refers to; None if it refers to all of them as one."""
    used = set()
    for reference in compile_template(workflow.tasks[index].input, workflow.by_name).references:
        for link in reference.chain():
            if link.task is None and not link.path:
                return None
            if link.task is None:
                used.add(str(link.path[0]))
    return used


def as_sent(problem: Problem, edited: Iterable[str]) -> Problem:
    """A problem of an edited definition, at the field of the request that it comes from."""
    for name in sorted(edited, key=len, reverse=True):
        rest = problem.field.removeprefix(f"tasks.{name}.input")
        if rest != problem.field and rest[:1] in ("", ".", "["):
            return Problem(f"task_inputs.{name}{rest}", problem.message)
    return problem
