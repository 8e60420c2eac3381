"""What a system is told to do and what it answers, as JSON lines between two processes.

Only the standard library is used: this runs in the environment of each peer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.graphs import Graph, graph_of

__all__ = ["Job", "OfferLoad", "Outcome", "RunGraph", "RunMany", "job_of", "to_json"]


@dataclass(frozen=True)
class RunGraph:
    """One execution of a graph, from its submission until its end is known."""

    graph: Graph
    #: Whether the times of its tasks are wanted; they are fetched after the end.
    times: bool = True


@dataclass(frozen=True)
class RunMany:
    """Many executions of a graph, submitted at once."""

    graph: Graph
    count: int


@dataclass(frozen=True)
class OfferLoad:
    """Executions of a graph at fixed times, whether or not the ones before have ended."""

    graph: Graph
    per_s: float
    seconds: float
    #: How long is waited for the last ones.
    patience_s: float = 30.0
    #: Measure until it is accepted, not until it has ended.
    accepted_only: bool = False


Job = RunGraph | RunMany | OfferLoad
_KINDS: dict[str, type[RunGraph] | type[RunMany] | type[OfferLoad]] = {
    "RunGraph": RunGraph,
    "RunMany": RunMany,
    "OfferLoad": OfferLoad,
}


@dataclass
class Outcome:
    """What came of a job, as its client saw it."""

    seconds: float
    #: Name of a task → (beginning, end) in microseconds since the epoch.
    times: dict[str, tuple[int, int]] = field(default_factory=dict)
    #: What the last task has made.
    value: Any = None
    #: Milliseconds from when each execution was to be submitted until its end was known.
    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0
    #: What the first one that failed was told.
    failure: str = ""

    def note_failure(self, reason: str) -> None:
        """One more has failed."""
        self.failed += 1
        self.failure = self.failure or reason[:300]


def to_json(job: Job) -> dict[str, Any]:
    """A job as JSON."""
    document = asdict(job)
    document["graph"] = [[t.name, t.action, t.amount, t.after, t.takes] for t in job.graph]
    return {"kind": type(job).__name__, **document}


def job_of(document: dict[str, Any]) -> Job:
    """The job that `to_json` made this of."""
    values = {name: value for name, value in document.items() if name != "kind"}
    values["graph"] = graph_of(values["graph"])
    return _KINDS[document["kind"]](**values)
