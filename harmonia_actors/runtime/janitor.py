"""The janitor: lets what has ended expire, and removes what nobody needs outside the store.

Two ways lead to what is to be removed. The store lists ids whose outputs nobody holds any more, and
forgets them only once this says that nothing is left of them: a crash in between loses nothing.
And a slow sweep looks at the names that there are for such as the store knows nothing of. That is
safe, because an execution is in the store before anything else is made for it, and no id is used
twice. Where others may have things too, only names that end in this installation's digits are
looked at.

Each round does a bounded amount of work. This module must not know where things lie.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from persistence.errors import StoreError
from persistence.store import Store

__all__ = ["Janitor", "JanitorLimits", "Place", "PlaceAway"]

_log = logging.getLogger(__name__)

#: Executions that expire in one step of the store, which others wait for.
_EXPIRED_AT_ONCE = 25
#: Ids that are asked for, or removed, in one step.
_IDS_AT_ONCE = 1_000
#: Waits between rounds while there is more to do, and after a round that failed.
_BUSY_S = 1.0
_FAILED_S = 10.0


class PlaceAway(Exception):
    """A place cannot be reached at the moment, or cannot do what it is asked."""


class Place(Protocol):
    """Somewhere things lie under the ids of executions. Methods may raise PlaceAway."""

    @property
    def name(self) -> str:
        """The same for ever, and no other place's."""
        ...

    async def ids(self, after: str, limit: int) -> Sequence[str]:
        """Ids under which something lies here: in order, those after `after`, up to `limit`."""
        ...

    async def remove(self, ids: Sequence[str], older_than_s: float) -> Sequence[str]:
        """Remove what was last touched so long ago; the ids of which nothing is left here."""
        ...

    async def remove_unfinished(self) -> None:
        """Remove what has no id, because whoever made it was killed."""
        ...


@dataclass(frozen=True, slots=True)
class JanitorLimits:
    """Times and amounts."""

    #: How long what has ended is kept; None: for ever.
    retention_ms: int | None
    #: Age from which something under an id that the store does not know is removed.
    orphan_age_s: float
    #: Executions that expire, ids that are removed, and names that are looked at, in one round.
    round_max: int = 5_000
    #: Bytes on the store's disk from which it is asked to write anew what it keeps; None: never.
    compact_bytes_min: int | None = None


@dataclass
class Janitor:
    """Cleans up after the executions of one installation."""

    store: Store
    #: All places that can be reached now.
    find_places: Callable[[], Awaitable[Sequence[Place]]]
    limits: JanitorLimits
    #: By place, the name up to which it has been swept.
    _swept: dict[str, str] = field(default_factory=dict)

    async def keep_clean(self, interval_s: float) -> None:
        """A round every so often, for ever: whatever goes wrong is told, and tried again."""
        while True:
            try:
                wait_s = _BUSY_S if await self.round() else interval_s
            except (StoreError, PlaceAway) as error:
                _log.warning("the janitor waits: %s", error)
                wait_s = _FAILED_S
            except Exception:
                _log.exception("the janitor failed, and will try again")
                wait_s = _FAILED_S
            await asyncio.sleep(min(wait_s, interval_s))

    async def round(self) -> bool:
        """One round. True if it left something to do that the next can do at once."""
        more = await self._expire()
        places = await self.find_places()
        more = await self._remove_garbage(places) or more
        if not more:
            for place in places:
                try:
                    await self._sweep(place)
                except PlaceAway as error:
                    _log.warning("%s is not swept now: %s", place.name, error)
            await self._compact()
        return more

    async def _compact(self) -> None:
        """Once nothing more is due, so at most once in the time between two rounds."""
        bytes_min = self.limits.compact_bytes_min
        if bytes_min is not None and await self.store.compact(bytes_min=bytes_min):
            _log.info("the store writes anew what it keeps")

    async def _expire(self) -> bool:
        retention_ms = self.limits.retention_ms
        if retention_ms is None:
            return False
        left = self.limits.round_max
        while left > 0:
            limit = min(left, _EXPIRED_AT_ONCE)
            expired = await self.store.expire(age_ms=retention_ms, limit=limit)
            left -= expired
            if expired < limit:
                break
        if left < self.limits.round_max:
            _log.info("%d executions have expired", self.limits.round_max - left)
        return left == 0

    async def _remove_garbage(self, places: Sequence[Place]) -> bool:
        looked_at, removed = 0, 0
        while looked_at < self.limits.round_max:
            ids = await self.store.garbage(limit=_IDS_AT_ONCE)
            gone = set(ids)
            for place in places:
                gone &= await _removed(place, ids)
            later = [one for one in ids if one not in gone]
            await self.store.clear_garbage([one for one in ids if one in gone], later)
            looked_at += len(ids)
            removed += len(gone)
            if later or len(ids) < _IDS_AT_ONCE:
                break
        # What could not be removed may be so for a while: not at once again for that alone.
        return removed > 0 and (await self.store.tally()).garbage > 0

    async def _sweep(self, place: Place) -> None:
        after = self._swept.get(place.name, "")
        if not after:
            await place.remove_unfinished()
        limit = self.limits.round_max
        names = await place.ids(after, limit)
        self._swept[place.name] = names[-1] if len(names) == limit else ""
        digits = await self.store.installation()
        ours = [name for name in names if name.endswith(digits)]
        for start in range(0, len(ours), _IDS_AT_ONCE):
            part = ours[start : start + _IDS_AT_ONCE]
            known = await self.store.known(part)
            unknown = [name for name in part if name not in known]
            if unknown:
                gone = await place.remove(unknown, self.limits.orphan_age_s)
                if gone:
                    _log.warning(
                        "%s: removed what lay there under %d ids of no execution",
                        place.name,
                        len(gone),
                    )


async def _removed(place: Place, ids: Sequence[str]) -> set[str]:
    if not ids:
        return set()
    try:
        return set(await place.remove(ids, 0.0))
    except PlaceAway as error:
        _log.warning("%s: nothing is removed now: %s", place.name, error)
        return set()
