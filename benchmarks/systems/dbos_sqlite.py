"""DBOS with its default store, SQLite: each step is recorded before the next one begins.

A graph is one workflow that runs it level by level, the steps of a level with `asyncio.gather`,
which is DBOS's own way to run steps at once in an order that a recovery finds again.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSConfig

from benchmarks import actions
from benchmarks.graphs import Graph, graph_of, levels
from benchmarks.jobs import Job, OfferLoad, Outcome, RunGraph, RunMany
from benchmarks.systems.serving import offer, serve


@DBOS.step()
async def step(action: str, amount: float, values: list[Any]) -> actions.Report:
    """One task."""
    return await actions.perform_waiting(action, amount, values)


@DBOS.workflow()
async def run_graph(rows: list[Any]) -> dict[str, Any]:
    """One execution; what its tasks report."""
    reports: dict[str, Any] = {}
    for level in levels(graph_of(rows)):
        calls = [
            step(
                task.action,
                task.amount,
                [reports[name]["value"] for name in task.after] if task.takes else [],
            )
            for task in level
        ]
        if len(calls) == 1:
            made = [await calls[0]]
        else:
            made = await asyncio.gather(*calls)
        reports |= {task.name: report for task, report in zip(level, made, strict=True)}
    return reports


class Dbos:
    """DBOS in this process, as it is used: a library."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="bench-dbos-"))
        self._loop = asyncio.new_event_loop()

    def start(self) -> dict[str, Any]:
        file = self._directory / "dbos.sqlite"
        config: DBOSConfig = {
            "name": "bench",
            "system_database_url": f"sqlite:///{file}",
            "log_level": "ERROR",
            "run_admin_server": False,
        }
        DBOS(config=config)
        DBOS.launch()
        with sqlite3.connect(file) as connection:
            mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        return {"dbos": version("dbos"), "sqlite": sqlite3.sqlite_version, "journal": mode}

    def counters(self) -> dict[str, float]:
        return {}

    def stop(self) -> None:
        DBOS.destroy()
        shutil.rmtree(self._directory, ignore_errors=True)

    def run(self, job: Job) -> Outcome:
        return self._loop.run_until_complete(self._run(job))

    async def _run(self, job: Job) -> Outcome:
        rows = _rows(job.graph)
        match job:
            case RunGraph():
                begun = time.perf_counter()
                reports = await run_graph(rows)
                seconds = time.perf_counter() - begun
                times = {name: (r["began"], r["ended"]) for name, r in reports.items()}
                value = reports[job.graph[-1].name]["value"]
                return Outcome(seconds, times if job.times else {}, value)
            case RunMany():
                outcome = Outcome(0)
                begun = time.perf_counter()

                async def one() -> None:
                    await run_graph(rows)
                    outcome.latencies_ms.append((time.perf_counter() - begun) * 1000)

                await asyncio.gather(*(one() for _ in range(job.count)))
                outcome.seconds = time.perf_counter() - begun
                return outcome
            case OfferLoad():

                async def ended() -> bool:
                    if job.accepted_only:
                        await DBOS.start_workflow_async(run_graph, rows)
                    else:
                        await run_graph(rows)
                    return True

                await ended()
                return await offer(job, ended)


def _rows(graph: Graph) -> list[Any]:
    return [[t.name, t.action, t.amount, list(t.after), t.takes] for t in graph]


if __name__ == "__main__":
    serve(Dbos())
