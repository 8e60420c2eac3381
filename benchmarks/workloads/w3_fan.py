"""W3: one task, many at once, one after them all."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.figures import growth_exponent
from benchmarks.graphs import fan
from benchmarks.jobs import Outcome, RunGraph
from benchmarks.workloads.workload import Case, Column, Form, Measured, Workload, per_task

__all__ = ["WORKLOAD"]

_WIDTHS = (100, 1_000, 10_000)
_WIDTHS_FULL = (100, 1_000, 5_000, 10_000)
_PAYLOAD_BYTES = 1_024
_PAYLOAD_WIDTH = 1_000


def cases(form: Form, reach: int) -> list[Case]:
    widths = [width for width in (_WIDTHS_FULL if form.full else _WIDTHS) if width <= reach]
    found = [
        Case(
            f"1 → {width} → 1",
            RunGraph(fan(width), times=False),
            runs=2 if width <= 1_000 < reach else 1,
            warm_up=width <= 1_000 < reach,
        )
        for width in widths
    ]
    width = min(_PAYLOAD_WIDTH, reach)
    graph = fan(width, payload_bytes=_PAYLOAD_BYTES)
    return [*found, Case(f"1 → {width} × 1 KiB → 1", RunGraph(graph, times=False))]


def measure(form: Form, case: Case, outcome: Outcome) -> Measured:
    width = len(case.job.graph) - 2
    payload = case.job.graph[1].amount
    problems = []
    if payload and outcome.value != payload * width:
        problems.append(f"the last task was given {outcome.value} bytes, not {payload * width:g}")
    figures = {"seconds": outcome.seconds, "tasks_per_s": len(case.job.graph) / outcome.seconds}
    return Measured(figures if payload else figures | {"width": width}, problems)


def derive(points: Sequence[dict[str, float]]) -> dict[str, float]:
    sizes = [(p["width"], p["seconds"]) for p in points if "width" in p]
    if not sizes:
        return {}
    most = max(points, key=lambda p: p.get("width", 0))
    found = {"tasks_per_s_at_most": most["tasks_per_s"], "at": most["width"]}
    exponent = growth_exponent(sizes)
    return found if exponent is None else {"exponent": exponent, **found}


WORKLOAD = Workload(
    id="W3",
    title="Fan-out and fan-in",
    method="One no-op, N no-ops after it, one after them all. The exponent b is of the best fit of "
    "seconds = a N^b: below 1 while a fixed cost still counts, 1 if each task costs the same "
    "however many there are. In the variant with payloads each task has an output of 1 KiB and "
    "the last one is given them all.",
    columns=(
        Column("tasks_per_s", "tasks/s", 0),
        Column("seconds", "seconds", 3),
        *per_task(),
    ),
    cases=cases,
    measure=measure,
    derived=(
        Column("exponent", "growth exponent", 2),
        Column("at", "largest N", 0),
        Column("tasks_per_s_at_most", "tasks/s at the largest N", 0),
    ),
    derive=derive,
)
