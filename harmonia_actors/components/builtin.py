"""Component `harmonia`: small actions for glue, try-outs and measurements."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from pydantic import Field

from harmonia_actors.components.contract import ActionError, Component

__all__ = ["component"]

#: Longest sleep of one task, in seconds.
SLEEP_S_MAX = 30 * 86_400.0
#: Largest argument of the naive Fibonacci: 1.6 times the work for each step.
FIBONACCI_N_MAX = 45

component = Component("harmonia", description="Built-in actions for glue and try-outs")


@component.action
def noop() -> dict[str, Any]:
    """Do nothing."""
    return {}


@component.action
async def sleep(seconds: Annotated[float, Field(ge=0, le=SLEEP_S_MAX)]) -> dict[str, float]:
    """Wait without holding a process."""
    await asyncio.sleep(seconds)
    return {"slept_seconds": seconds}


@component.action
def echo(value: Any) -> dict[str, Any]:
    """Give back the value it was given."""
    return {"value": value}


@component.action
def fail(
    message: str = "failed on request",
    code: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")] = "FAILED",
    retriable: bool = True,
) -> dict[str, Any]:
    """Fail with the given message and code."""
    raise ActionError(message, code=code, retriable=retriable)


@component.action
def fibonacci(n: Annotated[int, Field(ge=0, le=FIBONACCI_N_MAX)]) -> dict[str, int]:
    """The nth Fibonacci number by naive recursion: pure work for the CPU."""
    return {"value": _fibonacci(n)}


def _fibonacci(n: int) -> int:
    return n if n < 2 else _fibonacci(n - 1) + _fibonacci(n - 2)
