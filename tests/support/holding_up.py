"""Tells whether work holds up the loop, or the whole interpreter, that others share."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.scripted_actors import until

__all__ = ["Blocking", "counting_turns"]


class Blocking:
    """Work that blocks its thread until the loop lets it go on; on the loop it never could."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.may_end = threading.Event()

    def wait(self) -> None:
        self.began.set()
        assert self.may_end.wait(5), "it blocks the loop"

    async def let_end(self) -> None:
        await until(self.began.is_set)
        self.may_end.set()


@contextmanager
def counting_turns() -> Iterator[Callable[[], int]]:
    """How often another thread has had the interpreter lock, which it gives back at once."""
    former, ended, taken = sys.getswitchinterval(), threading.Event(), 0

    def take() -> None:
        nonlocal taken
        while not ended.is_set():
            taken += 1
            time.sleep(0)

    other = threading.Thread(target=take)
    sys.setswitchinterval(0.000_1)
    other.start()
    try:
        yield lambda: taken
    finally:
        ended.set()
        other.join()
        sys.setswitchinterval(former)
