"""W4: a long chain, where nothing can be done at once."""

from __future__ import annotations

from itertools import pairwise

from benchmarks.figures import percentile
from benchmarks.graphs import chain
from benchmarks.jobs import Outcome, RunGraph
from benchmarks.workloads.workload import Case, Column, Form, Measured, Workload, per_task

__all__ = ["WORKLOAD"]

_LENGTH = 1_000


def cases(form: Form, reach: int) -> list[Case]:
    length = min(_LENGTH, reach)
    graph = chain(length, "count", takes=True)
    runs = 2 if reach > _LENGTH else 1
    return [Case(f"{length} steps", RunGraph(graph), runs=runs, warm_up=runs > 1)]


def measure(form: Form, case: Case, outcome: Outcome) -> Measured:
    length = len(case.job.graph)
    problems = []
    if outcome.value != length:
        problems.append(f"the last value is {outcome.value}, not {length}")
    figures = {"seconds": outcome.seconds, "steps_per_s": length / outcome.seconds}
    times = [outcome.times[task.name] for task in case.job.graph if task.name in outcome.times]
    hops = [(begin - end) / 1000 for (_, end), (begin, _) in pairwise(times)]
    if len(times) < length:
        problems.append("some tasks have no times")
    else:
        figures |= {f"hop_p{p}_ms": percentile(hops, p) for p in (50, 99)}
        figures["hop_max_ms"] = max(hops)
    return Measured(figures, problems)


WORKLOAD = Workload(
    id="W4",
    title="A chain of 1,000",
    method="Each task adds one to the value of the one before; the last value is checked. A hop is "
    "the time from the end of a task to the beginning of the next one, by the clock of the "
    "processes that ran them.",
    columns=(
        Column("steps_per_s", "steps/s", 0),
        Column("hop_p50_ms", "hop p50, ms", 2),
        Column("hop_p99_ms", "hop p99, ms", 2),
        Column("hop_max_ms", "hop max, ms", 1),
        *per_task(),
    ),
    cases=cases,
    measure=measure,
)
