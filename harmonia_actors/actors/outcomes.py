"""Leaves outcomes in inboxes from the thread that runs attempts, which waits until they are there.

The store is asynchronous and the thread has no loop, so that one is kept here, for nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from harmonia_actors.runtime.orders import AttemptOrder
from persistence.errors import StoreError
from persistence.store import InboxEntry, Store

__all__ = ["OutcomeKeeper"]

_log = logging.getLogger(__name__)


class OutcomeKeeper:
    """Implements `Keep`. Always called in one and the same thread."""

    def __init__(self, connect: Callable[[], Store]) -> None:
        self._connect = connect
        self._made: tuple[asyncio.AbstractEventLoop, Store] | None = None

    def __call__(self, order: AttemptOrder, entry: InboxEntry) -> bool:
        """Durable, if True; else its owner is told in the usual way, and nothing follows it."""
        if self._made is None:
            # Not before it is needed: most task actors may never have a stretch.
            self._made = asyncio.new_event_loop(), self._connect()
        loop, store = self._made
        try:
            loop.run_until_complete(
                store.append_inbox(order.execution_id, entry, epoch=order.epoch)
            )
        except StoreError as error:
            _log.info("a stretch ends with %s: %s", order.id, error)
            return False
        return True
