"""What holders have asked the pool for, and what each of them has by which of his questions.

Calls are repeated for as long as they are not known to have been heard, by pools that come and go:
whatever is said twice must change nothing the second time. This module must not know Ray.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Granted", "Loans", "Questions"]

#: Questions of one holder that may be asked again, besides those that wait.
_ASKED_KEPT = 100

#: (name, node id, handle) of each task actor that is granted, or the reason why never.
Granted = tuple[Sequence[tuple[str, str, Any]], str]


class Questions:
    """Questions of one holder: all that wait, and those that were answered last."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Granted]] = {}
        self._answered: OrderedDict[str, asyncio.Future[Granted]] = OrderedDict()

    def find(self, request: str) -> asyncio.Future[Granted] | None:
        """The answer to a question, or what will be the answer; None if it is not known."""
        return self._waiting.get(request) or self._answered.get(request)

    def add(self, request: str, answer: asyncio.Future[Granted]) -> None:
        """Remember a question."""
        if answer.done():
            self._has_answer(request, answer)
        else:
            self._waiting[request] = answer
            answer.add_done_callback(lambda answer: self._has_answer(request, answer))

    def _has_answer(self, request: str, answer: asyncio.Future[Granted]) -> None:
        self._waiting.pop(request, None)
        self._answered[request] = answer
        while len(self._answered) > _ASKED_KEPT:
            self._answered.popitem(last=False)


@dataclass(slots=True)
class Loans:
    """By actor, who has it by which of his questions, each as often as he has."""

    _lent: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)

    def begin(self, names: Sequence[str], holder: str, request: str) -> None:
        """A question was granted these."""
        for name in names:
            self._lent.setdefault(name, Counter())[(holder, request)] += 1

    def end(self, name: str, holder: str, request: str) -> bool:
        """It is given back. False if there is no such loan, any more."""
        lent = self._lent.get(name)
        if lent is None or not lent[(holder, request)]:
            return False
        lent[(holder, request)] -= 1
        self._keep(name, +lent)
        return True

    def granted_to(self, holder: str, request: str) -> list[str]:
        """What a question was granted and is held still."""
        return [name for name, lent in self._lent.items() if (holder, request) in lent]

    def forget_actor(self, name: str) -> None:
        """It has died."""
        self._lent.pop(name, None)

    def forget_holder(self, holder: str) -> None:
        """He counts as dead. Should he live after all, he has nothing that he could give back."""
        for name, lent in list(self._lent.items()):
            self._keep(name, Counter({by: n for by, n in lent.items() if by[0] != holder}))

    def _keep(self, name: str, lent: Counter[tuple[str, str]]) -> None:
        if lent:
            self._lent[name] = lent
        else:
            del self._lent[name]
