"""What all services share: the store, the registry, the clock, the port to execution actors."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from harmonia_actors.components.registry import Registry
from harmonia_actors.core.definition import DefinitionLimits
from harmonia_actors.core.errors import ServiceUnavailable
from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.ordering import BlobReader
from harmonia_actors.runtime.ports import Clock
from harmonia_actors.settings import Settings
from persistence.errors import StoreUnavailable
from persistence.store import Store

__all__ = ["JsonObject", "Launcher", "Service", "ServiceParts", "answered", "new_id"]

JsonObject = dict[str, Any]
_T = TypeVar("_T")


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

    async def wait_ended(self, owner: str, execution_id: str) -> None:
        """Return when an execution has ended there, or is not there."""
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
        )


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
