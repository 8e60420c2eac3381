"""Restoring with edits: what of a checkpoint's definition and input is another than it was."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core.definition import nearest
from harmonia_actors.core.edits import (
    InputUsers,
    as_sent,
    changed_inputs,
    edited_definition,
    users_of_inputs,
)
from harmonia_actors.core.errors import Conflict, InvalidRequest, Problem, ValidationFailed
from harmonia_actors.core.requests import Edits, JsonObject
from harmonia_actors.core.workflow import Workflow
from harmonia_actors.runtime.service.executions import ExecutionService
from harmonia_actors.runtime.service.parts import answered, apart
from harmonia_actors.runtime.service.workflows import KnownWorkflow

__all__ = ["EditService"]

#: Tasks and inputs that one answer names.
_NAMED_MAX = 50
#: Looking for the name that was meant is slow.
_GUESSES_MAX = 10
_WAY_OUT = "restore from an earlier checkpoint, in which it had not completed"


class EditService(ExecutionService):
    """Applies edits to what an execution begins with."""

    async def edited(
        self,
        known: KnownWorkflow,
        former: JsonObject,
        completed: Collection[int],
        edits: Edits,
    ) -> tuple[KnownWorkflow, JsonObject]:
        """The definition and the input with the edits, checked as new ones are.

        `completed` are the tasks whose outputs are reused. Raises Conflict for what these were made
        of, ValidationFailed for what is not valid.
        """
        _refuse_unknown(known.workflow, edits.task_inputs)
        _refuse_completed(known.workflow, completed, edits.task_inputs)
        if edits.task_inputs:
            known = await self._with_task_inputs(known, edits.task_inputs)
        schema = known.definition.get("input_schema")
        values = await self.schemas.complete_input({**former, **edits.input}, schema, known.needed)
        self.check_input_size(jsontext.encode(values))
        changed = await apart([former, values], lambda: changed_inputs(former, values))
        if changed:
            workflow = known.workflow
            users = await asyncio.to_thread(
                users_of_inputs, workflow, completed, changed, named_max=_NAMED_MAX
            )
            _refuse_used(users)
        return known, values

    async def _with_task_inputs(
        self, known: KnownWorkflow, task_inputs: Mapping[str, Mapping[str, Any]]
    ) -> KnownWorkflow:
        definition = edited_definition(known.definition, task_inputs)
        try:
            # Components of other tasks may not be installed any more: theirs to find out.
            kept = await self.checked(definition, actions_of=task_inputs)
        except ValidationFailed as error:
            raise _told_as_sent(error, task_inputs) from None
        size, most = len(jsontext.encode(kept)), self.settings.body_bytes_max
        if size > most:
            raise InvalidRequest(
                f"with task_inputs, the definition has {size} bytes; at most {most} are taken",
                too_large=True,
            )
        return await self.known(await answered(lambda: self.keep_definition(kept)))


def _refuse_unknown(workflow: Workflow, names: Iterable[str]) -> None:
    unknown = [name for name in names if name not in workflow.by_name]
    if unknown:
        problems: list[Problem] = []
        for name in unknown[: ValidationFailed.SHOWN_MAX]:
            hint = nearest(name, workflow.by_name) if len(problems) < _GUESSES_MAX else ""
            message = f"the workflow has no task '{name}'{hint}"
            problems.append(Problem(f"task_inputs.{name}", message))
        raise ValidationFailed("restore", problems, total=len(unknown))


def _refuse_completed(workflow: Workflow, completed: Collection[int], names: Iterable[str]) -> None:
    refused = [name for name in names if workflow.by_name[name].index in completed]
    if refused:
        raise Conflict(
            f"task_inputs.{refused[0]}: task '{refused[0]}' is completed in the checkpoint, and "
            f"its output is reused{_more(len(refused))}; leave it out, or {_WAY_OUT}",
            {
                "tasks": [{"task": name, "status": "completed"} for name in refused[:_NAMED_MAX]],
                "total": len(refused),
            },
        )


def _refuse_used(users: InputUsers) -> None:
    for name, tasks in users.named.items():
        raise Conflict(
            f"input.{name}: task '{tasks[0]}' refers to it{_more(users.tasks_of_first)}, is "
            "completed in the checkpoint, and its output is reused; leave it out, or " + _WAY_OUT,
            {
                "inputs": {
                    one: [{"task": task, "status": "completed"} for task in using]
                    for one, using in users.named.items()
                },
                "total": users.total,
            },
        )


def _more(count: int) -> str:
    return f" (and {count - 1} more like it)" if count > 1 else ""


def _told_as_sent(error: ValidationFailed, edited: Collection[str]) -> ValidationFailed:
    told = [Problem(one["field"], one["message"]) for one in error.details["errors"]]
    total = error.details["total"]
    return ValidationFailed("restore", [as_sent(one, edited) for one in told], total=total)
