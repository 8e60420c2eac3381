"""Where outputs and files of executions lie, as the janitor sees it: a blob store, a directory.

This module must not know on which nodes they are.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from harmonia_actors.runtime.files import WorkspaceFiles
from harmonia_actors.runtime.janitor import PlaceAway
from persistence.errors import StoreError

__all__ = ["BlobPlace", "DirectoryPlace", "SweptBlobs"]

_log = logging.getLogger(__name__)

#: Blobs of one execution that one call removes, at most.
_BLOBS_AT_ONCE = 10_000
#: Time after which a call begins with no further execution: the rest is for the next one.
_CALL_S_MAX = 30.0


class SweptBlobs(Protocol):
    """What the janitor needs of the blob store; blobs' names begin with an execution's id."""

    def first_parts(self, after: str, limit: int) -> list[str]:
        """First parts of the names that there are, in order."""
        ...

    def changed_s(self, first: str) -> float | None:
        """When the latest of these blobs came, in seconds since 1970; None if that is unknown."""
        ...

    def remove_all(self, first: str, limit: int) -> bool:
        """Remove blobs with this first part. True once none is left."""
        ...


@dataclass(frozen=True)
class BlobPlace:
    """The blob store. Its work is done in threads."""

    blobs: SweptBlobs
    name: str = "blob store"

    async def ids(self, after: str, limit: int) -> Sequence[str]:
        """See `Place.ids`."""
        try:
            return await asyncio.to_thread(self.blobs.first_parts, after, limit)
        except StoreError as error:
            raise PlaceAway(str(error)) from error

    async def remove(self, ids: Sequence[str], older_than_s: float) -> Sequence[str]:
        """See `Place.remove`."""
        return await asyncio.to_thread(self._remove, ids, older_than_s)

    async def remove_unfinished(self) -> None:
        """Nothing: the blob store does that by itself."""

    def _remove(self, ids: Sequence[str], older_than_s: float) -> list[str]:
        latest_s = time.time() - older_than_s
        deadline_s = time.monotonic() + _CALL_S_MAX
        gone = []
        for one in ids:
            if time.monotonic() > deadline_s:
                break
            try:
                changed_s = self.blobs.changed_s(one) if older_than_s else 0.0
                if changed_s is None or changed_s > latest_s:
                    continue
                if self.blobs.remove_all(one, _BLOBS_AT_ONCE):
                    gone.append(one)
            except ValueError:
                # No blob can have such a name.
                gone.append(one)
            except StoreError as error:
                _log.warning("blobs of %s cannot be removed: %s", one, error)
        return gone


@dataclass(frozen=True)
class DirectoryPlace:
    """Workspaces on the node where this runs. Its work is done in threads."""

    files: WorkspaceFiles
    name: str = "workspaces"

    async def ids(self, after: str, limit: int) -> Sequence[str]:
        """See `Place.ids`."""
        try:
            return await asyncio.to_thread(self.files.ids, after, limit)
        except OSError as error:
            raise PlaceAway(str(error)) from error

    async def remove(self, ids: Sequence[str], older_than_s: float) -> Sequence[str]:
        """See `Place.remove`."""
        return await asyncio.to_thread(self.files.remove, ids, older_than_s)

    async def remove_unfinished(self) -> None:
        """See `Place.remove_unfinished`."""
        await asyncio.to_thread(self.files.remove_unfinished)
