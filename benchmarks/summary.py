"""The lines of a run as one document: each figure with its median and spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.aims import judge
from benchmarks.catalogue import CLASSES, SYSTEMS, WORKLOADS
from benchmarks.figures import percentile, spread_of
from benchmarks.ledger import Line
from benchmarks.workloads.workload import Column, Workload

__all__ = ["IDLE", "cases_of", "summarise"]

#: The name, as workload and as case, of what a system is like before it has anything to do.
IDLE = "start and idle"

_IDLE_COLUMNS = (
    Column("ready_s", "seconds until ready", 1),
    Column("idle_cpu_percent", "idle, % of a core", 1),
    Column("pss_mb", "PSS, MB", 0),
    Column("processes", "processes", 0),
)

Json = dict[str, Any]


def summarise(header: Json, lines: Sequence[Line]) -> Json:
    """All that the page, the tables and the plots are made of."""
    chosen = [entry for entry in SYSTEMS if entry.name in header["systems"]]
    facts = {line.system: line.facts for line in lines if line.facts}
    names = [entry.name for entry in chosen]
    document: Json = {
        **{name: value for name, value in header.items() if name != "seed"},
        "classes": CLASSES,
        "systems": [
            {
                "name": entry.name,
                "title": entry.title,
                "durability": entry.durability,
                "note": entry.note,
                "versions": facts.get(entry.name, {}),
            }
            for entry in chosen
        ],
        "idle": {
            "columns": [asdict(column) for column in _IDLE_COLUMNS],
            "cases": cases_of(IDLE, names, lines),
        },
        "workloads": [
            _workload(workload, names, lines)
            for workload in WORKLOADS
            if any(line.workload == workload.id for line in lines)
        ],
    }
    others = [line.figures["others_percent"] for line in lines if "others_percent" in line.figures]
    if others:
        document["others_percent"] = {"median": percentile(others, 50), "most": max(others)}
    return document | {"aims": judge(document)}


def _workload(workload: Workload, systems: Sequence[str], lines: Sequence[Line]) -> Json:
    cases = cases_of(workload.id, systems, lines)
    derived = {}
    for system in systems:
        points = [
            {name: found["median"] for name, found in case["systems"][system]["figures"].items()}
            for case in cases
            if case["systems"].get(system, {}).get("figures")
        ]
        derived[system] = workload.derive(points)
    return {
        "id": workload.id,
        "title": workload.title,
        "method": workload.method,
        "columns": [asdict(column) for column in workload.columns],
        "derived_columns": [asdict(column) for column in workload.derived],
        "cases": cases,
        "derived": {system: found for system, found in derived.items() if found},
    }


def cases_of(workload: str, systems: Sequence[str], lines: Sequence[Line]) -> list[Json]:
    """In the order in which they were run first, each with what every system made of it."""
    ours = [line for line in lines if line.workload == workload]
    order = {line.case: None for system in systems for line in ours if line.system == system}
    return [
        {
            "case": case,
            "systems": {
                system: _result(found)
                for system in systems
                if (found := [x for x in ours if (x.case, x.system) == (case, system)])
            },
        }
        for case in order
    ]


def _result(lines: Sequence[Line]) -> Json:
    samples: dict[str, list[float]] = {}
    for line in lines:
        for name, value in line.figures.items():
            samples.setdefault(name, []).append(value)
    return {
        "figures": {name: asdict(spread_of(values)) for name, values in samples.items()},
        "cannot": sorted({line.cannot for line in lines if line.cannot}),
        "errors": sorted({line.error for line in lines if line.error}),
        "problems": sorted({problem for line in lines for problem in line.problems}),
    }
