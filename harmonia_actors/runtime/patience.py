"""Waiting for the store to come back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from persistence.errors import StoreUnavailable

__all__ = ["patiently"]

_T = TypeVar("_T")

_FIRST_S = 0.05
_MOST_S = 2.0


async def patiently(call: Callable[[], Awaitable[_T]]) -> _T:
    """Call until the store answers, for ever; every call to it may be repeated."""
    wait_s = _FIRST_S
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, _MOST_S)
