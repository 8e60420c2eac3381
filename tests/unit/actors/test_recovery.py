"""The census over Ray: fake handles for the pool and for task actors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.exceptions import ActorDiedError, ActorUnavailableError

from harmonia_actors.actors.recovery import RayCensus
from harmonia_actors.core import stimuli as st
from harmonia_actors.runtime.census import CensusTimes
from harmonia_actors.runtime.dispatch import Dispatcher, DispatchLimits
from harmonia_actors.runtime.orders import Found, Report
from harmonia_actors.runtime.silence import Patience
from tests.support.scripted_actors import ManualClock, ScriptedLeases, until

TIMES = CensusTimes(Patience(again_s=0, again_s_max=0), 3_600)
STOPPED = Report("e", st.AttemptStopped(2, 1, 5))


class Method:
    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    async def remote(self, *arguments: Any) -> Any:
        return self.call(*arguments)


class Handle:
    """Methods of an actor, each called as Ray's are."""

    def __init__(self, **methods: Callable[..., Any]) -> None:
        for name, call in methods.items():
            setattr(self, name, Method(call))


class PoolRef:
    """A pool that is dead, then cannot be found, then is on its way back, then answers."""

    def __init__(self, actors: list[tuple[str, str, Any]]) -> None:
        self.errors: list[Exception] = [
            ActorDiedError(),
            *[ValueError("Failed to look up actor")] * 5,
            ActorUnavailableError("restarting", None),
        ]
        self.forgotten = 0
        self.handle = Handle(actors=lambda: actors)

    async def get(self) -> Handle:
        if self.errors:
            raise self.errors.pop(0)
        return self.handle

    def forget(self) -> None:
        self.forgotten += 1


async def test_what_runs_and_what_has_ended_is_adopted_whatever_happens_on_the_way() -> None:
    answers: list[Found | Exception] = [
        ActorUnavailableError("the line was cut", None),
        {"e": ([("e", 1, 1)], [STOPPED])},
    ]

    def census(asked: list[tuple[str, int]], owner: str) -> Found:
        assert (asked, owner) == ([("e", 7)], "heir")
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def dead(*_: Any) -> Found:
        raise ActorDiedError

    runs = Report("e", st.AttemptStopped(1, 1, 6))
    busy = Handle(census=census, settled=lambda attempts: [runs])
    pool = PoolRef([("task-1", "a", busy), ("task-2", "a", Handle(census=dead))])
    taker = RayCensus(pool, "heir", TIMES)  # type: ignore[arg-type]
    told: list[Report] = []
    taker.dispatcher = Dispatcher(
        leases=ScriptedLeases(), tell=told.extend, clock=ManualClock(), limits=DispatchLimits()
    )
    census_of_e = await taker.take("e", 7)
    assert census_of_e.adopted == {(1, 1), (2, 1)}
    assert census_of_e.outcomes == [STOPPED.stimulus]
    assert pool.forgotten == 7
    await until(lambda: told)
    assert told == [runs], "the dispatcher follows what it has adopted"
    await taker.dispatcher.close()
