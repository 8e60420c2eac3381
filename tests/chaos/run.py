"""Real chaos: `make chaos`, or `python -m tests.chaos.run --seconds 300 --seed 1`.

Starts Harmonia with a store of its own, keeps starting executions, lets a fault land every few
seconds, and judges in the end. It fails if anything is wrong with a single execution, if some kind
of fault has never landed, or if too little work was done: then it has proved nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random

from tests.chaos.faults import HEAVY, LIGHT, Faults
from tests.chaos.judge import Judgement, judge
from tests.chaos.work import LOADS, Starter
from tests.support.ray_environment import prepare_ray_environment
from tests.support.running import running_service, until

__all__ = ["cause_chaos", "main", "shortfalls"]

#: What would rightly give up under so many faults in so short a time is told to go on.
SETTINGS = {
    "HARMONIA_UP_RESTARTS_MAX": "1000",
    # So that a kill hits any of them, and not the streams of all executions.
    "HARMONIA_BROADCASTERS": "2",
    "HARMONIA_LOST_ATTEMPTS_MAX": "1000",
    "HARMONIA_QUARANTINE_CRASHES": "1000",
}
_STOPPED = "execution actor stopped"
#: Kinds of faults by which no attempt is ever lost.
_SPARE_ATTEMPTS = {"store killed", "store stopped", "store stopped for a minute"}
#: Those of them after which nothing else is started anew that may run attempts.
_END_NO_ATTEMPT = {"store killed", "store stopped"}
_COMPLETED_SHARE = 0.8
_READY_S = 180.0
_END_S = 300.0


def cause_chaos(
    faults: Faults, kinds: Sequence[str], random: Random, every_s: float, starter: Starter
) -> None:
    """Let each kind of fault land, in a random order, with pauses, while executions are started.

    What finds nothing to hit, because that is just being restarted, waits for it.
    """
    for kind in random.sample(kinds, len(kinds)):
        if not starter.goes_on:
            return
        begun_s = time.monotonic()
        until(partial(faults.land, kind), _READY_S, f"something that '{kind}' can hit")
        _say(f"{kind}, after {begun_s - starter.begun_s:.0f} s")
        took_s = time.monotonic() - begun_s
        time.sleep(max(0.0, random.uniform(0.5, 1.5) * every_s - took_s))


def shortfalls(found: Judgement, landed: Counter[str], kinds: Sequence[str]) -> list[str]:
    """Why a run proves too little; empty if it proves something."""
    missing = [f"no '{kind}' has landed" for kind in kinds if not landed[kind]]
    if not found.rerun and not _SPARE_ATTEMPTS.issuperset(kinds):
        missing.append("no attempt was lost: the faults hit nothing that ran")
    if found.rerun and landed and _END_NO_ATTEMPT.issuperset(landed):
        missing.append(f"{found.rerun} attempts were run again, though no fault has ended any")
    completed = found.statuses["completed"]
    if completed < _COMPLETED_SHARE * found.executions or not completed:
        missing.append(f"only {completed} of {found.executions} executions have completed")
    return missing


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long faults land")
    parser.add_argument("--executions", type=int, default=2_000, help="executions, at most")
    parser.add_argument("--load", choices=LOADS, default="usual", help="how much is started")
    parser.add_argument("--every", type=float, default=4.0, help="seconds from fault to fault")
    parser.add_argument("--seed", type=int, default=None, help="for the same work and faults")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="KIND",
        choices=[*LIGHT, *HEAVY],
        default=[*LIGHT, *HEAVY],
        help="kinds of faults, like 'store killed'; all by default",
    )
    given = parser.parse_args(arguments)
    seed = given.seed if given.seed is not None else time.time_ns() % 100_000
    print(f"seed {seed}")
    prepare_ray_environment()
    with tempfile.TemporaryDirectory(prefix="harmonia-chaos-") as directory:
        return _run(Path(directory), Random(seed), given)


def _run(directory: Path, random: Random, given: argparse.Namespace) -> int:
    journal = directory / "journal"
    journal.touch()
    kinds = given.only
    with running_service(directory / "data", settings=SETTINGS) as service:
        faults = Faults(service, random, SETTINGS)
        begun_s = time.monotonic()
        load = LOADS[given.load]
        with Starter(service, random, journal, load=load, most=given.executions) as starter:
            while time.monotonic() - begun_s < given.seconds and starter.goes_on:
                cause_chaos(faults, kinds, random, given.every, starter)
            if _STOPPED in kinds:
                _let_one_wake(faults)
        _say(f"{len(starter.accepted)} executions accepted; no more faults")
        faults.over()
        found = judge(service, starter.accepted, journal, patience_s=_END_S)
    print(
        f"{time.monotonic() - begun_s:.0f} s, {sum(faults.landed.values())} faults: "
        f"{dict(sorted(faults.landed.items()))}\n"
        f"{found.executions} executions ({dict(found.statuses)}), {found.tasks} tasks, "
        f"{found.attempts} attempts, of which {found.rerun} were run again after a loss; "
        f"{found.cancels} cancels acknowledged\n"
        f"{found.audited_events} events audited; {starter.sent_again} requests sent again; "
        f"{len(faults.woken)} stopped execution actors woke, and ended"
    )
    missing = shortfalls(found, faults.landed, kinds)
    if _STOPPED in kinds and not faults.woken:
        missing.append("every execution actor that was stopped went with all of Ray: none woke")
    print(*(found.wrong or missing or ["every execution is exactly right"]), sep="\n")
    return 1 if found.wrong or missing else 0


def _let_one_wake(faults: Faults) -> None:
    """One is stopped and wakes, with nothing else between: what ends all of Ray would end it."""
    faults.over()
    until(partial(faults.land, _STOPPED), _READY_S, f"something that '{_STOPPED}' can hit")
    faults.over()


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
