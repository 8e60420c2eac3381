"""Makes orders for one execution: finds the outputs a task refers to and resolves its input.

Outputs that are small are resolved here, from memory or the store. If one of them is a blob, the
order carries where it is and the task actor resolves, so that large values never pass through the
process that drives the execution.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from harmonia_actors.core import jsontext
from harmonia_actors.core.commands import StartAttempt
from harmonia_actors.core.definition import output_template
from harmonia_actors.core.events import output_descriptor
from harmonia_actors.core.execution import Execution
from harmonia_actors.core.outputs import merge_sinks
from harmonia_actors.core.records import OutputReference
from harmonia_actors.core.references import MissingValue, ResolvedTooLarge, resolve
from harmonia_actors.core.stimuli import Failure, Output
from harmonia_actors.runtime.inputs import (
    InputPlan,
    PlannedWorkflow,
    ResolveFailed,
    input_values,
    resolve_input,
)
from harmonia_actors.runtime.orders import AttemptOrder, QueueKey
from harmonia_actors.runtime.output_cache import OutputCache
from harmonia_actors.runtime.ports import Nodes
from persistence.errors import Missing
from persistence.store import Store

__all__ = ["BlobReader", "Ordering", "OrderingLimits", "store_output"]

_PREVIEW_CHARS = 200


class BlobReader(Protocol):
    """The blob store; its methods block, so they are called from threads."""

    def put(self, name: str, body: bytes) -> str:
        """Keep a blob; returns its URL."""
        ...

    def get(self, url: str) -> bytes:
        """A blob's bytes."""
        ...

    def discard(self, name: str) -> None:
        """Remove a blob, if it is there."""
        ...


@dataclass(frozen=True, slots=True)
class OrderingLimits:
    """Sizes in bytes of JSON, and its depth."""

    resolved_input_bytes_max: int = 16_000_000
    inline_output_bytes_max: int = 65_536
    output_bytes_max: int = 256_000_000
    #: Levels of objects and arrays within each other.
    output_depth_max: int = 200
    #: Outputs of sinks that are put together into the execution's own; others are described.
    merged_output_bytes_max: int = 4_000_000


Failed = tuple[StartAttempt, Failure]
Prepared = tuple[list[AttemptOrder], list[StartAttempt], list[Failed]]
_Missing = object()


class Ordering:
    """The orders of one execution."""

    def __init__(
        self,
        *,
        execution: Execution,
        planned: PlannedWorkflow,
        execution_input: bytes,
        cache: OutputCache,
        store: Store,
        blobs: BlobReader,
        nodes: Nodes,
        limits: OrderingLimits,
    ) -> None:
        self._execution = execution
        self._planned = planned
        self._input_body = execution_input
        self._input = jsontext.decode(execution_input)
        self._cache = cache
        self._store = store
        self._blobs = blobs
        self._nodes = nodes
        self._limits = limits
        self._numbers = itertools.count(1)

    def remember(self, outputs: Mapping[str, bytes]) -> None:
        """Keep new outputs in memory if any task refers to them."""
        for key, body in outputs.items():
            task, _, _ = key.partition(":")
            if task.isdigit() and int(task) in self._planned.referenced:
                entry = (self._execution.head.execution_id, key)
                self._cache.put(entry, jsontext.decode(body), len(body))

    def prepare(
        self,
        starts: Sequence[StartAttempt],
        epoch: int,
        fetched: Mapping[tuple[str, str], Any] | None,
    ) -> Prepared:
        """Orders that are ready, commands whose values must be fetched, and those that failed.

        `fetched` is what `fetch` gave for these starts, or None if it was not asked yet.
        """
        ready: list[AttemptOrder] = []
        missing: list[StartAttempt] = []
        failed: list[Failed] = []
        for command in starts:
            try:
                order = self._order(command, epoch, fetched)
            except ResolveFailed as error:
                failed.append((command, error.failure))
                continue
            if order is None:
                missing.append(command)
            else:
                ready.append(order)
        return ready, missing, failed

    async def fetch(self, starts: Sequence[StartAttempt]) -> dict[tuple[str, str], Any]:
        """Read from the store what these starts need and memory does not hold."""
        wanted: dict[tuple[str, str], None] = {}
        for command in starts:
            for name in self._planned.plan(command.task).needs:
                reference = self._reference(name)
                if reference is not None and reference.url is None:
                    wanted[(reference.execution_id, reference.key)] = None
        return await self._read(list(wanted))

    async def compose_output(self) -> Output | Failure:
        """The execution's output, from its `output` mapping or its sinks."""
        try:
            value = await self._output_value()
        except ResolveFailed as error:
            return error.failure
        # Beside the loop: it may be large, and other executions live in this process, too.
        body = await asyncio.to_thread(jsontext.encode, value)
        name = f"{self._execution.head.execution_id}/execution"
        return await asyncio.to_thread(store_output, body, name, self._blobs, self._limits)

    async def _output_value(self) -> Any:
        template = output_template(self._planned.workflow)
        if template is None:
            return await self._merged_sinks()
        names = sorted(template.tasks())
        size = sum(r.size for name in names if (r := self._reference(name)) is not None)
        if size > self._limits.output_bytes_max:
            raise _output_refused(
                f"the outputs that it refers to have {size} bytes together; at most "
                f"{self._limits.output_bytes_max} can be put together: refer to fewer tasks"
            )
        outputs = await self._outputs_of(names)
        values = input_values(self._input, outputs)

        def lookup(task: str | None) -> Any:
            if task not in values:
                raise MissingValue(f"task '{task}' has no output")
            return values[task]

        try:
            limit = self._limits.output_bytes_max
            return await asyncio.to_thread(resolve, template, lookup, limit_bytes=limit)
        except (MissingValue, ResolvedTooLarge, RecursionError) as error:
            raise _output_refused(str(error)) from error

    # -------------------------------------------------------------------------------------------

    def _order(
        self, command: StartAttempt, epoch: int, fetched: Mapping[tuple[str, str], Any] | None
    ) -> AttemptOrder | None:
        plan = self._planned.plan(command.task)
        body = plan.constant
        values: dict[str, bytes | str] | None = None
        if body is None:
            outputs, has_blob = self._gather(plan, fetched)
            if outputs is None:
                return None
            if has_blob:
                body = jsontext.encode(plan.written)
                values = self._portable(outputs)
            else:
                limit = self._limits.resolved_input_bytes_max
                bound = input_values(self._input, outputs)
                body = jsontext.encode(
                    resolve_input(plan.written, plan.template, plan.argv, bound, limit)
                )
        order = self._with(command.task, command.attempt, epoch, plan, body, values)
        return replace(order, then=self._rest(order, command, fetched)) if command.then else order

    def _rest(
        self,
        first: AttemptOrder,
        command: StartAttempt,
        fetched: Mapping[tuple[str, str], Any] | None,
    ) -> tuple[AttemptOrder, ...]:
        """The rest of a stretch, as far as it can be handed over now."""
        found: list[AttemptOrder] = []
        for task, attempt in command.then:
            try:
                order = self._follower(task, attempt, first.epoch, fetched)
            except ResolveFailed:
                # When its turn comes, it fails by itself.
                break
            if order is None or order.key != first.key:
                break
            found.append(order)
        return tuple(found)

    def _follower(
        self, task: int, attempt: int, epoch: int, fetched: Mapping[tuple[str, str], Any] | None
    ) -> AttemptOrder | None:
        """An order whose input is made when its turn comes; None if memory has not all for it."""
        plan = self._planned.plan(task)
        if plan.constant is not None:
            return self._with(task, attempt, epoch, plan, plan.constant, None)
        outputs, _ = self._gather(plan, fetched)
        if outputs is None:
            return None
        values = self._portable(outputs, with_input=plan.uses_input)
        return self._with(task, attempt, epoch, plan, jsontext.encode(plan.written), values)

    def _with(
        self,
        index: int,
        attempt: int,
        epoch: int,
        plan: InputPlan,
        body: bytes,
        values: dict[str, bytes | str] | None,
    ) -> AttemptOrder:
        task = self._planned.workflow.tasks[index]
        head = self._execution.head
        action = self._planned.registry.action(task.component, task.action)
        return AttemptOrder(
            execution_id=head.execution_id,
            workflow_id=head.workflow_id,
            epoch=epoch,
            task=task.index,
            task_name=task.name,
            attempt=attempt,
            component=task.component,
            action=task.action,
            input=body,
            key=QueueKey(
                task.resources,
                self._nodes.now(head.node) if action.uses_files else "",
                action.is_async,
            ),
            values=values,
            tasks=plan.needs,
            max_retries=self._execution.retry_policy(task.index).max_retries,
            files_from=head.files_from,
            number=next(self._numbers),
        )

    def _reference(self, name: str) -> OutputReference | None:
        return self._execution.rows[self._planned.workflow.by_name[name].index].output

    def _gather(
        self, plan: InputPlan, fetched: Mapping[tuple[str, str], Any] | None
    ) -> tuple[dict[str, Any] | None, bool]:
        """Outputs by task name (blobs as their references); None if one must be fetched first."""
        outputs: dict[str, Any] = {}
        has_blob = False
        for name in plan.needs:
            reference = self._reference(name)
            if reference is None:
                continue
            if reference.url is not None:
                outputs[name] = reference
                has_blob = True
                continue
            key = (reference.execution_id, reference.key)
            found = self._cache.get(key)
            if found is not None:
                outputs[name] = found[0]
            elif fetched is None:
                return None, False
            elif key in fetched:
                outputs[name] = fetched[key]
            else:
                raise _output_missing(name)
        return outputs, has_blob

    def _portable(
        self, outputs: Mapping[str, Any], *, with_input: bool = True
    ) -> dict[str, bytes | str]:
        values: dict[str, bytes | str] = {"": self._input_body} if with_input else {}
        for name, value in outputs.items():
            if isinstance(value, OutputReference):
                values[name] = value.url or ""
            else:
                values[name] = jsontext.encode(value)
        return values

    async def _read(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Any]:
        bodies = await self._store.read_outputs(keys)
        found = {}
        for key, body in zip(keys, bodies, strict=True):
            if body is not None:
                found[key] = jsontext.decode(body)
                self._cache.put(key, found[key], len(body))
        return found

    async def _outputs_of(self, names: Sequence[str]) -> dict[str, Any]:
        """Outputs by task name, read from wherever they are."""
        references = {name: self._reference(name) for name in names}
        keys = [(r.execution_id, r.key) for r in references.values() if r and r.url is None]
        inline = await self._read(keys)
        outputs = {}
        for name, reference in references.items():
            if reference is None:
                continue
            if reference.url is not None:
                outputs[name] = await self._blob_of(name, reference.url)
            elif (key := (reference.execution_id, reference.key)) in inline:
                outputs[name] = inline[key]
            else:
                raise _output_missing(name)
        return outputs

    async def _blob_of(self, name: str, url: str) -> Any:
        try:
            return await asyncio.to_thread(lambda: jsontext.decode(self._blobs.get(url)))
        except (Missing, ValueError) as error:
            # A ValueError: the blob is of another store than the one configured now.
            raise _output_missing(name) from error

    async def _merged_sinks(self) -> dict[str, Any]:
        """Large outputs of sinks are not copied: a descriptor stands for each."""
        workflow = self._planned.workflow
        sinks = [workflow.tasks[index].name for index in workflow.graph.sinks()]
        references = {name: self._reference(name) for name in sinks}
        small, room = [], self._limits.merged_output_bytes_max
        for name, reference in references.items():
            if reference is not None and reference.url is None and reference.size <= room:
                small.append(name)
                room -= reference.size
        outputs = await self._outputs_of(small)
        shown = {}
        execution_id = self._execution.head.execution_id
        for name, reference in references.items():
            if name in outputs:
                shown[name] = outputs[name]
            elif reference is not None:
                shown[name] = output_descriptor(
                    execution_id, name, reference.size, reference.preview
                )
        return merge_sinks(shown) if len(small) == len(sinks) else shown


def _output_refused(why: str) -> ResolveFailed:
    message = f"the workflow's output cannot be made: {why}"
    return ResolveFailed(Failure(message, "MISSING_VALUE", {}, "engine", retriable=False))


def _output_missing(name: str) -> ResolveFailed:
    message = f"the output of task '{name}' is not kept any more"
    return ResolveFailed(
        Failure(message, "OUTPUT_MISSING", {"task": name}, "engine", retriable=False)
    )


def store_output(body: bytes, name: str, blobs: BlobReader, limits: OrderingLimits) -> Output:
    """An output's JSON, kept inline or, if it is large, in a blob. Blocks."""
    if len(body) <= limits.inline_output_bytes_max:
        return Output(len(body), body)
    preview = body[: _PREVIEW_CHARS * 4].decode("utf-8", errors="ignore")[:_PREVIEW_CHARS]
    return Output(len(body), None, blobs.put(f"{name}.json", body), preview)
