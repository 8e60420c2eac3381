"""The actions of the workloads as a component of Harmonia, loaded with `--components`."""

from __future__ import annotations

from typing import Any

from benchmarks import actions
from harmonia_actors.components.contract import Component

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
