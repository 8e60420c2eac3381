"""The actions of the workloads as a component of Harmonia, loaded with `--components`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from benchmarks import actions
from harmonia_actors.components.contract import Component, TaskContext

__all__ = ["component"]

component = Component("bench", "Actions of the benchmarks")


@component.action
def noop() -> actions.Report:
    """Do nothing."""
    return actions.perform("noop", 0, [])


@component.action
def fibonacci(amount: float) -> actions.Report:
    """Naive recursion."""
    return actions.perform("fibonacci", amount, [])


@component.action
def work(amount: float) -> actions.Report:
    """So many rounds of work for the processor."""
    return actions.perform("work", amount, [])


@component.action
def count(values: list[Any] | None = None) -> actions.Report:
    """One more than the task before."""
    return actions.perform("count", 0, values or [])


@component.action
def payload(amount: float) -> actions.Report:
    """A text of so many bytes."""
    return actions.perform("payload", amount, [])


@component.action
def collect(values: list[Any]) -> actions.Report:
    """The length of all texts together."""
    return actions.perform("collect", 0, values)


@component.action
async def sleep(amount: float) -> actions.Report:
    """Wait without holding a process."""
    return await actions.perform_waiting("sleep", amount, [])


@component.action
async def emit(
    gate: str,
    per_s: float,
    count: int,
    after_s: float = 0.0,
    size: int = 0,
    *,
    context: TaskContext,
) -> int:
    """Wait until a file is there, then report progress at fixed times: each report is an event."""
    if gate not in _gates:
        _gates[gate] = asyncio.ensure_future(_opened(Path(gate)))
    await asyncio.shield(_gates[gate])
    loop = asyncio.get_running_loop()
    begun = loop.time() + after_s
    for number in range(count):
        await asyncio.sleep(max(0.0, begun + number / per_s - loop.time()))
        context.progress(0.5, f"{number}".ljust(size, "."))
    return count


#: One look for all attempts that wait at the same gate.
_gates: dict[str, asyncio.Future[None]] = {}
_LOOK_S = 0.02


async def _opened(gate: Path) -> None:
    # Whoever opens it is another process.
    while not gate.exists():  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(_LOOK_S)
