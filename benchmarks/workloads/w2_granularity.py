"""W2: how small tasks may be before an engine costs as much as they do."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.figures import metg
from benchmarks.graphs import stencil
from benchmarks.jobs import Outcome, RunGraph
from benchmarks.workloads.workload import Case, Column, Form, Measured, Workload, per_task

__all__ = ["WORKLOAD"]

_GRAINS_US = (250, 1_000, 2_000, 4_000, 16_000)
_GRAINS_US_FULL = tuple(125 * 2**power for power in range(10))
_STEPS = 100
_STEPS_FULL = 300
#: However long the tasks, one run has no more work than this for each core.
_WORK_S_MAX = 2.5


def cases(form: Form, reach: int) -> list[Case]:
    grains = _GRAINS_US_FULL if form.full else _GRAINS_US
    most = min(_STEPS_FULL if form.full else _STEPS, max(reach // form.cores, 10))
    found = []
    for grain_us in grains:
        steps = max(10, min(most, int(_WORK_S_MAX * 1e6 / grain_us)))
        graph = stencil(form.cores, steps, "work", round(grain_us / 1e6 / form.work_s))
        found.append(Case(f"{grain_us} µs × {steps} steps", RunGraph(graph, times=False)))
    return found


def measure(form: Form, case: Case, outcome: Outcome) -> Measured:
    tasks = len(case.job.graph)
    grain_s = case.job.graph[0].amount * form.work_s
    return Measured(
        {
            "grain_us": grain_s * 1e6,
            "granularity_us": outcome.seconds * form.cores / tasks * 1e6,
            "efficiency_percent": grain_s * tasks / form.cores / outcome.seconds * 100,
            "tasks_per_s": tasks / outcome.seconds,
        }
    )


def derive(points: Sequence[dict[str, float]]) -> dict[str, float]:
    found = metg([(p["granularity_us"], p["efficiency_percent"] / 100) for p in points])
    return {} if found is None else {"metg_us": found}


WORKLOAD = Workload(
    id="W2",
    title="Task granularity on a stencil",
    method="A stencil of radix 3, as wide as there are cores. A task does a fixed amount of work, "
    "measured beforehand on an idle core. Efficiency is that work by wall time times cores; "
    "METG(50 %) is the smallest wall time times cores by tasks with an efficiency of 50 %. In the "
    "manner of Task Bench; an own implementation.",
    columns=(
        Column("efficiency_percent", "efficiency, %", 1),
        Column("granularity_us", "granularity, µs", 0),
        Column("tasks_per_s", "tasks/s", 0),
        *per_task(),
    ),
    cases=cases,
    measure=measure,
    derived=(Column("metg_us", "METG(50 %), µs", 0),),
    derive=derive,
)
