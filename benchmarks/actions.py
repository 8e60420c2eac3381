"""What the tasks of the workloads do, the same code in every system.

Each action tells when it began and ended, by the clock of the machine that all systems share, so
that the time between two tasks is measured alike everywhere. Only the standard library is used:
this runs in the environment of each peer.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

__all__ = ["Report", "perform", "perform_waiting", "work", "work_s"]

#: {value, began, ended}: what the task has made, and microseconds since the epoch.
Report = dict[str, Any]


def perform(action: str, amount: float, values: list[Any]) -> Report:
    """Do it, holding the process while it lasts."""
    began = time.time_ns()
    if action == "sleep":
        time.sleep(amount)
        value: Any = None
    else:
        value = _compute(action, amount, values)
    return {"value": value, "began": began // 1000, "ended": time.time_ns() // 1000}


async def perform_waiting(action: str, amount: float, values: list[Any]) -> Report:
    """Do it; a sleep lets others use the process."""
    if action != "sleep":
        return perform(action, amount, values)
    began = time.time_ns()
    await asyncio.sleep(amount)
    return {"value": None, "began": began // 1000, "ended": time.time_ns() // 1000}


def _compute(action: str, amount: float, values: list[Any]) -> Any:
    match action:
        case "noop":
            return None
        case "fibonacci":
            return _fibonacci(int(amount))
        case "work":
            return work(int(amount))
        case "count":
            return (values[0] if values else 0) + 1
        case "payload":
            return "x" * int(amount)
        case "collect":
            return sum(len(value) for value in values)
    raise ValueError(f"there is no action {action!r}")


def _fibonacci(n: int) -> int:
    return n if n < 2 else _fibonacci(n - 1) + _fibonacci(n - 2)


def work(rounds: int) -> int:
    """Work for the processor that takes as long as there are rounds, however the clock runs."""
    value = 0
    for step in range(rounds):
        value = (value * 31 + step) & 0xFFFFFF
    return value


def work_s(rounds: int = 200_000, tries: int = 7) -> float:
    """Seconds that one round takes on this machine, undisturbed: the best of some tries."""
    best = float("inf")
    for _ in range(tries):
        begun = time.perf_counter()
        work(rounds)
        best = min(best, time.perf_counter() - begun)
    return best / rounds
