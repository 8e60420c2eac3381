"""The async transport: drives flows and streams with httpx.AsyncClient. It decides nothing."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, Unpack

import httpx
from httpx_sse import SSEError, aconnect_sse

from harmonia_serve.client.errors import ApiError, ServiceUnreachable, api_error
from harmonia_serve.client.events import (
    AnyCursor,
    Event,
    LogLine,
    Wanted,
    log_lines,
    stream_cursor,
)
from harmonia_serve.client.execution import AsyncExecution
from harmonia_serve.client.flows import Answer, Call, Flow, JsonObject, Pause, run_flow
from harmonia_serve.client.location import locate
from harmonia_serve.client.operations import Operations, definition_of
from harmonia_serve.client.wire import (
    FellIdle,
    Patience,
    client_options,
    destination_file,
    reply_of,
    request_options,
    stream_timeout,
    unreachable,
    whole_or_nothing,
)

__all__ = ["AsyncHarmoniaClient"]

_T = TypeVar("_T")


class AsyncHarmoniaClient(Operations[Awaitable[JsonObject], Awaitable[bytes]]):
    """The async client: the methods of HarmoniaClient, awaited; `async with` closes it."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        timeout: float = 30.0,
    ) -> None:
        location = locate(url, api_key, data_dir)
        self.url = location.url
        self._timeout_s = timeout
        self._http = httpx.AsyncClient(**client_options(location, timeout))

    async def __aenter__(self) -> AsyncHarmoniaClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def run(
        self,
        workflow: str | os.PathLike[str] | Mapping[str, Any],
        input_values: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> AsyncExecution:
        """Execute a workflow: an id, a definition, or the path of a JSON file with one.

        The same `idempotency_key` with the same arguments is the same execution, whoever asks
        and however often; by default each call is another one.
        """
        definition = await asyncio.to_thread(definition_of, workflow)
        flow = run_flow(definition, dict(input_values or {}), dict(options or {}), idempotency_key)
        return AsyncExecution(self, await self._drive(flow))

    async def execution(self, execution_id: str) -> AsyncExecution:
        """An execution that is there already. Raises ExecutionNotFound."""
        return AsyncExecution(self, await self.get_execution(execution_id))

    async def events(
        self,
        execution_id: str | None = None,
        *,
        after: int | str | None = None,
        until: int | str | None = None,
        idle_s: float | None = None,
        follow: bool = True,
        **wanted: Unpack[Wanted],
    ) -> AsyncIterator[Event]:
        """Each event with seq > `after` once and in order, until the execution ends.

        A broken stream is resumed after the last event. A service that is away is asked again for
        two minutes (half a minute if it was never there), then the error is raised. It also ends
        with the event of seq `until` (the `last_seq` of a state is that of the last event so
        far), and with `idle_s` once no event has come for so long, or with the service's next
        sign of life after that.

        Without `execution_id`: the events of all executions, without end, in the order of their
        commits, from now on or after the cursor `after` (the `cursor` of an event, or "0" for all
        that is kept). An event `gap` stands where events cannot be had any more. With
        `follow=False` it ends where the log ends now.

        `types`, `task`, `statuses`, and for all executions `workflow_id`, say which are wanted;
        log lines (`task_log`) only come if `types` names them, or with `logs=True`.
        `detail="summary"` is for one execution: in place of its tasks' events, `execution_progress`
        says now and then how all of them stand.
        """
        cursor = stream_cursor(execution_id, after, until, wanted, follow=follow)
        patience = Patience(idle_s)
        while not cursor.ended:
            error: ServiceUnreachable | ApiError | None = None
            opened = time.monotonic()
            try:
                with unreachable(self.url):
                    async for event in self._stream(cursor, patience):
                        yield event
            except FellIdle:
                return
            except (ServiceUnreachable, ApiError) as caught:
                error = caught
            if not cursor.ended:
                await asyncio.sleep(cursor.pause_after_break(error, time.monotonic() - opened))

    async def logs(
        self, execution_id: str, task: str | None = None, *, follow: bool = True
    ) -> AsyncIterator[LogLine]:
        """The lines that the tasks of an execution write, or one of them, until it ends.

        With `follow=False`, those that there are now.
        """
        until = None
        if not follow:
            until = (await self.get_execution(execution_id, outputs=False))["last_id"]
        async for event in self.events(execution_id, until=until, types=["task_log"], task=task):
            for line in log_lines(event):
                yield line

    async def _stream(self, cursor: AnyCursor, patience: Patience) -> AsyncIterator[Event]:
        async with aconnect_sse(
            self._http, "GET", cursor.path, headers=cursor.headers(), timeout=stream_timeout()
        ) as source:
            if source.response.status_code == 204:
                cursor.note_nothing_more()
                return
            if source.response.status_code != 200:
                raise api_error(source.response.status_code, await source.response.aread())
            cursor.note_open()
            patience.attend(source.response)
            try:
                async for sent in source.aiter_sse():
                    event = cursor.take(sent.id, sent.event, sent.data)
                    if event is not None:
                        yield event
                        patience.renew()
                    if cursor.ended:
                        return
            except SSEError as error:
                raise ServiceUnreachable(self.url, str(error), sent=True) from error

    async def download_file(self, execution_id: str, path: str, destination: Path) -> Path:
        """Stream a file of a workspace to `destination` (a file or a directory)."""
        target = await asyncio.to_thread(destination_file, path, destination)
        url = self.file_path(execution_id, path)
        with unreachable(self.url):
            async with self._http.stream("GET", url) as response:
                if response.status_code != 200:
                    raise api_error(response.status_code, await response.aread())
                with whole_or_nothing(target) as partial:
                    file = await asyncio.to_thread(partial.open, "wb")
                    try:
                        async for chunk in response.aiter_bytes():
                            await asyncio.to_thread(file.write, chunk)
                    finally:
                        await asyncio.to_thread(file.close)
        return target

    def _document(self, flow: Flow[JsonObject]) -> Awaitable[JsonObject]:
        return self._drive(flow)

    def _bytes(self, flow: Flow[bytes]) -> Awaitable[bytes]:
        return self._drive(flow)

    async def _drive(self, flow: Flow[_T]) -> _T:
        answer: Answer = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as stop:
                result: _T = stop.value
                return result
            answer = await self._perform(step)

    async def _perform(self, step: Call | Pause) -> Answer:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            with unreachable(self.url):
                return reply_of(await self._http.request(**request_options(step, self._timeout_s)))
        except ServiceUnreachable as error:
            return error
