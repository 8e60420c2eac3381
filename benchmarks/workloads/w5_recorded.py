"""W5: recorded workflows in WfFormat, against the shortest that any schedule could be."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.graphs import Graph, Task, critical_path, lower_bound, order_problems
from benchmarks.jobs import Outcome, RunGraph
from benchmarks.workloads.workload import Case, Column, Form, Measured, Workload, per_task

__all__ = ["WORKLOAD"]

#: So long the critical path takes once the recorded durations are scaled.
_PATH_S = 5.0
#: The first one of the full form; a shorter path is the harder measure.
_PATH_S_FIRST = 10.0
_CONVERTER = Path(__file__).parents[2] / "examples" / "wfcommons.py"
_SCALED = "critical path of"


@cache
def converter() -> Any:
    """The example that reads WfFormat: a script, not a part of a package."""
    spec = importlib.util.spec_from_file_location("wfcommons", _CONVERTER)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{_CONVERTER} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look themselves up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@cache
def recorded(path: Path) -> Graph:
    """Its tasks with their durations, each after all that it depends on."""
    instance = converter().read_instance(path)
    waiting = {task.id: task for task in instance.tasks}
    done: dict[str, Task] = {}
    while waiting:
        ready = [task for task in waiting.values() if all(name in done for name in task.parents)]
        if not ready:
            raise RuntimeError(f"{path}: there is a cycle")
        for task in ready:
            done[task.id] = Task(task.id, "sleep", task.seconds, tuple(task.parents))
            del waiting[task.id]
    return tuple(done.values())


def cases(form: Form, reach: int) -> list[Case]:
    found = []
    for path in form.instances if form.full else form.instances[:1]:
        graph = recorded(path)
        path_s = _PATH_S_FIRST if form.full and path == form.instances[0] else _PATH_S
        if len(graph) > reach:
            continue
        noops = tuple(Task(task.name, "noop", 0, task.after) for task in graph)
        scale = path_s / critical_path(graph, {task.name: task.amount for task in graph})
        scaled = tuple(Task(t.name, "sleep", round(t.amount * scale, 6), t.after) for t in graph)
        name = f"{path.stem} ({len(graph)} tasks)"
        found.append(Case(f"{name}, no durations", RunGraph(noops), warm_up=len(graph) < reach))
        found.append(Case(f"{name}, {_SCALED} {path_s:g} s", RunGraph(scaled)))
    return found


def measure(form: Form, case: Case, outcome: Outcome) -> Measured:
    graph = case.job.graph
    path = next(path for path in form.instances if case.name.startswith(f"{path.stem} ("))
    needed = converter().producers(converter().read_instance(path))
    if len(outcome.times) < len(graph):
        problems = ["some tasks have no times"]
    else:
        problems = order_problems(needed, outcome.times)[:5]
    figures = {"seconds": outcome.seconds, "tasks_per_s": len(graph) / outcome.seconds}
    if _SCALED in case.name:
        bound = lower_bound(graph, {task.name: task.amount for task in graph})
        figures["over_bound"] = outcome.seconds / bound
    return Measured(figures, problems)


WORKLOAD = Workload(
    id="W5",
    title="Recorded workflows",
    method="Recordings in WfFormat, given by path: with no-ops, which shows the overhead; and with "
    "tasks that wait for the recorded durations, scaled so that the critical path is as long as "
    "said. Tasks that wait take no core, so that the lower bound is the critical path. That each "
    "task began only after the producers of its files had ended is checked by the recorded files, "
    "which the graph is not made of.",
    columns=(
        Column("seconds", "seconds", 2),
        Column("over_bound", "by lower bound", 3),
        Column("tasks_per_s", "tasks/s", 0),
        *per_task(),
    ),
    cases=cases,
    measure=measure,
)
