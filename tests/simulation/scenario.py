"""What one run is about: workflows and what clients do with them, drawn from the seed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from tests.simulation.line_judge import FULL_MIN

__all__ = ["ClientPlan", "Scenario", "draw_scenario"]

_TASKS_MAX = 7


@dataclass(frozen=True)
class ClientPlan:
    """One client: starts an execution of a workflow, and what it does afterwards (and when)."""

    workflow: int
    begins_s: float
    options: dict[str, Any]
    #: A subscriber follows it, and takes so long over each batch; None: nobody does.
    follows_s: float | None
    cancels_after_s: float | None
    checkpoints_after_s: tuple[float, ...]
    #: For each checkpoint, when it is restored after it was taken; None: never.
    restores_after_s: tuple[float | None, ...]
    #: When the newest automatic checkpoint is restored, if there is one then; None: never.
    restores_automatic_s: float | None = None


@dataclass(frozen=True)
class Scenario:
    """Workflows as clients send them, the clients, and the sizes of the installation."""

    workflows: tuple[dict[str, Any], ...]
    clients: tuple[ClientPlan, ...]
    owners_max: int
    lost_max: int
    #: Crashes in a row after which an execution is given up.
    crashes_max: int
    #: Attempts of one execution that are handed out at a time.
    in_flight_max: int
    faults_end_s: float
    #: Some tasks use files, and of these some a board, which no node has at first.
    uses_files: bool
    #: The clocks of processes are an hour apart from the beginning on.
    clocks_differ: bool


def draw_scenario(seed: str) -> Scenario:
    """All of it."""
    luck = random.Random(f"{seed}/scenario")
    # Luck of its own: what else a seed draws stays what it was before there were these.
    saving = random.Random(f"{seed}/automatic checkpoints")
    workflows = tuple(_workflow(luck, number) for number in range(luck.randint(1, 2)))
    files_luck = random.Random(f"{seed}/files")
    uses_files = files_luck.random() < 0.3
    if uses_files:
        for workflow in workflows:
            _give_files(files_luck, workflow["tasks"].values())
    _give_lines(random.Random(f"{seed}/log lines"), workflows)
    drawn = tuple(_client(luck, len(workflows)) for _ in range(luck.randint(1, 5)))
    clients = tuple(_saving(saving, client) for client in drawn)
    return Scenario(
        workflows,
        clients,
        owners_max=luck.randint(1, 3),
        lost_max=luck.choice((1, 30, 30, 30)),
        crashes_max=luck.choice((3, 100, 100)),
        in_flight_max=luck.choice((1, 3, 100, 100)),
        faults_end_s=luck.choice((5.0, 12.0)),
        uses_files=uses_files,
        clocks_differ=random.Random(f"{seed}/clocks differ").random() < 0.3,
    )


def _workflow(luck: random.Random, number: int) -> dict[str, Any]:
    count = luck.randint(1, _TASKS_MAX)
    hurry = luck.choice((10, 10, 50, 50, 400, 6_000))
    # What one task actor can go on with by itself would be rare by chance.
    is_chain = luck.random() < 0.3
    tasks = {}
    for index in range(count):
        parents = [p for p in range(index) if luck.random() < luck.choice((0.1, 0.5, 0.9))]
        if is_chain:
            parents = list(range(index))[-1:]
        task = tasks[f"t{index}"] = _task(luck, index, parents[:4], hurry)
        if is_chain and luck.random() < 0.9:
            task["action"] = "work"
            task.pop("resources", None)
    definition: dict[str, Any] = {"name": f"w{number}", "tasks": tasks}
    if luck.random() < 0.3:
        definition["output"] = {"first": "${tasks.t0.output.value}"}
    if luck.random() < 0.1:
        definition["timeout"] = luck.choice((2, 6))
    return definition


def _task(luck: random.Random, index: int, parents: list[int], hurry: int) -> dict[str, Any]:
    retries = luck.choice((0, 0, 1, 3))
    # Most tasks complete: where much fails early, little is left that faults could hit.
    fails = luck.choice((1, retries, retries + 1)) if luck.random() < 0.2 else 0
    # Some go on while owners come and go, a few for longer than any fault.
    long_ms = luck.choice((2_500, 2_500, 40_000)) if luck.random() < 0.15 else 0
    plan = {
        "n": luck.randint(1, 9),
        "ms": int(luck.expovariate(1 / hurry)) + long_ms,
        "fails": fails,
        "fatal": luck.random() < 0.1,
        "stubborn": luck.random() < 0.1,
        "progress": luck.random() < 0.2,
        "bytes": luck.choice((0, 0, 400)),
    }
    task: dict[str, Any] = {
        "component": "simulated",
        "action": luck.choice(("work", "work", "work_async")),
        "depends_on": [f"t{parent}" for parent in parents],
        "input": {
            "plan": plan,
            "given": [f"${{tasks.t{parent}.output.value}}" for parent in parents],
        },
    }
    if retries or luck.random() < 0.3:
        task["retry_policy"] = {
            "max_retries": retries,
            "retry_interval": luck.choice((0, 0.05, 1)),
            "backoff": luck.choice((1, 2)),
            "jitter": luck.choice((0, 0.5)),
        }
    if luck.random() < 0.15:
        task["resources"] = {"num_cpus": 2}
    if luck.random() < 0.1:
        task["timeout"] = luck.choice((0.05, 2, 5))
    return task


def _give_files(luck: random.Random, tasks: Iterable[dict[str, Any]]) -> None:
    for task in tasks:
        if luck.random() < 0.6:
            task["action"] += "_with_files"
            if luck.random() < 0.5:
                task["resources"] = {**task.get("resources", {}), "board": luck.choice((0.5, 1))}


def _give_lines(luck: random.Random, workflows: Iterable[dict[str, Any]]) -> None:
    for workflow in workflows:
        for task in workflow["tasks"].values():
            lines = luck.choice((1, 4, FULL_MIN)) if luck.random() < 0.4 else 0
            task["input"]["plan"]["lines"] = lines


def _client(luck: random.Random, workflows: int) -> ClientPlan:
    checkpoints = tuple(luck.uniform(0, 4) for _ in range(luck.choice((0, 0, 1, 2))))
    options: dict[str, Any] = {}
    if luck.random() < 0.15:
        options["timeout"] = luck.choice((0.5, 3, 8))
    if luck.random() < 0.1:
        options["async"] = False
    cancels = luck.choice((luck.uniform(0, 0.3), luck.uniform(0, 5)))
    return ClientPlan(
        workflow=luck.randrange(workflows),
        begins_s=luck.uniform(0, 3),
        options=options,
        follows_s=luck.choice((0.0, 0.0, 0.3)) if luck.random() < 0.5 else None,
        cancels_after_s=cancels if luck.random() < 0.35 else None,
        checkpoints_after_s=checkpoints,
        restores_after_s=tuple(
            luck.uniform(0, 5) if luck.random() < 0.7 else None for _ in checkpoints
        ),
    )


def _saving(luck: random.Random, client: ClientPlan) -> ClientPlan:
    """A third of the executions take checkpoints by themselves."""
    every = luck.choice(
        (
            {"every_completions": 1},
            {"every_completions": 2, "every_s": 1},
            {"every_s": luck.choice((0.05, 0.5))},
        )
    )
    policy = {**every, "keep": luck.choice((1, 2, 5))}
    restores_s = luck.uniform(0.5, 6) if luck.random() < 0.5 else None
    if luck.random() > 1 / 3:
        return client
    options = {**client.options, "checkpoint": policy}
    return replace(client, options=options, restores_automatic_s=restores_s)
