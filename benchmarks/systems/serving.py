"""The process of a system: takes jobs from standard input, one JSON line each, and answers alike.

It ends the system when its input is closed, which happens too if the runner is killed. Only the
standard library is used: this runs in the environment of each peer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Protocol

from benchmarks.jobs import Job, OfferLoad, Outcome, job_of

__all__ = ["CannotDo", "System", "offer", "serve", "until_the_end"]


class CannotDo(Exception):
    """The system has no way to do this; the text says why."""


class System(Protocol):
    """How a system is started, runs jobs, and is stopped."""

    def start(self) -> dict[str, Any]:
        """Start it; returns once it can run jobs. What is worth knowing of it."""

    def run(self, job: Job) -> Outcome:
        """Run a job. Raises CannotDo."""

    def counters(self) -> dict[str, float]:
        """What its store has counted since it was started; empty without a store that counts."""

    def stop(self) -> None:
        """End all that was started."""


def serve(system: System) -> None:
    """Be the process of a system."""
    # Libraries print what they like: that must not get between the answers.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(document: dict[str, Any]) -> None:
        channel.write(json.dumps(document) + "\n")
        channel.flush()

    try:
        begun = time.monotonic()
        facts = system.start()
        say({"ready_s": time.monotonic() - begun, "facts": facts})
        for line in sys.stdin:
            say(_answer(system, job_of(json.loads(line))))
    finally:
        system.stop()


def _answer(system: System, job: Job) -> dict[str, Any]:
    before = system.counters()
    try:
        outcome = system.run(job)
    except CannotDo as reason:
        return {"cannot": str(reason)}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    after = system.counters()
    counted = {name: value - before.get(name, 0) for name, value in after.items()}
    return {"outcome": asdict(outcome), "counters": counted}


def until_the_end(job: OfferLoad) -> None:
    """For systems that have no moment at which an execution is accepted. Raises CannotDo."""
    if job.accepted_only:
        raise CannotDo("nothing is accepted for good before it has ended")


async def offer(job: OfferLoad, run_one: Callable[[], Awaitable[bool]]) -> Outcome:
    """Start `run_one` at its times; it says whether all went well.

    A latency counts from when it should have begun, so that a system which cannot keep up does not
    hide that by being asked less.
    """
    loop = asyncio.get_running_loop()
    outcome = Outcome(0)
    begun = loop.time() + 0.05

    async def one(due: float) -> None:
        try:
            if await run_one():
                outcome.latencies_ms.append((loop.time() - due) * 1000)
            else:
                outcome.note_failure("it did not complete")
        except Exception as error:
            outcome.note_failure(repr(error))

    running = []
    for number in range(round(job.per_s * job.seconds)):
        due = begun + number / job.per_s
        if due > loop.time():
            await asyncio.sleep(due - loop.time())
        running.append(asyncio.create_task(one(due)))
    if running:
        _, late = await asyncio.wait(running, timeout=job.patience_s)
        for task in late:
            task.cancel()
            outcome.note_failure("no end within the patience of the job")
    outcome.seconds = loop.time() - begun
    return outcome
