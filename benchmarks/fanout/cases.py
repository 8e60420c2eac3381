"""What W8 asks: how many subscribers, of what, how fast; and what was received, held against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.fanout.subscribers import Received
from benchmarks.figures import percentile
from benchmarks.workloads.workload import Column, Measured

__all__ = ["BEFORE", "COLUMNS", "PARTS", "FanOut", "cases_of_length", "measure", "parts_columns"]

_SHARE_KEPT = 0.95
#: In place of a time: the event was there before anybody subscribed.
BEFORE = 0.0


@dataclass(frozen=True)
class FanOut:
    """One case. Without a rate all events come as fast as the engine makes them."""

    name: str
    subscribers: int
    #: Events a second of each execution.
    per_s: float
    seconds: float
    #: The subscribers are spread over so many executions.
    executions: int = 1
    #: Readers besides, which ask for a long history and then take nothing in.
    stalled: int = 0
    #: Bytes of each event's message.
    size: int = 100

    @property
    def events(self) -> int:
        """How many are to be emitted by each execution, besides its beginning and end."""
        return round(self.per_s * self.seconds) if self.per_s else 400


def _rate(subscribers: int, per_s: float, seconds: float, *, stalled: int = 0) -> FanOut:
    beside = f", {stalled} more stalled" if stalled else ""
    return FanOut(
        f"{subscribers:,} × {per_s:g}/s{beside}", subscribers, per_s, seconds, stalled=stalled
    )


def cases_of_length(seconds: float) -> tuple[FanOut, ...]:
    """All cases, with events for so long."""
    return (
        _rate(1, 20, seconds),
        _rate(1, 200, seconds),
        _rate(10, 200, seconds),
        _rate(100, 100, seconds),
        _rate(1_000, 5, seconds),
        _rate(1_000, 20, seconds),
        _rate(1_000, 20, seconds, stalled=10),
        FanOut("1,000, as fast as it can", 1_000, 0, 0),
        FanOut("1,000 executions × 1/s, one each", 1_000, 1, seconds, executions=1_000),
    )


#: The processes whose share is told, in the order of an event's way.
PARTS: Mapping[str, str] = {
    "tasks": "tasks",
    "execution": "execution actors",
    "store": "store",
    "broadcaster": "broadcasters",
    "websocket": "WebSocket replica",
    "sse": "SSE replica",
    "proxy": "proxy",
    "rest": "all else of it",
    "server": "the bare server",
    "client": "subscribers",
}

COLUMNS = (
    Column("deliveries_per_s", "deliveries/s", 0),
    Column("p50_ms", "p50, ms", 1),
    Column("p99_ms", "p99, ms", 1),
    Column("max_ms", "max, ms", 1),
    Column("events", "events", 0),
    Column("lost", "lost", 0),
    Column("repeated", "repeated", 0),
    Column("disordered", "out of order", 0),
    Column("us_per_delivery", "µs of CPU/delivery", 0),
    Column("cpu_percent", "all, % of a core", 0),
    Column("pss_mb", "all, PSS MB", 0),
    Column("others_percent", "others, % of a core", 0),
)


def parts_columns(figure: str, title: str) -> tuple[Column, ...]:
    """A column for each kind of process."""
    return tuple(Column(f"{figure}_{part}", f"{name}, {title}", 0) for part, name in PARTS.items())


def measure(
    case: FanOut,
    received: Sequence[tuple[str, Received]],
    published: Mapping[str, Sequence[float]],
) -> Measured:
    """Hold what each stream got against what was published.

    `received`: the execution of each stream that was read, with seqs and microseconds. `published`:
    microseconds since the epoch of each event, by execution, from seq 1 on; BEFORE for those that
    were there before anybody subscribed: they have to come, but are no delivery of something new.
    """
    lost = repeated = disordered = unknown = 0
    latencies_ms: list[float] = []
    last_us = 0
    for execution, (seqs, times) in received:
        at_us = published[execution]
        distinct, known = set(seqs), set(range(1, len(at_us) + 1))
        lost += len(known - distinct)
        unknown += len(distinct - known)
        repeated += len(seqs) - len(distinct)
        disordered += sum(after < before for before, after in pairwise(seqs))
        latencies_ms += [
            (time - at_us[seq - 1]) / 1000
            for seq, time in zip(seqs, times, strict=True)
            if seq <= len(at_us) and at_us[seq - 1] != BEFORE
        ]
        last_us = max(last_us, max(times, default=0))
    deliveries = len(latencies_ms)
    first_us = min(time for times in published.values() for time in times if time != BEFORE)
    seconds = max(1e-6, (last_us - first_us) / 1e6)
    offered = case.subscribers * case.per_s
    figures = {
        "subscribers": float(case.subscribers),
        "events": float(sum(time != BEFORE for times in published.values() for time in times)),
        "deliveries": float(deliveries),
        "deliveries_per_s": deliveries / seconds,
        "kept_up": float(deliveries / seconds >= _SHARE_KEPT * offered),
        "lost": float(lost),
        "repeated": float(repeated),
        "disordered": float(disordered),
    }
    if latencies_ms:
        figures |= {
            "p50_ms": percentile(latencies_ms, 50),
            "p99_ms": percentile(latencies_ms, 99),
            "max_ms": max(latencies_ms),
        }
    wrong = {
        "lost": lost,
        "repeated": repeated,
        "out of order": disordered,
        "that nobody published": unknown,
    }
    problems = [f"{count} events {what}" for what, count in wrong.items() if count]
    return Measured(figures, problems)
