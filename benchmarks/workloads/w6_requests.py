"""W6: single executions at a given rate, whether or not the ones before have ended."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.figures import knee, percentile
from benchmarks.graphs import Graph, chain, single
from benchmarks.jobs import OfferLoad, Outcome
from benchmarks.workloads.workload import Case, Column, Form, Measured, Workload, per_task

__all__ = ["WORKLOAD"]

_RATES = (5, 25, 100, 200, 400)
_RATES_FULL = (5, 25, 50, 100, 150, 200, 300, 400, 600)
_CHAIN_RATES = (100, 200, 300, 400)
_SECONDS = 3.0
_SECONDS_FULL = 6.0
_SHARE_KEPT = 0.95
#: A rate that nobody should fail at.
_EASY = 25
#: Few requests make no 99th percentile.
_REQUESTS_MIN = 30


def cases(form: Form, reach: int) -> list[Case]:
    rates = _RATES_FULL if form.full else _RATES
    chain_rates = _RATES_FULL if form.full else _CHAIN_RATES
    slow = reach < 1_000
    found = [_case("one no-op", single("noop"), rate, form, slow) for rate in rates]
    found += [_case("three no-ops", chain(3, "noop"), rate, form, slow) for rate in chain_rates]
    accepted = _case("accepted only", single("noop"), 25, form, slow, accepted_only=True)
    return [*found, accepted]


def _case(
    what: str, graph: Graph, rate: float, form: Form, slow: bool, *, accepted_only: bool = False
) -> Case:
    seconds = _SECONDS_FULL if form.full and not slow else _SECONDS
    seconds = max(seconds, 0 if slow else _REQUESTS_MIN / rate)
    job = OfferLoad(graph, rate, seconds, patience_s=15, accepted_only=accepted_only)
    return Case(f"{what} at {rate}/s", job, ladder=what)


def measure(form: Form, case: Case, outcome: Outcome) -> Measured:
    job = case.job
    assert isinstance(job, OfferLoad)
    done = outcome.latencies_ms
    figures = {"rate": job.per_s, "failed": float(outcome.failed)}
    figures["achieved_per_s"] = len(done) / max(outcome.seconds, job.seconds)
    kept_up = not outcome.failed and figures["achieved_per_s"] >= _SHARE_KEPT * job.per_s
    figures["kept_up"] = float(kept_up)
    figures["tasks"] = len(job.graph)
    if done:
        figures |= {
            f"p{name}_ms": percentile(done, percent)
            for name, percent in (("50", 50), ("99", 99), ("999", 99.9))
        }
    # Failures at a rate that is too high are a finding, not a fault of the measurement.
    return Measured(figures, [outcome.failure] if outcome.failure and job.per_s <= _EASY else [])


def derive(points: Sequence[dict[str, float]]) -> dict[str, float]:
    found = {}
    for name, tasks in (("knee_1", 1), ("knee_3", 3)):
        steps = [(p["rate"], p["kept_up"] >= 0.5) for p in points if p.get("tasks") == tasks]
        rate = knee(steps)
        if rate is not None:
            found[name] = rate
    return found


WORKLOAD = Workload(
    id="W6",
    title="Requests at a given rate",
    method="Open loop: executions are started at fixed times, whether or not the ones before have "
    "ended, and a latency counts from when it should have been started. Harmonia: POST "
    '/executions with "async": false. Raw Ray: POST to a Serve application that awaits one task. '
    "The others have no such request: their client, in the same process as the load, starts and "
    "waits. The knee is the highest rate of those tried at which 95 % of the rate is achieved "
    "without a failure. Two cores are shared by load, service and store.",
    columns=(
        Column("achieved_per_s", "achieved/s", 1),
        Column("p50_ms", "p50, ms", 1),
        Column("p99_ms", "p99, ms", 1),
        Column("p999_ms", "p99.9, ms", 1),
        Column("failed", "failed", 0),
        *per_task(),
    ),
    cases=cases,
    measure=measure,
    derived=(
        Column("knee_1", "knee, one task, /s", 0),
        Column("knee_3", "knee, three tasks, /s", 0),
    ),
    derive=derive,
)
