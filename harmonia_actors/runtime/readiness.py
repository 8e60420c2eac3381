"""How long a start waits for its actors, what it says meanwhile, and how an end leaves none.

A cluster may have no CPU at all until its autoscaler has added a node, which takes minutes: the
start is then the demand that it adds it for, so to give up early is never to get it.
This module must not know Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from harmonia_actors.core.resources import Capacity

__all__ = ["Awaited", "Waiting", "awaited", "end_all", "wait_until_ready"]


@dataclass(frozen=True, slots=True)
class Awaited:
    """What a start waits for, in words, and whether a node that may be added would bring it."""

    text: str
    may_come: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long a start waits."""

    #: While nothing may come that is not there already.
    ready_s_max: float
    #: While a node may be added.
    nodes_s_max: float
    look_s: float = 5.0
    #: What is waited for is said again after so long, as a sign of life.
    say_s: float = 10.0


def awaited(capacity: Capacity, starting: int) -> Awaited:
    """What a start waits for on a cluster like this; so many task actors are still starting."""
    if not starting:
        return Awaited("waiting for execution actors, which register with the store", False)
    may_come = not capacity.complete or any(kind.get("CPU", 0) for kind in capacity.node_types)
    if capacity.total_cpus():
        what = f"waiting for {starting} task actors to start on {capacity.total_cpus()} CPUs"
        return Awaited(f"{what}, or on a node that may be added" if may_come else what, may_come)
    if may_come:
        return Awaited("no node has a CPU yet: waiting for one that may be added", may_come=True)
    return Awaited("no node has a CPU, and no autoscaler adds one: add a node", may_come=False)


def wait_until_ready(
    is_ready: Callable[[float], bool],
    look: Callable[[], Awaited | None],
    times: Waiting,
    say: Callable[[str], None],
    now_s: Callable[[], float] = time.monotonic,
) -> None:
    """Return once `is_ready`, which waits for so many seconds, is True. Raises TimeoutError.

    Where `look` finds out nothing, what it found before still holds.
    """
    begun_s = now_s()
    found = Awaited("waiting for the task pool to answer", may_come=False)
    said, said_s = "", begun_s
    while not is_ready(times.look_s):
        found = look() or found
        waited_s = now_s() - begun_s
        if waited_s >= (times.nodes_s_max if found.may_come else times.ready_s_max):
            raise TimeoutError(f"not ready after {waited_s:.0f} s: {found.text}")
        if found.text != said or now_s() - said_s >= times.say_s:
            say(found.text)
            said, said_s = found.text, now_s()


def end_all(
    listed: Callable[[], Sequence[str]],
    end: Callable[[str], None],
    makers: Collection[str],
    *,
    end_s_max: float,
    pause: Callable[[], None],
    now_s: Callable[[], float] = time.monotonic,
) -> None:
    """End what is listed until nothing is: `makers`, which may be making others, first.

    What one of them was making when it was ended may be listed only afterwards, so nothing must be
    listed twice in a row. Raises TimeoutError with the names of what is left.
    """
    begun_s = now_s()
    empty = 0
    while True:
        names = listed()
        empty = 0 if names else empty + 1
        if empty == 2:
            return
        if now_s() - begun_s >= end_s_max:
            left = ", ".join(sorted(names)[:5])
            raise TimeoutError(f"after {end_s_max:.0f} s there are still {len(names)}: {left}")
        for name in sorted(names, key=lambda name: name not in makers):
            end(name)
        pause()
