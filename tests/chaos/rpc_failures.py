"""Calls between Ray's processes get lost: `python -m tests.chaos.rpc_failures`, in ten minutes.

Ray can lose its own remote calls on purpose, and whoever called only hears that the other side is
not available. Whether it was called, is called still or has answered, he cannot know: the request
may have been lost, the answer, or the connection while the server was at work. This starts
Harmonia once for each of these three ways and each kind of calls, keeps it busy, kills actors so
that others are made and looked for, and judges as chaos does. Besides, there are tasks that never
end by themselves: whoever starts, stops or times out one must be heard. It fails if anything is
wrong with a single execution, or if Ray's own logs say that too few calls were lost.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random

from harmonia_serve.cli.installation.ray_environment import ray_directory
from tests.chaos.endless import start_endless, wrong_with_endless
from tests.chaos.faults import Faults
from tests.chaos.judge import Judgement, judge
from tests.chaos.run import SETTINGS, cause_chaos, shortfalls
from tests.chaos.work import Load, Starter
from tests.support.ray_environment import prepare_ray_environment
from tests.support.running import running_service

__all__ = ["CALLS", "WAYS", "Calls", "environment", "lost_calls", "main"]


@dataclass(frozen=True)
class Calls:
    """Remote calls by Ray's names, of which so many of a hundred get lost."""

    percent: int
    names: tuple[str, ...]
    #: Fewer than so many lost ones prove nothing.
    least: int = 5


_OF_ACTORS = "calls of actors"

#: Kinds of calls that Harmonia hangs on. What Ray itself asks again until it is answered may be
#: lost often; a call of an actor ends with an error, and here that often ends a task actor.
CALLS = {
    _OF_ACTORS: Calls(2, ("CoreWorkerService.grpc_client.PushTask",), least=20),
    "creation of actors": Calls(
        20,
        (
            "ActorInfoGcsService.grpc_client.RegisterActor",
            "ActorInfoGcsService.grpc_client.CreateActor",
            "NodeManagerService.grpc_client.RequestWorkerLease",
            "NodeManagerService.grpc_client.ReturnWorkerLease",
        ),
    ),
    "names and ends of actors": Calls(
        20,
        (
            "ActorInfoGcsService.grpc_client.GetNamedActorInfo",
            "ActorInfoGcsService.grpc_client.ListNamedActors",
            "ActorInfoGcsService.grpc_client.GetActorInfo",
            "ActorInfoGcsService.grpc_client.KillActorViaGcs",
            "CoreWorkerService.grpc_client.KillActor",
        ),
    ),
    "news of deaths": Calls(
        10,
        (
            "ControlPlanePubSubGcsService.grpc_client.GcsSubscriberPoll",
            "ControlPlanePubSubGcsService.grpc_client.GcsSubscriberCommandBatch",
            "CoreWorkerService.grpc_client.PubsubLongPolling",
            "CoreWorkerService.grpc_client.PubsubCommandBatch",
            "NodeInfoGcsService.grpc_client.CheckAlive",
        ),
    ),
}
#: What gets lost, and the word that Ray has for how often.
WAYS = {
    "the request": "req_failure_prob",
    "the answer": "resp_failure_prob",
    "the connection": "in_flight_failure_prob",
}
_LOST = re.compile(
    r"Inject RPC (?:request|response) failure(?: while request in flight)? for (\S+)"
)
_FAULTS = [
    "task actor killed",
    "shared task actor killed",
    "execution actor killed",
    "supervisor killed",
    "task pool killed",
    "broadcaster killed",
]
_LOAD = Load(threads=3, live_max=16, longest_s=0.5)
_EXECUTIONS_LEAST, _EXECUTIONS_MOST = 20, 1_000
_END_S = 180.0
_ENDLESS_END_S = 60.0


def environment(calls: Calls, way: str) -> dict[str, str]:
    """What tells all of Ray's processes to lose calls, in one way."""
    failures = {
        # Ray has the one form for some, and the other for others.
        prefix + name: {"num_failures": -1, WAYS[way]: calls.percent}
        for name in calls.names
        for prefix in ("", "ray::rpc::")
    }
    return {"RAY_testing_rpc_failure": json.dumps(failures)}


def lost_calls(logs: Path) -> Counter[str]:
    """How many calls were lost by what Ray's logs say, by their short names."""
    found: Counter[str] = Counter()
    for path in logs.rglob("*"):
        if path.is_file() and path.suffix in (".log", ".out", ".err"):
            with path.open(errors="replace") as lines:
                for line in lines:
                    if match := _LOST.search(line):
                        found[match[1].rpartition(".")[2]] += 1
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.rpc_failures", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="how often each kill comes")
    parser.add_argument("--endless", type=int, default=15, help="endless tasks of each kind")
    parser.add_argument("--percent", type=int, help="calls that get lost; each kind has its own")
    parser.add_argument("--every", type=float, default=3.0, help="seconds from kill to kill")
    parser.add_argument("--seed", type=int, default=None, help="for the same work and kills")
    parser.add_argument("--calls", nargs="+", choices=CALLS, default=[*CALLS], metavar="KIND")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS], metavar="WAY")
    given = parser.parse_args(arguments)
    seed = given.seed if given.seed is not None else time.time_ns() % 100_000
    print(f"seed {seed}")
    prepare_ray_environment()
    wrong = []
    for kind, way in product(given.calls, given.ways):
        print(f"{kind}: {way} gets lost", flush=True)
        with tempfile.TemporaryDirectory(prefix="harmonia-rpc-") as directory:
            wrong += _run(Path(directory), kind, way, Random(seed), given)
    print("every execution is exactly right" if not wrong else f"{len(wrong)} things are wrong")
    return 1 if wrong else 0


def _run(
    directory: Path, kind: str, way: str, random: Random, given: argparse.Namespace
) -> list[str]:
    """One cell: what is wrong, or why it has proved nothing."""
    begun_s = time.monotonic()
    calls = CALLS[kind]
    if given.percent is not None:
        calls = replace(calls, percent=given.percent)
    journal = directory / "journal"
    journal.touch()
    settings = SETTINGS | environment(calls, way)
    with running_service(directory / "data", settings=settings) as service:
        faults = Faults(service, random, settings)
        boot_s = time.monotonic() - begun_s
        count = given.endless if kind == _OF_ACTORS else 0
        endless = start_endless(service, directory / "nowhere", count)
        with Starter(service, random, journal, load=_LOAD, most=_EXECUTIONS_MOST) as starter:
            for _ in range(given.rounds):
                cause_chaos(faults, _FAULTS, random, given.every, starter)
        found = judge(service, starter.accepted, journal, patience_s=_END_S)
        found.wrong += wrong_with_endless(service, endless, patience_s=_ENDLESS_END_S)
        lost = lost_calls(ray_directory(service.data_dir))
    print(
        f"  {time.monotonic() - begun_s:.0f} s, of them {boot_s:.0f} to start; "
        f"{_told(found)}; {len(endless)} endless tasks\n"
        f"  calls lost: {dict(lost)}; kills: {sum(faults.landed.values())}; "
        f"{starter.sent_again} requests sent again"
    )
    # Whether a kill loses an attempt is luck, and not what is to be proved here.
    problems = found.wrong or shortfalls(found, faults.landed, [])
    problems += [f"no '{fault}' has landed" for fault in _FAULTS if not faults.landed[fault]]
    if found.executions < _EXECUTIONS_LEAST:
        problems.append(f"only {found.executions} executions, of {_EXECUTIONS_LEAST} at least")
    if sum(lost.values()) < calls.least:
        problems.append(f"only {sum(lost.values())} calls were lost, of {calls.least} at least")
    for problem in problems:
        print(f"  {problem}", flush=True)
    return problems


def _told(found: Judgement) -> str:
    return (
        f"{found.executions} executions ({dict(found.statuses)}), {found.tasks} tasks, "
        f"{found.attempts} attempts, of which {found.rerun} were run again after a loss, "
        f"{found.audited_events} events audited"
    )


if __name__ == "__main__":
    sys.exit(main())
