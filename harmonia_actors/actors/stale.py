"""Tells the supervisor what came from those who were succeeded; it adds up what all tell."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from harmonia_actors.actors.names import find_actor, supervisor_name
from harmonia_actors.runtime.stale import Stale

__all__ = ["StaleTeller"]


class StaleTeller:
    """Implements `NoteStale`: from any thread, and whether or not the supervisor is there."""

    def __init__(
        self, namespace: str, find: Callable[[str, str], Any] = find_actor, pause_s: float = 1.0
    ) -> None:
        """`pause_s` lies between two calls to the supervisor, so that much is told by few."""
        self._namespace = namespace
        self._find = find
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._untold: Counter[str] = Counter()
        self._is_telling = False
        self._all_told = threading.Event()
        self._all_told.set()

    def __call__(self, what: Stale, count: int) -> None:
        """Note it, and tell of it soon."""
        with self._lock:
            self._untold[what] += count
            self._all_told.clear()
            if not self._is_telling:
                self._is_telling = True
                # A thread, because looking for an actor may take as long as Ray likes.
                threading.Thread(target=self._tell, daemon=True).start()

    def flush(self, seconds: float) -> None:
        """Wait until all is told, but not for long."""
        self._all_told.wait(seconds)

    async def last_words(self, seconds: float) -> None:
        """The same on the loop of an actor that ends, also if all its threads are in use."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.to_thread(self.flush, seconds)

    def _tell(self) -> None:
        while untold := self._take():
            try:
                supervisor = self._find(supervisor_name(self._namespace), self._namespace)
                supervisor.note_stale.remote(dict(untold))
            except Exception:
                # Whatever it was: nothing would be told any more without this thread.
                with self._lock:
                    self._untold += untold
            else:
                with self._lock:
                    if not self._untold:
                        self._all_told.set()
            time.sleep(self._pause_s)

    def _take(self) -> Counter[str]:
        """All that is untold; if there is nothing, nobody tells any more."""
        with self._lock:
            untold, self._untold = self._untold, Counter()
            self._is_telling = bool(untold)
            return untold
