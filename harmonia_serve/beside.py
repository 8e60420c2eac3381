"""Work that goes on beside what started it, in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread

__all__ = ["begun"]


def begun(work: Callable[[], None]) -> Future[None]:
    """Begin it; the future has what becomes of it. It keeps nobody from ending."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    Thread(target=run, daemon=True).start()
    return future
