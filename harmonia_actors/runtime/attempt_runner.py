"""Runs one attempt: finds the action, makes its input, calls it, reports what comes of it.

Whatever an action does becomes a stimulus here; only the end of the process gets past this file.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harmonia_actors.components.contract import Action, ActionError, WorkspaceLike
from harmonia_actors.components.registry import Registry
from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.errors import ServiceUnavailable
from harmonia_actors.core.piecewise import TooDeep, encode_in_pieces, is_small
from harmonia_actors.core.references import INPUT, compile_template
from harmonia_actors.core.safe_text import safe_text
from harmonia_actors.runtime.attempt_context import LiveAttempt
from harmonia_actors.runtime.inputs import ResolveFailed, resolve_input
from harmonia_actors.runtime.ordering import BlobReader, OrderingLimits, store_output
from harmonia_actors.runtime.orders import AttemptOrder
from harmonia_actors.runtime.ports import Clock
from harmonia_actors.runtime.service.schema_checks import ActionInput, SchemaChecks
from persistence.errors import StoreError

__all__ = ["AttemptRunner"]

_log = logging.getLogger("harmonia.task")


@dataclass
class AttemptRunner:
    """Runs attempts of a registry's actions; used by one task actor."""

    registry: Registry
    blobs: BlobReader
    clock: Clock
    limits: OrderingLimits
    workspace_of: Callable[[str, Sequence[str]], WorkspaceLike]
    #: Judges inputs by schemas from elsewhere; without it, whoever they come from judges alone.
    schemas: SchemaChecks | None = None

    def prepare(self, order: AttemptOrder) -> tuple[Action, dict[str, Any]]:
        """The action and its checked input. Raises ResolveFailed or ActionError."""
        try:
            action = self.registry.action(order.component, order.action)
        except ValueError as error:
            raise ActionError(str(error), code="UNKNOWN_ACTION", retriable=False) from error
        written = jsontext.decode(order.input)
        if order.values is not None:
            written = self._resolve(order, written, action)
        return action, action.parse(written)

    def run_sync(self, order: AttemptOrder, live: LiveAttempt) -> st.AttemptStimulus:
        """Run a `def` action in this thread."""
        try:
            action, values = self.prepare(order)
            if action.takes_context:
                values["context"] = live
            body = self._encoded(order, action.function(**values))
            return body if isinstance(body, st.AttemptFailed) else self._stored(order, body)
        except BaseException as error:
            return self._failure(order, live, error)

    async def run_async(self, order: AttemptOrder, live: LiveAttempt) -> st.AttemptStimulus:
        """Run an `async def` action on this loop. A cancel of the task counts as stopped.

        What waits for a disk or a network is done beside the loop, and so is what takes long, as
        large outputs do: many attempts share it.
        """
        try:
            if order.values is None:
                action, values = self.prepare(order)
            else:
                action, values = await asyncio.to_thread(self.prepare, order)
            if action.foreign_schema is not None:
                await self._judge(action, action.foreign_schema, values["given"])
            if action.takes_context:
                values["context"] = live
                if action.uses_files and order.files_from:
                    # The action's first use of its workspace would copy them.
                    await asyncio.to_thread(live.open_workspace)
            result = await action.function(**values)
            if is_small(result):
                body = self._encoded(order, result)
            else:
                body = await asyncio.to_thread(self._encoded, order, result)
            if isinstance(body, st.AttemptFailed):
                return body
            if len(body) <= self.limits.inline_output_bytes_max and order.attempt == 1:
                return self._stored(order, body)
            return await asyncio.to_thread(self._stored, order, body)
        except (Exception, SystemExit) as error:
            return self._failure(order, live, error)

    async def _judge(
        self, action: Action, schema: Mapping[str, Any], given: Mapping[str, Any]
    ) -> None:
        """Hold an input with all its values against a schema from elsewhere. Raises ActionError."""
        if self.schemas is None:
            return
        try:
            (found,) = await self.schemas.of_inputs([ActionInput(schema, given)])
        except ServiceUnavailable as error:
            # The machine is too busy to tell; the service that gets the input will.
            _log.warning("an input of action '%s' was not checked: %s", action.name, error)
            return
        if found:
            fields = [{"field": where.lstrip(".") or "*", "message": text} for where, text in found]
            raise action.refusal(fields)

    def _resolve(self, order: AttemptOrder, written: Any, action: Action) -> dict[str, Any]:
        values: dict[str | None, Any] = {}
        for name, value in (order.values or {}).items():
            body = self.blobs.get(value) if isinstance(value, str) else value
            values[INPUT if name == "" else name] = jsontext.decode(body)
        template = compile_template(written, order.tasks)
        limit = self.limits.resolved_input_bytes_max
        return resolve_input(written, template, action.argv_inputs, values, limit)

    def _encoded(self, order: AttemptOrder, result: Any) -> bytes | st.AttemptFailed:
        """The output as JSON, or why it is none that can be kept."""
        try:
            body = encode_in_pieces(result, self.limits.output_depth_max)
        except TooDeep as error:
            failure = _engine_failure(f"the action's output is {error}", "INVALID_OUTPUT")
            return st.AttemptFailed(order.task, order.attempt, self.clock.now_ms(), failure)
        except (TypeError, ValueError, RecursionError) as error:
            failure = _engine_failure(f"the action's output is not JSON: {error}", "INVALID_OUTPUT")
            return st.AttemptFailed(order.task, order.attempt, self.clock.now_ms(), failure)
        if len(body) > self.limits.output_bytes_max:
            failure = _engine_failure(
                f"the action's output has {len(body)} bytes; "
                f"at most {self.limits.output_bytes_max} are kept",
                "OUTPUT_TOO_LARGE",
            )
            return st.AttemptFailed(order.task, order.attempt, self.clock.now_ms(), failure)
        return body

    def _stored(self, order: AttemptOrder, body: bytes) -> st.AttemptSucceeded:
        name = f"{order.execution_id}/{order.task}-{order.attempt}"
        output = store_output(body, name, self.blobs, self.limits)
        self._discard_former(order)
        return st.AttemptSucceeded(order.task, order.attempt, self.clock.now_ms(), output)

    def _discard_former(self, order: AttemptOrder) -> None:
        """Remove what former attempts wrote before they died, and nobody heard of.

        That this one runs was written before it began: no outcome of theirs can count any more.
        """
        for attempt in range(1, order.attempt):
            try:
                self.blobs.discard(f"{order.execution_id}/{order.task}-{attempt}.json")
            except StoreError as error:
                # It goes with the execution, at the latest.
                _log.warning("the blob of a former attempt is not removed now: %s", error)
                return

    def stopped(self, order: AttemptOrder, live: LiveAttempt) -> st.AttemptStimulus:
        """The outcome of an attempt that did stop: whoever takes it in may not know why."""
        now_ms = self.clock.now_ms()
        if live.is_lost:
            return st.AttemptLost(order.task, order.attempt, now_ms, "its process was ended")
        return st.AttemptStopped(order.task, order.attempt, now_ms)

    def _failure(
        self, order: AttemptOrder, live: LiveAttempt, error: BaseException
    ) -> st.AttemptStimulus:
        now_ms = self.clock.now_ms()
        if live.cancelled:
            return self.stopped(order, live)
        if isinstance(error, ResolveFailed):
            return st.AttemptFailed(order.task, order.attempt, now_ms, error.failure)
        if isinstance(error, StoreError):
            # The blob store: nothing is wrong with the task, but its output cannot be had or kept.
            failure = st.Failure(str(error), "BLOB_STORE", {}, "engine")
        elif isinstance(error, ActionError):
            failure = st.Failure(
                error.message,
                _code(error.code),
                error.details,
                "component",
                bool(error.retriable),
            )
        else:
            _log.warning(
                "%s attempt %d raised:\n%s",
                live.idempotency_key,
                order.attempt,
                "".join(traceback.format_exception(error)),
            )
            kind = type(error).__name__
            said = safe_text(error)
            message = f"{kind}: {said}" if said else kind
            failure = st.Failure(message, "EXCEPTION", {"exception": kind}, "component")
        return st.AttemptFailed(order.task, order.attempt, now_ms, failure)


def _engine_failure(message: str, code: str) -> st.Failure:
    return st.Failure(message, code, {}, "component", retriable=False)


def _code(code: str) -> str:
    """The code that an action gave; it cannot pass a failure off as the loss of its process."""
    return "ACTION_FAILED" if code == st.WORKER_LOST else code
