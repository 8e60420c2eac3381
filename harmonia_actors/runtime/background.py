"""What goes on beside, whatever goes wrong: tasks that nobody waits for, kept until they end.

Asyncio itself holds no task whose waiting nobody ends, and an error that nobody asks for is seen
by nobody. This module must not know Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from persistence.errors import StoreUnavailable

__all__ = ["BackgroundTasks", "survived"]


class BackgroundTasks:
    """Keeps tasks, and tells what each of them unexpectedly ended with."""

    def __init__(self, unexpected: Callable[[BaseException], None]) -> None:
        self._unexpected = unexpected
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Begin a task."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Cancel all that is under way, and return when it has ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._unexpected(error)


@contextlib.contextmanager
def survived(log: logging.Logger, what: str) -> Iterator[None]:
    """Whatever goes wrong with one thing is logged, and the next is still looked after."""
    try:
        yield
    except (StoreUnavailable, TimeoutError) as error:
        log.warning("%s: %s", what, str(error) or "no answer in time")
    except Exception:
        log.exception("%s", what)
