"""The output of an execution: what its `output` mapping says, or the merged outputs of its sinks.

Sinks merge key by key if all of them returned objects that share no key; otherwise each stands
under its task's name, so that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core.definition import output_template
from harmonia_actors.core.workflow import Workflow

__all__ = ["compose_inline", "composing_tasks", "merge_sinks"]

#: Beyond this many tasks the output is made outside the core, where it may become a blob.
_INLINE_TASKS_MAX = 64


def composing_tasks(workflow: Workflow) -> frozenset[int]:
    """Tasks whose outputs the execution's output is made of; empty if there are too many."""
    template = output_template(workflow)
    if template is not None:
        return frozenset()
    sinks = workflow.graph.sinks()
    return frozenset(sinks if len(sinks) <= _INLINE_TASKS_MAX else ())


def compose_inline(
    workflow: Workflow, tasks: Collection[int], outputs: Mapping[int, bytes], limit: int
) -> bytes | None:
    """The output, if every part of it is at hand and small; None if it must be made elsewhere."""
    if not tasks or len(outputs) < len(tasks):
        return None
    if sum(len(body) for body in outputs.values()) > limit:
        return None
    if len(tasks) == 1:
        body = next(iter(outputs.values()))
        if body[:1] == b"{":
            return body
    named = {workflow.tasks[i].name: jsontext.decode(outputs[i]) for i in sorted(tasks)}
    merged = jsontext.encode(merge_sinks(named))
    return merged if len(merged) <= limit else None


def merge_sinks(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of the sinks, by task name, as one object."""
    merged: dict[str, Any] = {}
    for value in outputs.values():
        if not isinstance(value, dict) or not merged.keys().isdisjoint(value):
            return dict(outputs)
        merged.update(value)
    return merged
