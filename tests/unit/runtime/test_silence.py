"""Silence is not death: who does not answer is asked again, and only death ends the asking."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest

from harmonia_actors.runtime.silence import (
    Failed,
    Gone,
    NotFound,
    Patience,
    Silent,
    ask,
    unless_silent,
)
from tests.simulation.virtual_loop import VirtualLoop, pass_time, run_virtually

QUICK = Patience(again_s=0, again_s_max=0)


class Somebody:
    """Answers what the test has written down, one after the other."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)

    async def __call__(self) -> str:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_whoever_is_silent_is_asked_again() -> None:
    somebody = Somebody(*[Silent("no line")] * 50, Failed("no store"), NotFound(), "here")
    assert await ask(somebody, QUICK, "x") == "here"


async def test_death_ends_the_asking() -> None:
    with pytest.raises(Gone, match="killed"):
        await ask(Somebody(Silent(), Gone("killed"), "too late"), QUICK, "x")


async def test_a_name_that_nobody_bears_is_looked_for_again() -> None:
    assert await ask(Somebody(NotFound(), NotFound(), "here"), QUICK, "x") == "here"
    assert await ask(Somebody(*[NotFound(), NotFound(), Silent()] * 5, "here"), QUICK, "x")
    with pytest.raises(Gone, match="no such actor"):
        await ask(Somebody(*[NotFound("no such actor")] * 3), QUICK, "x")


async def test_patience_may_have_an_end() -> None:
    ends = Patience(again_s=0.001, again_s_max=0.001, silent_s_max=0.02)
    with pytest.raises(Silent, match="no line"):
        await ask(Somebody(*[Silent("no line")] * 10_000), ends, "x")


async def test_whoever_answers_that_it_failed_is_not_given_up() -> None:
    ends = Patience(again_s=0, again_s_max=0, silent_s_max=0.01)
    loop = asyncio.get_running_loop()
    until_s = loop.time() + 0.05

    async def fails_for_long() -> str:
        if loop.time() < until_s:
            raise Failed("the store is away")
        return "done"

    assert await ask(fails_for_long, ends, "x") == "done"


async def test_a_call_that_lasted_long_was_heard() -> None:
    ends = Patience(again_s=0, again_s_max=0, silent_s_max=0.02)
    lasted = 0

    async def lasts() -> str:
        nonlocal lasted
        lasted += 1
        if lasted > 4:
            return "still here"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.03):
                await asyncio.Event().wait()
        raise Silent("the line was cut")

    assert await ask(lasts, ends, "x") == "still here"


def test_who_answers_in_time_is_heard_and_who_does_not_is_silent() -> None:
    async def run(loop: VirtualLoop) -> None:
        async def answer(after_s: float) -> str:
            await pass_time(after_s)
            return "here"

        assert await unless_silent(answer(3.9), 4) == "here"
        with pytest.raises(TimeoutError):
            await unless_silent(answer(4.1), 4)
        assert loop.time() == pytest.approx(7.9)

    run_virtually(run)


async def test_what_is_raised_instead_of_an_answer_is_raised() -> None:
    with pytest.raises(Gone):
        await unless_silent(Somebody(Gone())(), 60)


def test_while_nobody_may_judge_nobody_is_silent() -> None:
    async def run(loop: VirtualLoop) -> None:
        with pytest.raises(TimeoutError):
            await unless_silent(pass_time(1_000), 4, lambda: loop.time() > 50)
        assert 53 < loop.time() < 56

    run_virtually(run)


async def test_who_stood_still_hears_first_what_he_was_told_meanwhile() -> None:
    """By a thread of another: when he wakes, the time is over before that has had its turn."""
    loop, heard = asyncio.get_running_loop(), asyncio.Event()

    def stand_still() -> None:
        until_s = time.monotonic() + 0.5
        while time.monotonic() < until_s:
            pass
        threading.Timer(0.03, lambda: loop.call_soon_threadsafe(heard.set)).start()

    # In the last part of the time: what comes in an earlier one would be heard in the next.
    loop.call_later(0.35, stand_still)
    assert await unless_silent(heard.wait(), 0.4)


@pytest.mark.parametrize("silent_s", [0, 0.001, 0.002, 0.02])
async def test_however_short_the_patience_it_ends(silent_s: float) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(unless_silent(asyncio.Event().wait(), silent_s), 20)
