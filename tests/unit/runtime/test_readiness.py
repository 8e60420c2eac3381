"""A start waits longer while a node may come, and says what for; an end leaves nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.readiness import Awaited, Waiting, awaited, end_all, wait_until_ready

HEAD = {"head": {"node:__internal_head__": 1.0}}
TIMES = Waiting(ready_s_max=120, nodes_s_max=1_800, look_s=5, say_s=20)


@pytest.mark.parametrize(
    ("capacity", "words", "may_come"),
    [
        (Capacity({"a": {"CPU": 4.0}}), "waiting for 3 task actors to start on 4 CPUs", False),
        (Capacity({"a": {"CPU": 4.0}}, ({"CPU": 8.0},)), "or on a node that may be added", True),
        (Capacity({"a": {"CPU": 4.0}}, ({"CPU": 0.0, "GPU": 1.0},)), "on 4 CPUs", False),
        (Capacity(HEAD, ({"CPU": 8.0},)), "no node has a CPU yet: waiting for one", True),
        (Capacity(HEAD, complete=False), "no node has a CPU yet: waiting for one", True),
        (Capacity(HEAD), "no autoscaler adds one: add a node", False),
        (Capacity(), "no autoscaler adds one: add a node", False),
    ],
)
def test_what_is_waited_for_is_said(capacity: Capacity, words: str, may_come: bool) -> None:
    found = awaited(capacity, starting=3)
    assert words in found.text
    assert found.may_come == may_come


def test_a_start_that_needs_no_more_task_actors_waits_for_owners() -> None:
    found = awaited(Capacity(HEAD, ({"CPU": 8.0},)), starting=0)
    assert "waiting for execution actors" in found.text
    assert not found.may_come


class Start:
    """A start that is ready after some time, with what it waits for at each time."""

    def __init__(self, ready_s: float, look: Callable[[float], Awaited | None]) -> None:
        self.ready_s = ready_s
        self.look = look
        self.now_s = 0.0
        self.said: list[tuple[float, str]] = []

    def run(self) -> None:
        wait_until_ready(
            self._is_ready,
            lambda: self.look(self.now_s),
            TIMES,
            lambda text: self.said.append((self.now_s, text)),
            lambda: self.now_s,
        )

    def _is_ready(self, within_s: float) -> bool:
        self.now_s = min(self.now_s + within_s, max(self.now_s, self.ready_s))
        return self.now_s >= self.ready_s


def test_who_is_ready_waits_for_nothing() -> None:
    start = Start(3, lambda _: pytest.fail("nobody looks"))
    start.run()
    assert (start.now_s, start.said) == (3, [])


def test_a_start_waits_long_only_while_a_node_may_come() -> None:
    Start(1_799, lambda _: Awaited("a node", may_come=True)).run()
    for may_come, limit_s in ((True, 1_800), (False, 120)):
        start = Start(9_999, lambda _, may=may_come: Awaited("a CPU", may_come=may))
        with pytest.raises(TimeoutError, match=rf"not ready after {limit_s} s: a CPU"):
            start.run()


def test_what_was_found_holds_while_the_pool_does_not_answer() -> None:
    Start(1_000, lambda now_s: Awaited("a node", may_come=True) if now_s < 100 else None).run()
    with pytest.raises(TimeoutError, match="waiting for the task pool to answer"):
        Start(1_000, lambda _: None).run()


def test_what_is_waited_for_is_said_when_it_changes_and_now_and_then() -> None:
    start = Start(
        62, lambda now_s: Awaited("a node" if now_s < 30 else "a task actor", may_come=True)
    )
    start.run()
    assert start.said == [
        (5, "a node"),
        (25, "a node"),
        (30, "a task actor"),
        (50, "a task actor"),
    ]


class Actors:
    """Actors, of which the makers make one more while they are being ended."""

    def __init__(self, *names: str) -> None:
        self.there = list(names)
        self.late: list[str] = []
        self.ended: list[str] = []
        self.lists = 0
        self.immortal: set[str] = set()

    def listed(self) -> list[str]:
        self.lists += 1
        return list(self.there)

    def end(self, name: str) -> None:
        self.ended.append(name)
        if name in self.there and name not in self.immortal:
            self.there.remove(name)

    def pause(self) -> None:
        self.there += self.late
        self.late = []


def end(actors: Actors, end_s_max: float = 60) -> None:
    times = iter(range(1_000))
    end_all(
        actors.listed,
        actors.end,
        {"supervisor", "pool"},
        end_s_max=end_s_max,
        pause=actors.pause,
        now_s=lambda: float(next(times)),
    )


def test_whoever_makes_others_is_ended_first_and_nothing_is_left() -> None:
    actors = Actors("a", "pool", "b", "supervisor")
    actors.late = ["made in between"]
    end(actors)
    assert actors.ended == ["pool", "supervisor", "a", "b", "made in between"]
    assert actors.there == []


def test_what_is_made_at_the_last_moment_is_found_by_the_second_look() -> None:
    actors = Actors()
    actors.late = ["late"]
    end(actors)
    assert actors.ended == ["late"]


def test_what_cannot_be_ended_is_named() -> None:
    actors = Actors("a", "b")
    actors.immortal = {"b"}
    with pytest.raises(TimeoutError, match="after 5 s there are still 1: b"):
        end(actors, end_s_max=5)
