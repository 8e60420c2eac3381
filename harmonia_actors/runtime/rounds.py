"""Many questions in one call, as in a group commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Rounds"]

_Q = TypeVar("_Q")
_A = TypeVar("_A")


class Rounds(Generic[_Q, _A]):
    """Asks all that has come while a round was under way together in the next round."""

    def __init__(self, ask_all: Callable[[Sequence[_Q]], Awaitable[_A]]) -> None:
        self._ask_all = ask_all
        self._questions: list[_Q] = []
        self._next: asyncio.Future[_A] | None = None
        self._running: asyncio.Task[None] | None = None

    async def ask(self, question: _Q) -> _A:
        """The answer of the round that this question goes with: to all that was asked in it."""
        loop = asyncio.get_running_loop()
        if self._next is None:
            self._next = loop.create_future()
        self._questions.append(question)
        answer = self._next
        if self._running is None:
            self._running = loop.create_task(self._run())
        # The round goes on for the others if this one does not wait any more.
        return await asyncio.shield(answer)

    async def _run(self) -> None:
        try:
            while self._next is not None:
                questions, self._questions = self._questions, []
                answer, self._next = self._next, None
                try:
                    answer.set_result(await self._ask_all(questions))
                except Exception as error:
                    answer.set_exception(error)
                except asyncio.CancelledError:
                    # Those who wait are not to end by it, nor to wait for ever.
                    answer.set_exception(RuntimeError("the round was broken off"))
                    this = asyncio.current_task()
                    if this is not None and this.cancelling():
                        raise
        finally:
            self._running = None
