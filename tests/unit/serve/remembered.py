"""How the gateway in memory keeps its promise about idempotency keys."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any

from harmonia_actors.core.errors import ComponentFailed, Conflict
from harmonia_serve.gateway import Once

__all__ = ["Remembered", "made_once"]

Method = Callable[..., Coroutine[Any, Any, Any]]


class Remembered:
    """Each key's request, with what came of it; what is refused is not remembered."""

    def __init__(self) -> None:
        self.requests: dict[Once, tuple[Any, Any]] = {}


def made_once(method: Method) -> Method:
    """A method of a gateway with `remembered`, that is carried out once for each `once`."""

    @functools.wraps(method)
    async def call(self: Any, *given: Any, once: Once | None = None, **named: Any) -> Any:
        if once is None:
            return await method(self, *given, **named)
        request = (method.__name__, given, named)
        requests = self.remembered.requests
        if once not in requests:
            try:
                requests[once] = request, await method(self, *given, **named)
            except ComponentFailed as error:
                requests[once] = request, error
        said, outcome = requests[once]
        if said != request:
            raise Conflict(
                f"the Idempotency-Key '{once.key}' was sent before with another request",
                {"idempotency_key": once.key},
            )
        if isinstance(outcome, ComponentFailed):
            raise outcome
        return outcome

    return call
