"""What the store's server promises at the moment, as its own configuration has it.

The configuration may be changed while the server runs, so it is read again and again; not for each
request, for requests may be many. This module must not know which servers there are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from harmonia_actors.core.requests import JsonObject
from persistence.errors import StoreUnavailable, UnsuitableServer
from persistence.store import Durability, Store

__all__ = ["PROMISES", "StorePromise"]

#: Each promise in plain words: what it means for whoever was answered with a 2xx.
PROMISES: Final = {
    "always": "After a 2xx an execution is never lost.",
    "everysec": "After a 2xx at most the last second is lost, if the server or its machine dies.",
    "none": "After a 2xx an execution may be lost, if the server or its machine dies.",
    "unknown": "Nothing can be promised, because it is not known how the server keeps what it has.",
}


class StorePromise:
    """The promise as it was at most `age_s_max` ago."""

    def __init__(
        self, store: Store, *, age_s_max: float, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._age_s_max = age_s_max
        self._now_s = now_s
        self._turn = asyncio.Lock()
        self._read_s = 0.0
        self._found: Durability | None = None

    async def now(self) -> Durability:
        """Read it, unless that was done a moment ago; never fails."""
        # One reads, the others wait for what it finds: also when that takes until a timeout.
        async with self._turn:
            if self._found is None or self._now_s() - self._read_s >= self._age_s_max:
                self._found = await self._read()
                self._read_s = self._now_s()
            return self._found

    async def document(self) -> JsonObject:
        """{promise, meaning, detail}, as `/health` shows it."""
        found = await self.now()
        return {
            "promise": found.promise,
            "meaning": PROMISES[found.promise],
            "detail": found.detail,
        }

    async def _read(self) -> Durability:
        try:
            return await self._store.durability()
        except StoreUnavailable:
            return Durability("unknown", "the store cannot be reached at the moment")
        except UnsuitableServer as error:
            return Durability("none", str(error))
