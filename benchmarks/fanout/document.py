"""The results of W8 as a document, as aims that are met or not, and as a section of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from benchmarks.fanout.cases import COLUMNS, parts_columns
from benchmarks.ledger import Line
from benchmarks.summary import cases_of
from benchmarks.tables import aims_table, cases_table

__all__ = ["METHOD", "SYSTEMS", "TITLE", "WORKLOAD", "judge", "section", "summarise"]

Json = dict[str, Any]

WORKLOAD: Final = "W8"
TITLE: Final = "Fan-out of events"
METHOD: Final = (
    "`make bench-events`. Executions report progress at set rates; subscribers, half of them by "
    "WebSocket and half by SSE, are raw connections in a process of their own, open before the "
    "first event. A latency counts from the commit, by the clock of the store, whose whole "
    "milliseconds add up to one to it. Each stream has to bring each event of the execution's log "
    "once and in order. Stalled readers ask for a long history besides and take none of it. `As "
    "fast as it can`: 200 tasks that all may begin at once, 402 events; deliveries count from the "
    "first event's commit to the last one's arrival. The floor is one bare uvicorn process that "
    "writes the same messages, made beforehand, from memory to the same subscribers, without a "
    "proxy, and a latency of it counts from when a message was put there. Between the two, "
    "Harmonia's streams alone: its routes and hub in one process over a store in memory, without "
    "Ray, proxy and engine. Harmonia itself has one replica of each protocol, so it can use both "
    "cores where these have one; subscribers, proxy, engine and store share them."
)
SYSTEMS: Final = (
    {"name": "harmonia", "title": "Harmonia", "durability": "D3"},
    {"name": "surface", "title": "its streams alone", "durability": "D0"},
    {"name": "floor", "title": "bare uvicorn", "durability": "D0"},
)


def summarise(header: Json, lines: Sequence[Line]) -> Json:
    """All that the section is made of."""
    names = [entry["name"] for entry in SYSTEMS]
    document: Json = {
        **{name: value for name, value in header.items() if name != "seed"},
        "systems": list(SYSTEMS),
        "columns": [asdict(column) for column in COLUMNS],
        "parts": [asdict(column) for column in _PARTS],
        "cases": cases_of(WORKLOAD, names, lines),
        "wrong": _wrong(lines),
    }
    return document | {"aims": judge(document)}


_PARTS = (*parts_columns("cpu", "% of a core"), *parts_columns("pss", "MB"))


def judge(document: Json) -> list[Json]:
    """The aims, each with what was measured."""
    lone, many = "1 × 20/s", "1,000 × 20/s"
    stalled, burst = "1,000 × 20/s, 10 more stalled", "1,000, as fast as it can"
    calm = _median(document, many, "p99_ms")
    held_up = _median(document, stalled, "p99_ms")
    ours = _median(document, burst, "deliveries_per_s")
    theirs = _median(document, burst, "deliveries_per_s", "floor")
    return [
        _aim("one subscriber: p50 from the commit, ms", _median(document, lone, "p50_ms"), 5),
        _aim(
            "1,000 subscribers, 20/s each: deliveries/s",
            _median(document, many, "deliveries_per_s"),
            19_000,
            at_least=True,
        ),
        _aim("… p99 from the commit, ms", calm, 100),
        _aim("… p99 with 1 % stalled, by that", _ratio(held_up, calm), 1.1),
        _aim("as fast as it can: deliveries/s by the floor's", _ratio(ours, theirs), 0.5, True),
        _aim("lost, repeated or out of order, in all cases", document["wrong"], 0),
    ]


def _aim(what: str, value: float | None, limit: float, at_least: bool = False) -> Json:
    met = None if value is None else value >= limit if at_least else value <= limit
    return {
        "workload": WORKLOAD,
        "what": what,
        "limit": f"{'≥' if at_least else '≤'} {limit:,g}",
        "measured": value,
        "met": met,
    }


def _median(document: Json, case: str, figure: str, system: str = "harmonia") -> float | None:
    for found in document["cases"]:
        if found["case"] == case:
            figures = found["systems"].get(system, {}).get("figures", {})
            return float(figures[figure]["median"]) if figure in figures else None
    return None


def _ratio(value: float | None, by: float | None) -> float | None:
    return value / by if value is not None and by else None


def _wrong(lines: Sequence[Line]) -> float | None:
    """The most that any run had of it: one is too many, however many had none."""
    found = [
        line.figures[name]
        for line in lines
        for name in ("lost", "repeated", "disordered")
        if line.system == "harmonia" and name in line.figures
    ]
    return max(found, default=None)


def section(document: Json | None) -> str:
    """For the page; without results only what will be measured."""
    head = f"## {WORKLOAD}: {TITLE}\n\n{METHOD}\n"
    if document is None:
        return f"{head}\nThis version has not been measured yet: `make bench-events`.\n"
    machine = document["machine"]
    run = (
        f"Rounds: {document['rounds']}, {document['seconds']} s each, begun {document['began']}, "
        f"code {document['commit'] or 'unknown'}. {machine['processor']}, {machine['cores']} "
        f"cores; load average at the beginning {document['load']:.2f}."
    )
    return "\n".join(
        [
            head,
            f"{run}\n",
            f"{aims_table(document)}\n",
            f"{cases_table(document, document['columns'], document['cases'])}\n",
            "What each part of it took meanwhile:\n",
            f"{cases_table(document, document['parts'], document['cases'])}\n",
        ]
    )
