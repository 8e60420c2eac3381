"""What all services share: the store, the registry, the clock, the port to execution actors."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from harmonia_actors.components.registry import Registry
from harmonia_actors.core import jsontext
from harmonia_actors.core.definition import DefinitionLimits
from harmonia_actors.core.errors import ServiceUnavailable
from harmonia_actors.core.requests import JsonObject, PageRequest
from harmonia_actors.core.resources import Capacity
from harmonia_actors.core.sizes import holds_no_more
from harmonia_actors.runtime.ending import Ending
from harmonia_actors.runtime.ordering import BlobReader
from harmonia_actors.runtime.ports import Clock
from harmonia_actors.runtime.service.once import Creation, find_made
from harmonia_actors.settings import Settings
from persistence.errors import StoreUnavailable
from persistence.store import Store

__all__ = [
    "Launcher",
    "Service",
    "ServiceParts",
    "answered",
    "apart",
    "new_id",
    "paged",
]

_T = TypeVar("_T")

#: A document of at most so many values, and characters in all, is worked on at once.
_AT_ONCE_PARTS = 1_000
_AT_ONCE_CHARS = 64 * 1024


class Launcher(Protocol):
    """Speaks to execution actors. A call that gets lost is made good by recovery."""

    async def start(
        self, owner: str, execution_id: str, definition: str, fields: Mapping[str, bytes]
    ) -> None:
        """Tell an owner of an execution that was created for it."""
        ...

    async def wanted(self) -> None:
        """An execution waits for an owner: another execution actor may be needed."""
        ...

    async def nudge(self, owner: str, execution_id: str) -> None:
        """Tell an owner that something lies in an inbox."""
        ...

    async def wait_ended(self, owner: str, execution_id: str) -> Ending | None:
        """Return when an execution has ended there, or is not there; how, if that is known."""
        ...

    async def capacity(self) -> Capacity:
        """What the cluster has and may add."""
        ...

    async def counts(self) -> dict[str, float]:
        """Sizes of the pools, by name."""
        ...


@dataclass
class ServiceParts:
    """The parts, put together once per process."""

    store: Store
    blobs: BlobReader
    registry: Registry
    clock: Clock
    launcher: Launcher
    settings: Settings
    version: str = "0"


class Service:
    """What the services have in common."""

    def __init__(self, parts: ServiceParts) -> None:
        self.parts = parts
        self.store = parts.store
        self.settings = parts.settings
        self.clock = parts.clock
        self.registry = parts.registry

    @property
    def definition_limits(self) -> DefinitionLimits:
        """Bounds of definitions, from the settings."""
        settings = self.settings
        return DefinitionLimits(
            tasks_max=settings.workflow_tasks_max,
            edges_max=settings.workflow_edges_max,
            name_length_max=settings.name_length_max,
            description_length_max=settings.description_length_max,
            references_per_task_max=settings.references_per_task_max,
            retries_max=settings.retries_max,
            timeout_s_max=settings.execution_timeout_s_max,
            checkpoints_kept_max=settings.automatic_checkpoints_kept_max,
        )

    async def made_before(self, creation: Creation) -> Mapping[str, str]:
        """What this request made when it was sent before, ids by kind. Raises Conflict."""
        return await answered(lambda: find_made(self.store, creation))

    async def made_meanwhile(self, creation: Creation, kind: str) -> str:
        """The id of what another send of this request has just made. Raises Conflict."""
        made = await self.made_before(creation)
        if kind not in made:
            raise ServiceUnavailable("what the request makes was just removed; send it again")
        return made[kind]

    async def page_of_documents(
        self, kind: str, index: str, page: PageRequest, show: Callable[[str, Any], JsonObject]
    ) -> JsonObject:
        """One page of a list of documents, each as `show(id, record)` makes it."""

        async def read() -> JsonObject:
            found = await self.store.page(
                index,
                offset=(page.page - 1) * page.limit,
                limit=page.limit,
                descending=page.descending,
            )
            stored = await self.store.get_documents(kind, found.ids)
            items = [
                show(document.document_id, jsontext.decode(document.body))
                for document in stored
                if document is not None
            ]
            return paged(items, found.total, page)

        return await answered(read)


async def apart(document: Any, work: Callable[[], _T]) -> _T:
    """Do work whose time grows with a document: at once if that is small, else in a thread."""
    if holds_no_more(document, parts=_AT_ONCE_PARTS, chars=_AT_ONCE_CHARS):
        return work()
    return await asyncio.to_thread(work)


def paged(items: list[JsonObject], total: int, page: PageRequest) -> JsonObject:
    """A page of a list, in the API's form."""
    return {"items": items, "total": total, "page": page.page, "limit": page.limit}


def new_id(prefix: str) -> str:
    """A fresh id of the API's form, like `wf-123e4567-e89b-12d3-a456-426614174000`."""
    return f"{prefix}-{uuid.uuid4()}"


async def answered(call: Callable[[], Awaitable[_T]]) -> _T:
    """Call the store; that it cannot be reached becomes the API's error."""
    try:
        return await call()
    except StoreUnavailable as error:
        raise ServiceUnavailable(
            "the store cannot be reached; nothing that was accepted is lost, try again"
        ) from error
