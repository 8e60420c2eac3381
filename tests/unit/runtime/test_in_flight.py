"""How much is handed out at a time, by attempts of an execution and by bytes of all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from harmonia_actors.core.commands import StartAttempt
from harmonia_actors.runtime.in_flight import Backlog, InFlight, size_of
from harmonia_actors.runtime.orders import AttemptOrder
from tests.support.scripted_actors import order, settle


class Line:
    """One execution's backlog; every order has an input of the given size."""

    def __init__(self, room: InFlight, input_bytes: int = 0) -> None:
        self.input = b"x" * input_bytes
        self.handed_out: list[list[int]] = []
        self.backlog = Backlog(room, self.make, self.take)

    def make(self, starts: Sequence[StartAttempt]) -> list[AttemptOrder]:
        return [replace(order(start.task), input=self.input) for start in starts]

    def take(self, orders: Sequence[AttemptOrder]) -> None:
        self.handed_out.append([each.task for each in orders])

    def add(self, *tasks: int) -> None:
        self.backlog.add([StartAttempt(task, 1) for task in tasks])

    def end(self, *tasks: int) -> None:
        for task in tasks:
            self.backlog.ended(task, 1)
        self.backlog.pump()


def test_an_execution_has_so_many_attempts_out_and_goes_on_as_they_end() -> None:
    line = Line(InFlight(attempts_max=3, bytes_max=10**9))
    line.add(*range(5))
    assert line.handed_out == [[0, 1, 2]]
    line.end(1, 2)
    assert line.handed_out == [[0, 1, 2], [3, 4]]


def test_what_is_wide_is_handed_out_together() -> None:
    line = Line(InFlight(attempts_max=1_000, bytes_max=10**9))
    line.add(*range(500))
    assert line.handed_out == [list(range(500))]


async def test_large_inputs_wait_for_room_that_all_executions_share() -> None:
    room = InFlight(attempts_max=100, bytes_max=25_000)
    first, second = Line(room, 10_000), Line(room, 10_000)
    first.add(*range(6))
    count = len(first.handed_out[0])
    assert count < 6
    second.add(*range(6))
    assert second.handed_out == [[0]], "one of each execution always may"
    first.end(*range(count))
    await settle()
    done = [task for tasks in first.handed_out + second.handed_out for task in tasks]
    assert len(done) > count + 1
    for _ in range(12):
        for line in (first, second):
            line.end(*(task for tasks in line.handed_out for task in tasks))
        await settle()
    assert sorted(t for tasks in first.handed_out for t in tasks) == list(range(6))
    assert sorted(t for tasks in second.handed_out for t in tasks) == list(range(6))
    assert room.bytes == 0


async def test_one_that_waits_is_woken_by_another_that_ends() -> None:
    room = InFlight(attempts_max=100, bytes_max=5_000)
    first, second = Line(room, 10_000), Line(room, 0)
    first.add(0)
    second.add(0, 1)
    assert second.handed_out == [[0]]
    first.end(0)
    await settle()
    assert second.handed_out == [[0], [1]]


def test_what_waits_can_be_withdrawn_and_never_starts() -> None:
    line = Line(InFlight(attempts_max=1, bytes_max=10**9))
    line.add(0, 1, 2)
    assert line.backlog.withdraw(1, 1)
    assert not line.backlog.withdraw(0, 1), "it is out"
    line.end(0)
    assert line.handed_out == [[0], [2]]


async def test_an_execution_that_leaves_gives_its_room_back() -> None:
    room = InFlight(attempts_max=100, bytes_max=5_000)
    line = Line(room, 10_000)
    line.add(0, 1)
    line.backlog.close()
    await asyncio.sleep(0)
    line.backlog.pump()
    assert (room.bytes, line.handed_out) == (0, [[0]])


def test_an_order_counts_with_all_that_it_carries() -> None:
    plain = order(0)
    loaded = replace(plain, input=plain.input + b"x" * 5, values={"": b"12345", "a": "url"})
    assert size_of(loaded) - size_of(plain) == 13
