"""What is asked while a round is under way goes together in the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from harmonia_actors.runtime.rounds import Rounds
from tests.support.scripted_actors import settle


class Asked:
    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.gate = asyncio.Event()
        self.error: BaseException | None = None

    async def __call__(self, questions: Sequence[int]) -> dict[int, int]:
        self.rounds.append(list(questions))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return {question: question * question for question in questions}


async def test_questions_go_together() -> None:
    asked = Asked()
    rounds = Rounds(asked)
    first = asyncio.ensure_future(rounds.ask(1))
    await settle()
    later = [asyncio.ensure_future(rounds.ask(n)) for n in range(2, 1_000)]
    await settle()
    assert asked.rounds == [[1]]
    asked.gate.set()
    assert (await first)[1] == 1
    assert [(await each)[n] for n, each in enumerate(later, 2)] == [n * n for n in range(2, 1_000)]
    assert asked.rounds == [[1], list(range(2, 1_000))]


async def test_a_round_after_all_is_quiet_begins_at_once() -> None:
    asked = Asked()
    asked.gate.set()
    rounds = Rounds(asked)
    for n in range(3):
        assert (await rounds.ask(n))[n] == n * n
    assert asked.rounds == [[0], [1], [2]]


async def test_whoever_does_not_wait_any_more_takes_no_answer_from_others() -> None:
    asked = Asked()
    rounds = Rounds(asked)
    one, other = (asyncio.ensure_future(rounds.ask(n)) for n in (1, 2))
    await settle()
    one.cancel()
    await settle()
    asked.gate.set()
    assert (await other)[2] == 4


async def test_an_error_is_that_of_its_round_alone() -> None:
    asked = Asked()
    rounds = Rounds(asked)
    asked.error = RuntimeError("a defect")
    failing = [asyncio.ensure_future(rounds.ask(n)) for n in (1, 2)]
    asked.gate.set()
    for each in failing:
        with pytest.raises(RuntimeError):
            await each
    asked.error = None
    assert (await rounds.ask(3))[3] == 9


async def test_whoever_waits_for_a_round_that_is_broken_off_does_not_wait_for_ever() -> None:
    """Somebody else has cancelled what the round was waiting for: nobody here is to end by it."""
    asked = Asked()
    rounds = Rounds(asked)
    asked.error = asyncio.CancelledError()
    failing = [asyncio.ensure_future(rounds.ask(1))]
    await settle()
    failing.append(asyncio.ensure_future(rounds.ask(2)))
    await settle()
    asked.gate.set()
    await asyncio.wait(failing, timeout=10)
    for each in failing:
        with pytest.raises(RuntimeError, match="broken off"):
            each.result()
    asked.error = None
    assert (await rounds.ask(3))[3] == 9
