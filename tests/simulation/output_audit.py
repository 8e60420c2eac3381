"""What tasks and executions must give, worked out anew from the plans of the tasks.

This module must not know how the engine composes an output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core.execution import Execution
from harmonia_actors.core.statuses import ExecutionStatus
from harmonia_actors.core.workflow import Workflow
from tests.simulation.task_actors import value_of

__all__ = ["check_output", "expected_values"]

#: How much of a large output is shown.
_PREVIEW_CHARS = 200


def expected_values(workflow: Workflow) -> dict[int, int]:
    """What each task gives as its value, if it completes."""
    values: dict[int, int] = {}
    for index in workflow.graph.order():
        given = [values[parent] for parent in workflow.graph.parents[index]]
        values[index] = value_of(dict(workflow.tasks[index].input["plan"]), given)
    return values


def check_output(
    execution: Execution, body: bytes | None, given: Mapping[int, bytes], inline_bytes_max: int
) -> Iterator[str]:
    """Yields what is wrong with the output of one that has ended.

    `body` is what is stored of it, `given` what its tasks gave; what is larger than
    `inline_bytes_max` is referred to.
    """
    if execution.head.status is not ExecutionStatus.COMPLETED:
        if execution.head.output is not None:
            yield "it has an output, and has not completed"
        return
    found = None if body is None else jsontext.decode(body)
    workflow, name = execution.workflow, execution.head.execution_id
    if workflow.output:
        # As all are that `scenario` draws.
        expected = {"first": jsontext.decode(given[0])["value"]}
    else:
        expected = _of_last(workflow, name, given, inline_bytes_max)
    if found != expected:
        yield f"its output is {found}, not {expected}"


def _of_last(
    workflow: Workflow, execution_id: str, given: Mapping[int, bytes], inline_bytes_max: int
) -> dict[str, Any]:
    """Made of what those tasks gave that no other one waits for."""
    awaited = {parent for parents in workflow.graph.parents for parent in parents}
    last = {task.name: given[task.index] for task in workflow.tasks if task.index not in awaited}
    shown: dict[str, Any] = {}
    for task, body in last.items():
        if len(body) > inline_bytes_max:
            place = f"/executions/{execution_id}/tasks/{task}/output"
            preview = body.decode()[:_PREVIEW_CHARS]
            shown[task] = {"$ref": place, "size": len(body), "preview": preview}
        else:
            shown[task] = jsontext.decode(body)
    (first, *others) = shown.values()
    # All of them give the same keys, so that several cannot be merged.
    is_whole = not others and "$ref" not in first
    return dict(first) if is_whole else shown
