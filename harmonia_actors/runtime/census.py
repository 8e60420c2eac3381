"""Asks all task actors what they run of executions that have a new owner.

Whatever nobody tells of is started again, so nobody may be passed over: who is silent is asked
until he answers or is dead, and if that takes too long he is ended before his attempts are given
up. Executions that change owner together are asked for together.
This module must not know Ray.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from harmonia_actors.core import stimuli as st
from harmonia_actors.runtime.orders import AttemptId, Found, Report
from harmonia_actors.runtime.rounds import Rounds
from harmonia_actors.runtime.silence import Gone, Patience, ask, unless_silent

__all__ = ["AskedActor", "Census", "CensusCluster", "CensusTaker", "CensusTimes"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Census:
    """What task actors say of an execution's attempts after a change of owner."""

    #: (task, attempt) of those that run, or have ended without the former owner having taken it in.
    adopted: frozenset[tuple[int, int]] = frozenset()
    #: Outcomes of those that have ended.
    outcomes: Sequence[st.Stimulus] = ()


class AskedActor(Protocol):
    """A task actor, as the census sees it."""

    @property
    def name(self) -> str:
        """Its name; unique for ever."""
        ...

    async def census(self, asked: Sequence[tuple[str, int]], owner: str) -> Found:
        """What it has of executions with these epochs. Raises what `silence` knows."""
        ...


_A = TypeVar("_A", bound=AskedActor)
_A_co = TypeVar("_A_co", bound=AskedActor, covariant=True)

#: Who tells, what runs there, and starts and outcomes of what has ended there.
_Told = tuple[_A, list[AttemptId], list[Report]]


class CensusCluster(Protocol[_A_co]):
    """Who knows the task actors. It may be restarted, but is never dead for good."""

    async def actors(self) -> Sequence[_A_co]:
        """All that may run something. Raises Silent."""
        ...

    async def lost(self, name: str) -> None:
        """End a task actor; returns once its end is under way. Raises Silent."""
        ...


@dataclass(frozen=True, slots=True)
class CensusTimes:
    """How patient the census is."""

    patience: Patience
    #: Who has not answered for so long is ended.
    silence_s_max: float


class CensusTaker(Generic[_A]):
    """Takes censuses for one owner; as many at a time as there are."""

    def __init__(self, cluster: CensusCluster[_A], owner: str, times: CensusTimes) -> None:
        self._cluster = cluster
        self._owner = owner
        self._silence_s_max = times.silence_s_max
        self._for_ever = replace(times.patience, silent_s_max=float("inf"))
        self._rounds = Rounds(self._ask_all)

    async def take(self, execution_id: str, epoch: int) -> Sequence[_Told[_A]]:
        """Let all task actors know the epoch; what each of them has of the execution."""
        told = await self._rounds.ask((execution_id, epoch))
        return told.get(execution_id, ())

    async def _ask_all(self, asked: Sequence[tuple[str, int]]) -> dict[str, list[_Told[_A]]]:
        actors = await ask(self._cluster.actors, self._for_ever, "the task pool")
        answers = await asyncio.gather(*(self._ask(actor, asked) for actor in actors))
        told: dict[str, list[_Told[_A]]] = {}
        for actor, found in zip(actors, answers, strict=True):
            for execution_id, (running, ended) in found.items():
                told.setdefault(execution_id, []).append((actor, running, ended))
        return told

    async def _ask(self, actor: _A, asked: Sequence[tuple[str, int]]) -> Found:
        what = f"task actor {actor.name}"
        while True:
            try:
                answer = ask(lambda: actor.census(asked, self._owner), self._for_ever, what)
                return await unless_silent(answer, self._silence_s_max)
            except Gone:
                return {}
            except TimeoutError:
                _log.warning(
                    "%s has not told for %g s what it runs: it is ended", what, self._silence_s_max
                )
            # It is asked once more: only its death, or its answer after all, ends the question.
            await ask(lambda: self._cluster.lost(actor.name), self._for_ever, "the task pool")
