"""One execution as its client holds it: what it was when last seen, and what can be done with it.

Written once for both clients, like `operations`; only the event loops differ.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from harmonia_serve.client.errors import ExecutionEndedBadly
from harmonia_serve.client.events import Event, LogLine
from harmonia_serve.client.flows import Flow, JsonObject, execution_flow, output_flow, wait_flow
from harmonia_serve.client.operations import BytesT, DocumentT, Operations

if TYPE_CHECKING:
    from harmonia_serve.client.asynchronous import AsyncHarmoniaClient
    from harmonia_serve.client.synchronous import HarmoniaClient

__all__ = ["AsyncExecution", "Execution"]


class _ExecutionOperations(Generic[DocumentT, BytesT]):
    """What can be done with an execution, in either client."""

    _client: Operations[DocumentT, BytesT]

    def __init__(self, document: JsonObject) -> None:
        #: The execution as it was when it was started, or last waited for or refreshed.
        self.document = document

    @property
    def id(self) -> str:
        """The execution's id."""
        return str(self.document["execution_id"])

    @property
    def status(self) -> str:
        """The status when last seen; `wait` and `refresh` look again."""
        return str(self.document["status"])

    def refresh(self, *, outputs: bool = True) -> DocumentT:
        """The state of the execution now, which `document` and `status` then show, too."""
        return self._client._document(self._refresh(outputs))

    def wait(self, timeout: float | None = None) -> DocumentT:
        """Wait until the execution has ended, however it ends; its final state.

        Raises WaitTimedOut after `timeout` seconds (None: wait for ever). A service that is away
        is asked again for as long, or for two minutes without a timeout; then ServiceUnreachable,
        or what is said in its place, is raised.
        """
        return self._client._document(self._wait(timeout))

    def result(self, timeout: float | None = None) -> DocumentT:
        """Wait for the execution's output, and fetch it whole, however large.

        Without an `output` in the definition it is made up of the outputs of tasks, and those that
        are large are kept apart: `{"$ref": …, "size": …, "preview": …}` stands for each, and
        `task_output` has it.

        Raises ExecutionEndedBadly if it failed or was cancelled, and what `wait` raises.
        """
        return self._client._document(self._result(timeout))

    def cancel(self) -> DocumentT:
        """Ask for a cancel. Raises Conflict if the execution has ended."""
        return self._client.cancel_execution(self.id)

    def tasks(self, *, page: int = 1, limit: int = 100) -> DocumentT:
        """The tasks, by page."""
        return self._client.list_tasks(self.id, page=page, limit=limit)

    def task_output(self, task_name: str) -> BytesT:
        """The whole output of a task, as UTF-8 JSON."""
        return self._client.get_task_output(self.id, task_name)

    def files(self) -> DocumentT:
        """The files of the workspace."""
        return self._client.list_files(self.id)

    def read_file(self, path: str) -> BytesT:
        """A file of the workspace, in memory."""
        return self._client.read_file(self.id, path)

    def audit(self) -> DocumentT:
        """Which rules the history of the execution breaks: {complete, events, violations, ...}."""
        return self._client.audit_execution(self.id)

    def checkpoint(
        self, name: str, *, description: str = "", idempotency_key: str | None = None
    ) -> DocumentT:
        """Keep the present state of the execution."""
        return self._client.create_checkpoint(
            self.id, name, description=description, idempotency_key=idempotency_key
        )

    def _refresh(self, outputs: bool) -> Flow[JsonObject]:
        self.document = yield from execution_flow(self.id, outputs=outputs)
        return self.document

    def _wait(self, timeout_s: float | None) -> Flow[JsonObject]:
        self.document = yield from wait_flow(self.id, timeout_s)
        return self.document

    def _result(self, timeout_s: float | None) -> Flow[JsonObject]:
        final = yield from self._wait(timeout_s)
        if final["status"] != "completed":
            raise ExecutionEndedBadly(final)
        output: Any = yield from output_flow(final)
        return output if isinstance(output, dict) else {"output": output}


class Execution(_ExecutionOperations[JsonObject, bytes]):
    """An execution of the sync client."""

    _client: HarmoniaClient

    def __init__(self, client: HarmoniaClient, document: JsonObject) -> None:
        super().__init__(document)
        self._client = client

    def events(
        self,
        after: int | str = 0,
        *,
        types: Sequence[str] | None = None,
        task: str | None = None,
        statuses: Sequence[str] | None = None,
        logs: bool = False,
    ) -> Iterator[Event]:
        """Each event with seq > `after` once and in order, until the execution ends.

        `types`, `task` and `statuses` say which are wanted; by default all. Log lines (`task_log`)
        only come if `types` names them, or with `logs`.
        """
        return self._client.events(
            self.id, after=after, types=types, task=task, statuses=statuses, logs=logs
        )

    def logs(self, task: str | None = None, *, follow: bool = True) -> Iterator[LogLine]:
        """The lines that the tasks write, or one of them, until the execution ends.

        With `follow=False`, those that there are now.
        """
        return self._client.logs(self.id, task, follow=follow)

    def progress(self, after: int = 0) -> Iterator[Event]:
        """How the execution stands, a few times a second at most, until it ends.

        An event `execution_progress` counts the tasks by status, whatever number of them there is;
        the execution's own events are between them.
        """
        return self._client.events(self.id, after=after, detail="summary")

    def download(self, path: str, destination: Path) -> Path:
        """Stream a file of the workspace to `destination` (a file or a directory)."""
        return self._client.download_file(self.id, path, destination)


class AsyncExecution(_ExecutionOperations[Any, Any]):
    """An execution of the async client: what `Execution` returns, this one's methods await."""

    _client: AsyncHarmoniaClient

    def __init__(self, client: AsyncHarmoniaClient, document: JsonObject) -> None:
        super().__init__(document)
        self._client = client

    def events(
        self,
        after: int | str = 0,
        *,
        types: Sequence[str] | None = None,
        task: str | None = None,
        statuses: Sequence[str] | None = None,
        logs: bool = False,
    ) -> AsyncIterator[Event]:
        """Each event with seq > `after` once and in order, until the execution ends.

        `types`, `task` and `statuses` say which are wanted; by default all. Log lines (`task_log`)
        only come if `types` names them, or with `logs`.
        """
        return self._client.events(
            self.id, after=after, types=types, task=task, statuses=statuses, logs=logs
        )

    def logs(self, task: str | None = None, *, follow: bool = True) -> AsyncIterator[LogLine]:
        """The lines that the tasks write, or one of them, until the execution ends.

        With `follow=False`, those that there are now.
        """
        return self._client.logs(self.id, task, follow=follow)

    def progress(self, after: int = 0) -> AsyncIterator[Event]:
        """How the execution stands, a few times a second at most, until it ends.

        An event `execution_progress` counts the tasks by status, whatever number of them there is;
        the execution's own events are between them.
        """
        return self._client.events(self.id, after=after, detail="summary")

    async def download(self, path: str, destination: Path) -> Path:
        """Stream a file of the workspace to `destination` (a file or a directory)."""
        return await self._client.download_file(self.id, path, destination)
