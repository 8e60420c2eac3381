"""All services together, with what concerns the installation as a whole: the engine's one door.

Satisfies the gateway protocol that the routes are written against.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from harmonia_actors.core.cursors import Cursor
from harmonia_actors.core.errors import ResourceNotFound
from harmonia_actors.core.requests import FileContent, JsonObject, LoggedEvent, StreamEvent
from harmonia_actors.core.statuses import ExecutionStatus
from harmonia_actors.runtime.event_hub import EventHub
from harmonia_actors.runtime.files import FileInfo
from harmonia_actors.runtime.indexing import executions_index
from harmonia_actors.runtime.installation_events import InstallationEvents
from harmonia_actors.runtime.service.audits import AuditService
from harmonia_actors.runtime.service.checkpoints import CheckpointService
from harmonia_actors.runtime.service.keys import KeyService
from harmonia_actors.runtime.service.parts import ServiceParts, answered
from harmonia_actors.runtime.service.promise import PROMISES, StorePromise
from harmonia_actors.runtime.service.templates import TemplateService
from persistence.errors import StoreError

__all__ = ["FilePlace", "FileReader", "InstallationGateway"]

_CHUNK_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class FilePlace:
    """Where the files of an execution are."""

    #: As in `Head.node`.
    node: str
    execution_id: str
    #: As in `Head.files_from`.
    files_from: tuple[str, ...]


class FileReader(Protocol):
    """The files of executions, wherever they are."""

    async def list_files(self, place: FilePlace) -> tuple[Sequence[FileInfo], bool]:
        """All files of an execution, and whether there are more than are listed."""
        ...

    async def describe(self, place: FilePlace, path: str) -> FileInfo:
        """One file. Raises ResourceNotFound."""
        ...

    async def read(self, place: FilePlace, path: str, offset: int, size: int) -> bytes:
        """A part of a file; empty at its end."""
        ...


class InstallationGateway(CheckpointService, AuditService, TemplateService, KeyService):
    """The engine, as the routes see it."""

    def __init__(self, parts: ServiceParts, hub: EventHub, files: FileReader) -> None:
        super().__init__(parts)
        self._hub = hub
        self._files = files
        self._all_events = InstallationEvents(
            parts.store,
            recent_bytes_max=parts.settings.stream_installation_bytes_max,
            batch_bytes_max=parts.settings.stream_buffer_bytes_max,
        )
        self._promise = StorePromise(parts.store, age_s_max=parts.settings.durability_age_s_max)

    def events(
        self, execution_id: str, *, after: int, part: int = 0
    ) -> AsyncIterator[Sequence[StreamEvent]]:
        """Events of an execution: history, then live, until the last."""
        return self._hub.events(execution_id, after=after, part=part)

    async def installation_events(
        self, *, after: Cursor | None, follow: bool, workflow_id: str | None
    ) -> AsyncIterator[Sequence[LoggedEvent]]:
        """Events of all executions; `workflow_id` is only looked for. Raises WorkflowNotFound."""
        if workflow_id is not None:
            await self._find_workflow_or_executions(workflow_id)
        async with contextlib.aclosing(
            self._all_events.events(after=after, follow=follow)
        ) as batches:
            async for batch in batches:
                yield batch

    async def _find_workflow_or_executions(self, workflow_id: str) -> None:
        """A workflow that was deleted is known for as long as executions of it are kept."""
        index = executions_index(workflow_id)
        listed = await answered(lambda: self.store.page(index, offset=0, limit=1, descending=True))
        if not listed.total:
            await self.get_workflow(workflow_id)

    async def list_files(self, execution_id: str) -> JsonObject:
        """Files of the workspace."""
        found, more = await self._files.list_files(await self._file_place(execution_id))
        items = [info.to_json() for info in found]
        return {"items": items, "total": len(items), "truncated": more}

    async def open_file(self, execution_id: str, path: str) -> FileContent:
        """A file of the workspace, in chunks."""
        place = await self._file_place(execution_id)
        info = await self._files.describe(place, path)
        files = self._files

        async def chunks() -> AsyncIterator[bytes]:
            offset = 0
            while offset < info.size:
                size = min(_CHUNK_BYTES, info.size - offset)
                part = await files.read(place, info.path, offset, size)
                if not part:
                    return
                offset += len(part)
                yield part

        return FileContent(info.path.rpartition("/")[2], info.size, chunks())

    async def list_components(self) -> JsonObject:
        """All components with their actions."""
        items = await asyncio.to_thread(self.registry.catalogue)
        return {"items": items, "total": len(items)}

    async def get_component(self, name: str) -> JsonObject:
        """One component. Raises ResourceNotFound."""
        for item in self.registry.catalogue():
            if item["name"] == name:
                return dict(item)
        known = ", ".join(component.name for component in self.registry.components())
        raise ResourceNotFound(
            f"there is no component '{name[:128]}'; there are: {known}", {"component": name[:128]}
        )

    async def health(self, *, detailed: bool) -> JsonObject:
        """{status}; detailed adds version, durability, pools and counts."""
        if not detailed:
            return {"status": "ok"}
        return {
            "status": "ok",
            "version": self.parts.version,
            "durability": await self.durability(),
            "executions": await self._counts(),
            "pools": await self.parts.launcher.counts(),
        }

    async def durability(self) -> JsonObject:
        """What the store's configuration allows to promise now."""
        return await self._promise.document()

    async def ready(self) -> bool:
        """Whether requests can be served now."""
        try:
            await self.store.ping()
        except StoreError:
            return False
        return True

    async def metrics(self) -> Mapping[str, float]:
        """Gauges by Prometheus name."""
        counts = await self._counts()
        gauges = {f"harmonia_executions_{name}": float(n) for name, n in counts.items()}
        tally = await answered(self.store.tally)
        gauges["harmonia_executions_live"] = float(tally.live)
        gauges["harmonia_executions_ended_kept"] = float(tally.ended)
        gauges["harmonia_executions_expired"] = float(tally.expired)
        gauges["harmonia_garbage_waiting"] = float(tally.garbage)
        gauges["harmonia_executions_set_aside"] = float(tally.aside)
        kept = (await self._promise.now()).promise
        for promise in PROMISES:
            gauges[f"harmonia_store_promise_{promise}"] = float(promise == kept)
        for name, value in (await self.parts.launcher.counts()).items():
            gauges[f"harmonia_{name}"] = float(value)
        return gauges

    async def _counts(self) -> dict[str, int]:
        async def count(status: str | None) -> int:
            index = executions_index(None, status)
            page = await self.store.page(index, offset=0, limit=1, descending=True)
            return page.total

        names = [*ExecutionStatus]
        totals = await answered(lambda: asyncio.gather(*(count(status.value) for status in names)))
        return {status.value: total for status, total in zip(names, totals, strict=True)}

    async def _file_place(self, execution_id: str) -> FilePlace:
        head = await self._head(execution_id)
        return FilePlace(head.node, execution_id, head.files_from)
