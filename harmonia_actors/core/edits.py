"""Edits of what a restored execution begins with: its input, and inputs of tasks that are to run.

What had completed keeps its output, so nothing may be edited that an output was made of: neither
the input of a completed task, nor a value of the execution's input that such a task refers to.
This module must not know checkpoints or stores.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import Problem
from harmonia_actors.core.references import compile_template
from harmonia_actors.core.workflow import Workflow

__all__ = ["as_sent", "changed_inputs", "edited_definition", "users_of_inputs"]


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


def users_of_inputs(
    workflow: Workflow, tasks: Iterable[int], names: Collection[str]
) -> dict[str, list[str]]:
    """Which of the tasks refer to which of the inputs, by input; the whole input is all of them."""
    users: dict[str, list[str]] = {}
    for index in tasks:
        task = workflow.tasks[index]
        links = [
            link
            for reference in compile_template(task.input, workflow.by_name).references
            for link in reference.chain()
            if link.task is None
        ]
        used = {str(link.path[0]) for link in links if link.path}
        if any(not link.path for link in links):
            used.update(names)
        for name in sorted(used.intersection(names)):
            users.setdefault(name, []).append(task.name)
    return users


def as_sent(problem: Problem, edited: Iterable[str]) -> Problem:
    """A problem of an edited definition, at the field of the request that it comes from."""
    for name in sorted(edited, key=len, reverse=True):
        rest = problem.field.removeprefix(f"tasks.{name}.input")
        if rest != problem.field and rest[:1] in ("", ".", "["):
            return Problem(f"task_inputs.{name}{rest}", problem.message)
    return problem
