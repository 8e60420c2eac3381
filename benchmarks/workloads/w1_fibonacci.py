"""W1: the published benchmark of 40 short or 10 long tasks in sequence."""

from __future__ import annotations

from benchmarks.graphs import chain
from benchmarks.jobs import Outcome, RunGraph
from benchmarks.workloads.workload import Case, Column, Form, Measured, Workload, per_task

__all__ = ["WORKLOAD"]


def cases(form: Form, reach: int) -> list[Case]:
    runs = 3 if reach > 1_000 else 1
    return [
        Case("40 × fibonacci(10)", RunGraph(chain(40, "fibonacci", 10)), runs, warm_up=True),
        Case("10 × fibonacci(33)", RunGraph(chain(10, "fibonacci", 33))),
    ]


def measure(form: Form, case: Case, outcome: Outcome) -> Measured:
    times = [outcome.times[task.name] for task in case.job.graph if task.name in outcome.times]
    problems = [] if len(times) == len(case.job.graph) else ["some tasks have no times"]
    figures = {"seconds": outcome.seconds, "ms_per_step": outcome.seconds / len(times) * 1000}
    figures["execution_percent"] = (
        sum(end - begin for begin, end in times) / outcome.seconds / 10_000
    )
    return Measured(figures, problems)


WORKLOAD = Workload(
    id="W1",
    title="40 short or 10 long tasks in sequence",
    method="The benchmark that Windmill has published: naive Fibonacci, one task after the other, "
    "on one execution; by REST for Harmonia. Published best for the 40 short ones: 1.222 s "
    "(Hatchet, a 2-vCPU machine, a vendor's benchmark, one run).",
    columns=(
        Column("seconds", "seconds", 3),
        Column("ms_per_step", "ms/step", 2),
        Column("execution_percent", "% in tasks", 1),
        *per_task(),
    ),
    cases=cases,
    measure=measure,
)
