"""The part of the store's contract about forgetting: what has ended expires, and goes whole.

An execution's outputs, and whatever lies outside the store under its id (blobs, files), are held:
by the execution itself, by every checkpoint of it, and by every execution that says so when it is
created. When the last holder goes, the outputs go with it, and the id is garbage: it stays in a
list until somebody has removed what lies outside and says so. A crash in between loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Retention", "Tally"]


@dataclass(frozen=True, slots=True)
class Tally:
    """How many executions are where in their life."""

    #: Not ended.
    live: int
    #: Ended, and not expired yet.
    ended: int
    #: Expired, since the installation began.
    expired: int
    #: Ids under which something may still lie outside the store.
    garbage: int
    #: Live ones that no owner that is there can read (`Store.give_on`).
    aside: int = 0


class Retention(Protocol):
    """What expires, and what it leaves behind."""

    async def expire(self, *, age_ms: int, limit: int) -> int:
        """Forget executions that ended at least `age_ms` ago, the oldest `limit` of them.

        Each goes at once with all that is stored of it; what it held, it holds no more. Age is by
        the server's clock. Returns how many; a repeat after a lost reply takes the next ones.
        """
        ...

    async def garbage(self, *, limit: int) -> list[str]:
        """Ids of executions whose outputs nobody holds any more, the oldest first.

        What lies outside the store under such an id is needed by nobody, now or ever: ids are not
        used twice, and nobody can come to hold it again.
        """
        ...

    async def clear_garbage(self, removed: Sequence[str], later: Sequence[str] = ()) -> None:
        """Take `removed`, of which nothing is left, off the list; put `later` behind all others."""
        ...

    async def known(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids whose executions are there, or whose outputs are held."""
        ...

    async def tally(self) -> Tally:
        """Counts, kept as executions are created, end and expire."""
        ...

    async def compact(self, *, bytes_min: int) -> bool:
        """Let what is kept be written to disk anew, if that makes room: True if it was begun.

        That is when at least `bytes_min` are on disk, and most of it is of no use any more. What is
        stored stays as it is. False also where the server does not allow it.
        """
        ...

    async def installation(self) -> str:
        """Twelve hexadecimal digits that are this installation's alone, the same for ever.

        They belong into names of what lies where others may have things too.
        """
        ...
