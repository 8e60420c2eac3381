"""The ground that the simulation stands on: time that jumps, processes that stop, wake and die."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.simulation.virtual_loop import (
    NothingLeft,
    Process,
    VirtualLoop,
    current_process,
    pass_time,
    run_virtually,
)

Main = Callable[[VirtualLoop], Coroutine[Any, Any, Any]]


async def tick(told: list[float], loop: VirtualLoop, every_s: float) -> None:
    while True:
        await pass_time(every_s)
        told.append(round(loop.time(), 6))


def test_time_passes_as_fast_as_it_is_asked_to() -> None:
    async def main(loop: VirtualLoop) -> float:
        async with asyncio.timeout(4_000_000):
            await pass_time(3_000_000)
        return loop.time()

    assert run_virtually(main) == 3_000_000


def test_timers_fire_in_their_order() -> None:
    async def main(loop: VirtualLoop) -> list[int]:
        told: list[int] = []
        for number in (3, 1, 2):
            loop.call_later(number, told.append, number)
        await pass_time(5)
        return told

    assert run_virtually(main) == [1, 2, 3]


def test_a_stopped_process_does_nothing_and_then_all_at_once() -> None:
    async def main(loop: VirtualLoop) -> list[float]:
        told: list[float] = []
        process = Process(loop, "p")
        process.spawn(tick(told, loop, 1.0))
        await pass_time(1.5)
        process.stop()
        await pass_time(5)
        assert told == [1.0]
        process.resume()
        await pass_time(1.2)
        return told

    assert run_virtually(main) == [1.0, 6.5, 7.5]


def test_a_dead_process_does_nothing_any_more_and_is_mourned() -> None:
    async def main(loop: VirtualLoop) -> tuple[list[float], list[str]]:
        told: list[float] = []
        mourned: list[str] = []
        process = Process(loop, "p")
        process.when_dead(lambda: mourned.append("as it died"))
        task = process.spawn(tick(told, loop, 1.0))
        await pass_time(2.5)
        process.kill()
        process.resume()
        process.when_dead(lambda: mourned.append("long dead"))
        await pass_time(5)
        assert not task.done(), "nothing of it runs, not even its end"
        return told, mourned

    assert run_virtually(main) == ([1.0, 2.0], ["as it died", "long dead"])


def test_what_a_process_starts_is_of_the_process() -> None:
    async def main(loop: VirtualLoop) -> list[str]:
        names: list[str] = []

        async def child() -> None:
            names.append(current_process().name)

        async def parent() -> None:
            await asyncio.gather(child(), child())
            loop.call_later(1, lambda: names.append(current_process().name))

        Process(loop, "p").spawn(parent())
        await pass_time(2)
        return names

    assert run_virtually(main) == ["p", "p", "p"]


def test_what_blocks_runs_at_once_and_in_the_loop() -> None:
    async def main(loop: VirtualLoop) -> Any:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return await asyncio.to_thread(lambda: asyncio.get_running_loop() is loop)

    assert run_virtually(main) is True


def test_to_wait_for_nothing_is_an_error() -> None:
    loop = VirtualLoop()
    waiting = loop.create_future()
    with pytest.raises(NothingLeft):
        loop.run_until_complete(waiting)
    loop.close()


def test_nothing_is_left_when_a_run_ends() -> None:
    ended: list[str] = []

    async def forever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def main(loop: VirtualLoop) -> None:
        for name in ("runs", "stopped", "dead"):
            process = Process(loop, name)
            process.spawn(forever(name))
            await pass_time(1)
            {"runs": lambda: None, "stopped": process.stop, "dead": process.kill}[name]()

    run_virtually(main)
    assert sorted(ended) == ["dead", "runs", "stopped"]
