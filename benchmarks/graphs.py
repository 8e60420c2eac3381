"""The graphs of the workloads, and what is known of a graph without running it.

Only the standard library is used: this runs in the environment of each peer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = [
    "Graph",
    "Task",
    "chain",
    "critical_path",
    "fan",
    "graph_of",
    "levels",
    "lower_bound",
    "order_problems",
    "single",
    "stencil",
]


@dataclass(frozen=True, slots=True)
class Task:
    """What one task does, and after whom. `takes`: it is given the values of those."""

    name: str
    action: str
    amount: float = 0
    after: tuple[str, ...] = ()
    takes: bool = False


#: Tasks in an order in which each comes after all that it depends on.
Graph = tuple[Task, ...]


def graph_of(rows: Iterable[Iterable[object]]) -> Graph:
    """The graph again, of what JSON makes of it."""
    return tuple(
        Task(str(name), str(action), float(amount), tuple(after), bool(takes))  # type: ignore
        for name, action, amount, after, takes in rows
    )


def single(action: str, amount: float = 0) -> Graph:
    """One task."""
    return (Task("only", action, amount),)


def chain(length: int, action: str, amount: float = 0, *, takes: bool = False) -> Graph:
    """One after the other; with `takes` each is given what the one before has made."""
    return tuple(
        Task(
            f"t{number}",
            action,
            amount,
            (f"t{number - 1}",) if number else (),
            takes and number > 0,
        )
        for number in range(length)
    )


def fan(width: int, *, payload_bytes: int = 0) -> Graph:
    """One task, then many at once, then one after all of them, which with payloads takes them."""
    middle = tuple(
        Task(f"m{number}", "payload" if payload_bytes else "noop", payload_bytes, ("first",))
        for number in range(width)
    )
    last = Task(
        "last",
        "collect" if payload_bytes else "noop",
        0,
        tuple(task.name for task in middle),
        bool(payload_bytes),
    )
    return (Task("first", "noop"), *middle, last)


def stencil(width: int, steps: int, action: str, amount: float) -> Graph:
    """Each task is after its own and its neighbours' of the step before: a radix of 3."""
    return tuple(
        Task(
            f"s{step}p{place}",
            action,
            amount,
            tuple(
                f"s{step - 1}p{near}"
                for near in (place - 1, place, place + 1)
                if step and 0 <= near < width
            ),
        )
        for step in range(steps)
        for place in range(width)
    )


def levels(graph: Graph) -> list[list[Task]]:
    """Tasks by the longest way to them: a level needs only the ones before it."""
    depth: dict[str, int] = {}
    found: list[list[Task]] = []
    for task in graph:
        level = max((depth[name] + 1 for name in task.after), default=0)
        depth[task.name] = level
        if level == len(found):
            found.append([])
        found[level].append(task)
    return found


def critical_path(graph: Graph, seconds: Mapping[str, float]) -> float:
    """The longest sum of durations along the edges."""
    end: dict[str, float] = {}
    for task in graph:
        end[task.name] = max((end[name] for name in task.after), default=0.0) + seconds[task.name]
    return max(end.values(), default=0.0)


def lower_bound(graph: Graph, seconds: Mapping[str, float], slots: int | None = None) -> float:
    """No schedule is shorter. `slots`: how many tasks may run at once; None: any number."""
    longest = critical_path(graph, seconds)
    return longest if slots is None else max(longest, sum(seconds.values()) / slots)


def order_problems(
    needed: Mapping[str, Iterable[str]], times: Mapping[str, tuple[int, int]]
) -> list[str]:
    """Who began before one that it needs had ended, by times of (beginning, end)."""
    return [
        f"{name} began before {other} had ended"
        for name, others in needed.items()
        for other in others
        if times[name][0] < times[other][1]
    ]
