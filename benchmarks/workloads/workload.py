"""What a workload is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.jobs import Job, Outcome

__all__ = ["Case", "Column", "Form", "Measured", "Workload", "nothing_derived", "per_task"]


@dataclass(frozen=True)
class Form:
    """How large a run is."""

    name: str
    rounds: int
    #: Whether this is the form with everything in it.
    full: bool
    #: How many tasks may run at once on this machine.
    cores: int
    #: Seconds that one round of work takes.
    work_s: float
    #: Recorded workflows, for W5.
    instances: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Case:
    """One job of a workload, with the name under which it is compared."""

    name: str
    job: Job
    #: How often it is run in each round. With `warm_up` once more before, which is not counted.
    runs: int = 1
    warm_up: bool = False
    timeout_s: float = 180.0
    #: Cases of the same ladder are steps: after one that was not kept up with none is taken.
    ladder: str = ""


@dataclass
class Measured:
    """What one run of a case gave, and what was wrong with it."""

    figures: dict[str, float]
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Column:
    """A figure that the tables show."""

    figure: str
    title: str
    digits: int = 1


def nothing_derived(points: Sequence[dict[str, float]]) -> dict[str, float]:
    """For workloads whose cases say all."""
    return {}


@dataclass(frozen=True)
class Workload:
    """`cases` get the form and how many tasks a system can be given in reasonable time.

    `derive` makes figures of one system out of the medians of all its cases.
    """

    id: str
    title: str
    method: str
    columns: tuple[Column, ...]
    cases: Callable[[Form, int], list[Case]]
    measure: Callable[[Form, Case, Outcome], Measured]
    derived: tuple[Column, ...] = ()
    derive: Callable[[Sequence[dict[str, float]]], dict[str, float]] = nothing_derived


#: Columns that all workloads with tasks have.
def per_task() -> tuple[Column, ...]:
    """What the store was asked per task, and what the processes took."""
    return (
        Column("commands_per_task", "store commands/task", 2),
        Column("store_bytes_per_task", "store bytes/task", 0),
        Column("pss_mb", "peak PSS, MB", 0),
        Column("processes", "processes", 0),
        Column("processes_started", "started in the run", 0),
        Column("others_percent", "others, % of a core", 0),
    )
