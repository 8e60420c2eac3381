"""Leaves outcomes in inboxes from the thread that runs attempts, which waits until they are there.

The store is asynchronous and the thread has no loop, so that one is kept here, for nothing else.
While the thread waits, the owner does not know the outcome that waits with it: so it never waits
for long, and not again and again for a store that cannot be reached from here.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from harmonia_actors.runtime.orders import AttemptOrder
from persistence.errors import StoreError, StoreUnavailable
from persistence.store import InboxEntry, Store

__all__ = ["OutcomeKeeper"]

_log = logging.getLogger(__name__)

#: A store that did not answer is left alone for so many times as long as it was waited for.
_LEFT_ALONE = 10


class OutcomeKeeper:
    """Implements `Keep`. Always called in one and the same thread."""

    def __init__(
        self,
        connect: Callable[[], Store],
        wait_ms: int,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """The store is given `wait_ms` for each outcome."""
        self._connect = connect
        self._wait_s = wait_ms / 1000
        self._now_s = now_s
        self._away_until_s = -math.inf
        self._made: tuple[asyncio.AbstractEventLoop, Store] | None = None

    def __call__(self, order: AttemptOrder, entry: InboxEntry) -> bool:
        """Durable, if True; else its owner is told in the usual way, and nothing follows it."""
        if self._now_s() < self._away_until_s:
            return False
        if self._made is None:
            # Not before it is needed: most task actors may never have a stretch.
            self._made = asyncio.new_event_loop(), self._connect()
        loop, store = self._made
        left = self._left(store, order, entry)
        try:
            loop.run_until_complete(left)
        except (StoreUnavailable, TimeoutError) as error:
            self._away_until_s = self._now_s() + _LEFT_ALONE * self._wait_s
            _log.warning("a stretch ends with %s, the store is away: %s", order.id, error)
            return False
        except StoreError as error:
            _log.info("a stretch ends with %s: %s", order.id, error)
            return False
        except Exception:
            # An action may have left this thread with a loop of its own that runs for ever.
            _log.exception("a stretch ends with %s", order.id)
            return False
        finally:
            left.close()
        return True

    async def _left(self, store: Store, order: AttemptOrder, entry: InboxEntry) -> None:
        # Should it arrive all the same, whoever reads it knows it already.
        async with asyncio.timeout(self._wait_s):
            try:
                await store.append_inbox(order.execution_id, entry, epoch=order.epoch)
            except StoreUnavailable:
                # No loop runs between two outcomes: that the server has closed a connection since
                # is seen only when it is used. The next one is a new one.
                await store.append_inbox(order.execution_id, entry, epoch=order.epoch)

    def close(self) -> None:
        """Keep no loop any more."""
        if self._made is not None:
            self._made[0].close()
            self._made = None
