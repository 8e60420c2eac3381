"""W7: a thousand executions at once, and ten thousand that only wait."""

from __future__ import annotations

from benchmarks.figures import percentile
from benchmarks.graphs import chain, critical_path, single
from benchmarks.jobs import Outcome, RunMany
from benchmarks.workloads.workload import Case, Column, Form, Measured, Workload, per_task

__all__ = ["WORKLOAD"]

_COUNT = 1_000
_TASKS = 10
_SLEEP_S = 0.1
_WAITING = 2_000
_WAITING_FULL = 10_000
#: They wait so long that all of them are there at once, also if the machine has a slow day.
_HOLD_S = 60.0
_HOLD_S_FULL = 150.0
#: Whoever takes so many times as long as one of them waits has let some wait after others.
_TURNS = 2


def cases(form: Form, reach: int) -> list[Case]:
    count = max(min(_COUNT, reach // _TASKS), 1)
    found = [
        Case(f"{count} × {_TASKS} × 0.1 s", RunMany(chain(_TASKS, "sleep", _SLEEP_S), count)),
        _waiting(min(_WAITING, reach), _HOLD_S),
    ]
    # The variants of a system are compared by the smaller case, which all of them have.
    if form.full and reach > _WAITING_FULL:
        found.append(_waiting(_WAITING_FULL, _HOLD_S_FULL))
    return found


def _waiting(count: int, hold_s: float) -> Case:
    job = RunMany(single("sleep", hold_s), count)
    return Case(f"{count} waiting for {hold_s:g} s", job, timeout_s=600)


def measure(form: Form, case: Case, outcome: Outcome) -> Measured:
    assert isinstance(case.job, RunMany)
    ideal = critical_path(case.job.graph, {task.name: task.amount for task in case.job.graph})
    figures = {
        "seconds": outcome.seconds,
        "by_ideal": outcome.seconds / ideal,
        "executions_per_s": case.job.count / outcome.seconds,
    }
    if outcome.latencies_ms:
        figures["p50_s"] = percentile(outcome.latencies_ms, 50) / 1000
        figures["p99_s"] = percentile(outcome.latencies_ms, 99) / 1000
    problems = [f"{outcome.failed} failed: {outcome.failure}"] if outcome.failed else []
    if len(case.job.graph) == 1 and outcome.seconds >= _TURNS * ideal:
        problems.append("they took turns: not all of them waited at once")
    return Measured(figures, problems)


WORKLOAD = Workload(
    id="W7",
    title="Many executions at once",
    method="Executions of ten tasks in a chain that await 0.1 s each, all submitted at once: the "
    "ideal is 1 s. Then executions of a single task that waits until all of them are there: what "
    "counts is the memory over the idle system.",
    columns=(
        Column("seconds", "seconds", 2),
        Column("by_ideal", "by ideal", 2),
        Column("executions_per_s", "executions/s", 0),
        Column("p99_s", "p99, s", 2),
        Column("pss_over_idle_mb", "PSS over idle, MB", 0),
        *per_task(),
    ),
    cases=cases,
    measure=measure,
)
