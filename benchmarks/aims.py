"""What Harmonia aims at, and how far a run is from it: ratios within one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["AIMS", "Aim", "judge"]

Json = dict[str, Any]
_OURS = "harmonia"


@dataclass(frozen=True)
class Aim:
    """A limit for one value of a run; the value is None where the run does not have it."""

    workload: str
    what: str
    limit: float
    measure: Callable[[Json], float | None]
    at_least: bool = False


def _workload(document: Json, name: str) -> Json:
    found = [workload for workload in document["workloads"] if workload["id"] == name]
    return found[0] if found else {"cases": [], "derived": {}}


def _medians(document: Json, name: str, case: str, system: str, figure: str) -> list[float]:
    """Of all cases whose name begins so."""
    cases = document["idle"]["cases"] if name == "idle" else _workload(document, name)["cases"]
    return [
        float(found["figures"][figure]["median"])
        for item in cases
        if item["case"].startswith(case)
        and (found := item["systems"].get(system))
        and figure in found["figures"]
    ]


def _value(name: str, case: str, figure: str) -> Callable[[Json], float | None]:
    """The highest median of ours."""
    return lambda document: max(_medians(document, name, case, _OURS, figure), default=None)


def _ratio(name: str, case: str, figure: str, other: str) -> Callable[[Json], float | None]:
    """Ours by another one's, of the best case each."""

    def measure(document: Json) -> float | None:
        ours = max(_medians(document, name, case, _OURS, figure), default=None)
        theirs = max(_medians(document, name, case, other, figure), default=None)
        return ours / theirs if ours is not None and theirs else None

    return measure


def _derived(name: str, figure: str, other: str = "") -> Callable[[Json], float | None]:
    """Ours of what was derived, by another one's if there is another one."""

    def measure(document: Json) -> float | None:
        derived = _workload(document, name)["derived"]
        ours = derived.get(_OURS, {}).get(figure)
        if not other or ours is None:
            return None if ours is None else float(ours)
        theirs = derived.get(other, {}).get(figure)
        return ours / theirs if theirs else None

    return measure


def _over(figure: str, other: str) -> Callable[[Json], float | None]:
    """How much more than another one we take when idle."""

    def measure(document: Json) -> float | None:
        ours = _medians(document, "idle", "", _OURS, figure)
        theirs = _medians(document, "idle", "", other, figure)
        return ours[0] - theirs[0] if ours and theirs else None

    return measure


_MOST = "tasks_per_s_at_most"

AIMS: Final = (
    Aim("W3", "tasks/s at N = 10,000", 10_000, _derived("W3", _MOST), at_least=True),
    Aim("W3", "… by raw Ray's", 10, _derived("W3", _MOST, "ray"), at_least=True),
    Aim("W3", "… by dask's", 7, _derived("W3", _MOST, "dask"), at_least=True),
    Aim("W3", "… by Prefect's", 100, _derived("W3", _MOST, "prefect"), at_least=True),
    Aim("W3", "growth exponent", 1.05, _derived("W3", "exponent")),
    Aim("W4", "steps/s", 1_000, _value("W4", "", "steps_per_s"), at_least=True),
    Aim("W4", "… by DBOS's", 2, _ratio("W4", "", "steps_per_s", "dbos"), at_least=True),
    Aim("W4", "… by Celery's", 2.5, _ratio("W4", "", "steps_per_s", "celery"), at_least=True),
    Aim("W4", "… by raw Ray's", 1, _ratio("W4", "", "steps_per_s", "ray"), at_least=True),
    Aim("W4", "hop p99, ms", 3, _value("W4", "", "hop_p99_ms")),
    Aim("W1", "40 short tasks, seconds", 0.15, _value("W1", "40 ×", "seconds")),
    Aim("W6", "p50 at 25/s, ms", 8, _value("W6", "one no-op at 25/s", "p50_ms")),
    Aim("W6", "p99 at 25/s, ms", 25, _value("W6", "one no-op at 25/s", "p99_ms")),
    Aim("W6", "three-task executions/s", 300, _derived("W6", "knee_3"), at_least=True),
    Aim("W6", "… by Celery's", 1.5, _derived("W6", "knee_3", "celery"), at_least=True),
    Aim("W6", "… by DBOS's", 3, _derived("W6", "knee_3", "dbos"), at_least=True),
    Aim("W2", "METG(50 %), µs", 1_000, _derived("W2", "metg_us")),
    Aim("W2", "… by raw Ray's", 1, _derived("W2", "metg_us", "ray")),
    Aim("W5", "longest, by its lower bound", 1.05, _value("W5", "", "over_bound")),
    Aim("W7", "1,000 × 10, by the ideal", 3, _value("W7", "1000 ×", "by_ideal")),
    Aim("W7", "10,000 waiting, MB over idle", 2_000, _value("W7", "10000 ", "pss_over_idle_mb")),
    Aim("start", "seconds until ready", 8, _value("idle", "", "ready_s")),
    Aim("idle", "points of a core above Ray + Serve", 3, _over("idle_cpu_percent", "ray")),
    Aim("idle", "MB above Ray + Serve", 400, _over("pss_mb", "ray")),
)


def judge(document: Json) -> list[Json]:
    """Each aim with what was measured; `met` is None for what this run did not measure."""
    found = []
    for aim in AIMS:
        value = aim.measure(document)
        met = None
        if value is not None:
            met = value >= aim.limit if aim.at_least else value <= aim.limit
        found.append(
            {
                "workload": aim.workload,
                "what": aim.what,
                "limit": f"{'≥' if aim.at_least else '≤'} {aim.limit:,g}",
                "measured": value,
                "met": met,
            }
        )
    return found
