"""Actions of a service: what is sent for an attempt, and what becomes of what comes back.

Whatever a service does, an attempt has an outcome: an output, or an ActionError with a code. What
may be over the next time (it is away, it is busy, it broke off) is retriable; what will be the same
again (it refuses, it answers nonsense) is not.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import quote

from pydantic import BaseModel as _Model

from harmonia_actors.components.contract import Action, ActionError, TaskContext
from harmonia_actors.components.remote.exchange import (
    Answer,
    AnswerTooLarge,
    BrokenOff,
    Silent,
    Unreachable,
    exchange,
    read,
)
from harmonia_actors.components.remote.service import RemoteService

__all__ = ["LOG_LINES_MAX", "make_action"]

#: Lines that one attempt may write to the service's log, and characters of each.
LOG_LINES_MAX = 1_000
_LOG_CHARS_MAX = 2_000
#: What an answer or a line may hold besides the output itself.
_ENVELOPE_BYTES = 65_536
_ERROR_BYTES_MAX = 262_144
_SHOWN_CHARS = 200
_OK = 200
#: Refusals that another try may not meet: it took too long, it came too early, there was too much.
_REFUSED_FOR_NOW = (408, 425, 429)
_STREAM = "application/x-ndjson"
_WHOLE = "application/json"


@dataclass(frozen=True)
class RemoteAction(Action):
    """An action of a service, whose input is judged by its `foreign_schema`."""

    def parse(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The input as it is, for the service."""
        return {"given": dict(raw)}

    def problems(self, *_: object) -> list[dict[str, str]]:
        """None that could be told here, at bounded cost."""
        return []


def make_action(
    service: RemoteService, component: str, name: str, description: str, schema: Mapping[str, Any]
) -> RemoteAction:
    """The action `component.name` of a service."""
    call = _Call(service, f"{service.url}/{component}/{name}", f"{component}.{name}")
    return RemoteAction(
        name=name,
        function=call.run,
        description=description,
        is_async=True,
        uses_files=False,
        takes_context=True,
        model=_Model,
        foreign_schema=schema,
    )


@dataclass(frozen=True)
class _Call:
    """How an action of a service is called."""

    service: RemoteService
    url: str
    action: str

    async def run(self, given: Mapping[str, Any], *, context: TaskContext) -> Any:
        """Carry out one attempt: the function of the action. Raises ActionError."""
        key = context.idempotency_key
        attempt = {
            "execution_id": context.execution_id,
            "workflow_id": context.workflow_id,
            "task": context.task_name,
            "attempt": context.attempt,
            "idempotency_key": key,
        }
        headers = {
            "Accept": f"{_STREAM}, {_WHOLE}",
            "Content-Type": _WHOLE,
            # A task's name may hold what a header cannot.
            "Idempotency-Key": quote(key, safe="/"),
        }
        try:
            async with exchange(
                self.service,
                "POST",
                self.url,
                headers=headers,
                content=json.dumps({"input": given, "attempt": attempt}).encode("ascii"),
                begins_within_s=self.service.limits.silence_s_max,
            ) as answer:
                return await self._outcome(answer, context)
        except (Unreachable, Silent, BrokenOff, AnswerTooLarge) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> ActionError:
        url = self.service.url
        match error:
            case Unreachable():
                return ActionError(f"{url} cannot be reached: {error}", code="REMOTE_UNREACHABLE")
            case Silent():
                silence_s = self.service.limits.silence_s_max
                return ActionError(f"{url} said nothing for {silence_s:g} s", code="REMOTE_SILENT")
            case AnswerTooLarge():
                message = f"the answer of {url} to {self.action} is too large: {error}"
                return ActionError(message, code="OUTPUT_TOO_LARGE", retriable=False)
        message = f"the connection to {url} broke off: {error}"
        return ActionError(message, code="REMOTE_BROKE_OFF")

    async def _outcome(self, answer: Answer, context: TaskContext) -> Any:
        if answer.encoding != "identity":
            raise self._nonsense(
                f"its Content-Encoding is '{answer.encoding}', and none was asked for"
            )
        if answer.status != _OK:
            await self._refused(answer)
        bytes_max = self.service.limits.answer_bytes_max + _ENVELOPE_BYTES
        if answer.media_type == _WHOLE:
            said = await self._object(await answer.whole(bytes_max))
            if not said.keys() <= {"output", "error"} or len(said) != 1:
                raise self._nonsense(f'it must hold "output" or "error", not {_names(said)}')
            return self._ended(said)
        if answer.media_type == _STREAM:
            return await self._streamed(answer, bytes_max, context)
        raise self._nonsense(
            f"its Content-Type is '{answer.media_type[:_SHOWN_CHARS]}', not {_WHOLE} or {_STREAM}"
        )

    async def _streamed(self, answer: Answer, bytes_max: int, context: TaskContext) -> Any:
        logged = 0
        async with aclosing(answer.lines(bytes_max)) as lines:
            async for line in lines:
                if not line.strip():
                    # A sign of life.
                    continue
                said = await self._object(line)
                if len(said) != 1:
                    raise self._nonsense(f"a line must hold one thing, not {_names(said)}")
                match said:
                    case {"progress": progress}:
                        self._progress(progress, context)
                    case {"log": str(text)}:
                        logged += 1
                        _log(text, logged, context)
                    case {"output": _} | {"error": _}:
                        return self._ended(said)
                    case _:
                        raise self._nonsense(
                            'a line must hold "progress", "log" (text), "output" or "error", '
                            f"not {_names(said)}"
                        )
        raise BrokenOff("the stream ended without an output or an error")

    def _progress(self, progress: Any, context: TaskContext) -> None:
        if not _is_progress(progress):
            raise self._nonsense(
                'progress must be {"fraction": 0.0 to 1.0, "message": text}, '
                f"not {reprlib.repr(progress)}"
            )
        context.progress(float(progress["fraction"]), progress.get("message") or "")

    def _ended(self, said: Mapping[str, Any]) -> Any:
        if "output" in said:
            return said["output"]
        raise self._error(said["error"], retriable=True)

    def _error(self, error: Any, *, retriable: bool) -> ActionError:
        """The error as the service has raised it; without a word of its own, `retriable` counts."""
        if not _is_error(error):
            return self._nonsense(
                'an error must be {"message": text, "code": text, "details": object, '
                f'"retriable": true or false}}, not {reprlib.repr(error)}'
            )
        own = error.get("retriable")
        return ActionError(
            error["message"],
            code=error.get("code") or "ACTION_FAILED",
            details=error.get("details"),
            retriable=retriable if own is None else own,
        )

    async def _refused(self, answer: Answer) -> NoReturn:
        """Raise what an answer with another status than 200 means."""
        told = f"{answer.status} {answer.reason}".strip()
        retriable = answer.status >= 500 or answer.status in _REFUSED_FOR_NOW
        if 300 <= answer.status < 400:
            raise self._nonsense(f"it is {told}, and redirects are not followed")
        if answer.status < 300:
            raise self._nonsense(f"its status is {told}; what has been carried out is a 200")
        body = await answer.beginning(_ERROR_BYTES_MAX)
        error = await _error_in(body) if answer.media_type == _WHOLE else None
        if error is not None:
            raise self._error(error, retriable=retriable)
        text = body[: 4 * _SHOWN_CHARS].decode("utf-8", "replace")[:_SHOWN_CHARS]
        raise ActionError(
            f"{self.service.url} answered {told} to {self.action}" + (f": {text}" if text else ""),
            code="REMOTE_HTTP_ERROR",
            details={"status": answer.status},
            retriable=retriable,
        )

    async def _object(self, body: bytes) -> dict[str, Any]:
        try:
            said = await read(body)
        except ValueError as error:
            raise self._nonsense(f"it is not JSON: {error}") from error
        if not isinstance(said, dict):
            raise self._nonsense(f"it must be a JSON object, not {type(said).__name__}")
        return said

    def _nonsense(self, problem: str) -> ActionError:
        return ActionError(
            f"the answer of {self.service.url} to {self.action} cannot be used: {problem}",
            code="REMOTE_INVALID_ANSWER",
            retriable=False,
        )


def _log(text: str, number: int, context: TaskContext) -> None:
    """Tell a line, which cannot pass itself off as several."""
    if number <= LOG_LINES_MAX:
        kept = text[:_LOG_CHARS_MAX]
        context.log("".join(each if each.isprintable() else " " for each in kept))
    elif number == LOG_LINES_MAX + 1:
        context.log(f"the service has more to say than {LOG_LINES_MAX} lines; the rest is left out")


def _is_progress(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("message"), str | None):
        return False
    fraction: Any = value.get("fraction")
    is_number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    return is_number and 0.0 <= fraction <= 1.0


def _is_error(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("message"), str):
        return False
    kinds = {"code": str, "details": dict, "retriable": bool}
    return all(isinstance(value.get(name), kind | None) for name, kind in kinds.items())


async def _error_in(body: bytes) -> Any:
    """The error that a refusal's body holds in the contract's form, if it does."""
    try:
        said = await read(body)
    except ValueError:
        return None
    if isinstance(said, dict) and said.keys() == {"error"}:
        error = said["error"]
        return error if _is_error(error) else None
    return None


def _names(said: Mapping[str, Any]) -> str:
    return reprlib.repr(sorted(said))
