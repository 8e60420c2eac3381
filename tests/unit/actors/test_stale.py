"""What did not count reaches the supervisor, whether or not it is there just now."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from harmonia_actors.actors.stale import StaleTeller

QUICK_S = 0.001


class Supervisor:
    """Adds up what it is told; is not there at first for so many looks."""

    def __init__(self, *, away: int = 0, error: type[Exception] = ValueError) -> None:
        self.away = away
        self.error = error
        self.looks = 0
        self.heard: Counter[str] = Counter()
        self.names: set[tuple[str, str]] = set()
        self.waits = threading.Event()
        self.waits.set()

    def find(self, name: str, namespace: str) -> Any:
        self.waits.wait(10)
        self.names.add((name, namespace))
        self.looks += 1
        if self.looks <= self.away:
            raise self.error(f"there is no actor {name}")
        return SimpleNamespace(note_stale=SimpleNamespace(remote=self.heard.update))


def test_what_is_noted_from_many_threads_is_all_told() -> None:
    supervisor = Supervisor()
    teller = StaleTeller("harmonia", supervisor.find, QUICK_S)
    threads = [
        threading.Thread(target=lambda: [teller("reports_ignored", 2) for _ in range(100)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    teller("commits_refused", 1)
    teller.flush(10)
    assert supervisor.heard == {"reports_ignored": 800, "commits_refused": 1}
    assert supervisor.names == {("harmonia:supervisor", "harmonia")}


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_a_supervisor_that_is_away_is_told_once_it_is_back(error: type[Exception]) -> None:
    supervisor = Supervisor(away=3, error=error)
    teller = StaleTeller("harmonia", supervisor.find, QUICK_S)
    teller("orders_refused", 1)
    teller.flush(10)
    assert (supervisor.looks, supervisor.heard) == (4, {"orders_refused": 1})


def test_whoever_ends_does_not_wait_for_long() -> None:
    supervisor = Supervisor()
    supervisor.waits.clear()
    teller = StaleTeller("harmonia", supervisor.find, QUICK_S)
    teller("commits_refused", 1)
    teller.flush(0.01)
    assert not supervisor.heard
    supervisor.waits.set()
    teller.flush(10)
    assert supervisor.heard == {"commits_refused": 1}


async def test_whoever_ends_does_not_wait_for_a_thread_to_wait_in() -> None:
    """All of them may stand before a store of blobs that does not answer."""
    supervisor, stuck = Supervisor(), threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    standing = loop.run_in_executor(None, stuck.wait, 10)
    teller = StaleTeller("harmonia", supervisor.find, QUICK_S)
    teller("commits_refused", 1)
    await teller.last_words(0.01)
    assert not standing.done()
    stuck.set()
    await standing


def test_much_is_told_by_few_calls() -> None:
    supervisor = Supervisor()
    supervisor.waits.clear()
    teller = StaleTeller("harmonia", supervisor.find, QUICK_S)
    for _ in range(1_000):
        teller("reports_ignored", 1)
    supervisor.waits.set()
    teller.flush(10)
    assert supervisor.heard == {"reports_ignored": 1_000}
    assert supervisor.looks <= 2


def test_nothing_noted_is_nothing_told() -> None:
    supervisor = Supervisor()
    StaleTeller("harmonia", supervisor.find, QUICK_S).flush(0.01)
    assert not supervisor.looks
