"""Asking somebody until he answers, or is known to be dead.

That somebody does not answer says nothing about his life: a process may be busy, a line cut, a
head node on its way back. Whoever takes silence for death runs twice what runs already, or forgets
what holds a machine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = [
    "Failed",
    "Gone",
    "NotFound",
    "Patience",
    "Silent",
    "ask",
    "foreseen",
    "unless_silent",
]

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Parts of a silence; one in which this process stood still does not count.
_PARTS = 4
_PART_LEAST_S = 0.005
#: A loop with much to do may come so late without having stood still.
_LATE_S = 0.05


class Gone(Exception):
    """Whoever was asked has died and will never answer."""


class NotFound(Exception):
    """Nobody is known by this name just now."""


class Silent(Exception):
    """No answer could be had. Whoever was asked may live, and may have heard."""


class Failed(Silent):
    """Whoever was asked lives, and could not do it."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and for how long somebody is asked."""

    again_s: float = 0.2
    #: The wait doubles from `again_s` up to this.
    again_s_max: float = 5.0
    #: So often in a row must nobody be known by a name until its bearer counts as dead.
    looks: int = 3
    #: Whoever could not be reached for so long, again and again, is given up.
    silent_s_max: float = float("inf")


async def ask(call: Callable[[], Awaitable[_T]], patience: Patience, what: str) -> _T:
    """Call until there is an answer; `what` is what the log says is asked.

    Raises Gone if whoever was asked is dead, and Silent once the patience is at its end.
    """
    loop = asyncio.get_running_loop()
    wait_s = patience.again_s
    not_found = 0
    silent_since_s: float | None = None
    while True:
        asked_s = loop.time()
        try:
            return await call()
        except NotFound as error:
            not_found += 1
            if not_found >= patience.looks:
                raise Gone(str(error)) from error
        except Silent as error:
            not_found = 0
            now_s = loop.time()
            # What lasted long was heard, and has failed only now.
            if silent_since_s is None or now_s - asked_s >= patience.silent_s_max:
                silent_since_s = now_s
                _log.warning("%s: no answer, asking again: %s", what, error)
            if isinstance(error, Failed):
                silent_since_s = now_s
            elif now_s - silent_since_s >= patience.silent_s_max:
                raise
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, patience.again_s_max)


async def unless_silent(
    answer: Coroutine[Any, Any, _T], silent_s: float, may_judge: Callable[[], bool] = lambda: True
) -> _T:
    """The answer, if it comes within so long. Raises TimeoutError.

    Only such time counts in which this process ran, and `may_judge`: whoever stood still sees that
    the time is over before he reads what he was told long ago.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(answer)
    part_s, silent_parts = max(silent_s / _PARTS, _PART_LEAST_S), 0
    try:
        while silent_parts < _PARTS:
            begun_s = loop.time()
            await asyncio.wait([task], timeout=part_s)
            if task.done():
                return task.result()
            if may_judge() and loop.time() - begun_s < 2 * part_s + _LATE_S:
                silent_parts += 1
        raise TimeoutError
    finally:
        task.cancel()


def foreseen(call: Callable[[], Awaitable[_T]]) -> Callable[[], Awaitable[_T]]:
    """The call; any error of it that is none of these says nothing about the life of who is asked.

    He is asked again, as after each that does not: or nobody would hear of his death, and what he
    had would be in use for ever.
    """

    async def call_foreseen() -> _T:
        try:
            return await call()
        except (Gone, NotFound, Silent):
            raise
        except Exception as error:
            _log.exception("an answer cannot be understood")
            raise Failed(repr(error)) from error

    return call_foreseen
