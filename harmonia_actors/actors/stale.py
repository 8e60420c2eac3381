"""Tells the supervisor what came from those who were succeeded; it adds up what all tell."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from ray.exceptions import RayError

from harmonia_actors.actors.names import find_actor, supervisor_name
from harmonia_actors.runtime.stale import Stale

__all__ = ["StaleTeller"]


class StaleTeller:
    """Implements `NoteStale`: from any thread, and whether or not the supervisor is there."""

    def __init__(
        self, namespace: str, find: Callable[[str, str], Any] = find_actor, again_s: float = 1.0
    ) -> None:
        self._namespace = namespace
        self._find = find
        self._again_s = again_s
        self._lock = threading.Lock()
        self._untold: Counter[str] = Counter()
        self._telling: threading.Thread | None = None

    def __call__(self, what: Stale, count: int) -> None:
        """Note it, and tell of it soon."""
        with self._lock:
            self._untold[what] += count
            if self._telling is None:
                # A thread, because looking for an actor may take as long as Ray likes.
                self._telling = threading.Thread(target=self._tell, daemon=True)
                self._telling.start()

    def flush(self, seconds: float) -> None:
        """Wait until all is told, but not for long."""
        telling = self._telling
        if telling is not None:
            telling.join(seconds)

    def _tell(self) -> None:
        while True:
            with self._lock:
                untold, self._untold = self._untold, Counter()
                if not untold:
                    self._telling = None
                    return
            try:
                supervisor = self._find(supervisor_name(self._namespace), self._namespace)
                supervisor.note_stale.remote(dict(untold))
            except (RayError, ValueError, OSError):
                with self._lock:
                    self._untold += untold
                time.sleep(self._again_s)
