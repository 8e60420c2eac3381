"""The part of the store's contract about inboxes: what others leave for an execution's owner.

Its owner takes entries in, and acknowledges them in the commit that holds their effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Inbox", "InboxEntry"]


@dataclass(frozen=True, slots=True)
class InboxEntry:
    """Something that a non-owner wants the owner to take in.

    `entry_id` is the sender's: appending the same id twice keeps the first body only, also after
    the owner has acknowledged it (until it has acknowledged 1,000 others since).
    """

    entry_id: str
    body: bytes


class Inbox(Protocol):
    """See the module."""

    async def append_inbox(
        self, execution_id: str, entry: InboxEntry, *, epoch: int | None = None
    ) -> str:
        """Leave something for the owner. Returns the owner's name ("" if there is none).

        The same entry id again changes nothing. Missing: there is no such execution;
        VersionConflict: it has ended. With an epoch, the entry is for this epoch's owner alone
        (StaleOwner: there is another), is seen by whoever claims next (VersionConflict if 900 are
        unread, so that requests find their way), and is forgotten once acknowledged.
        """
        ...

    async def read_inbox(self, execution_id: str) -> list[InboxEntry]:
        """Unread entries, oldest first, at most 1,000."""
        ...

    async def inboxes_waiting(self, owner: str) -> list[str]:
        """Ids of this owner's executions with unread inbox entries, at most 1,000."""
        ...
