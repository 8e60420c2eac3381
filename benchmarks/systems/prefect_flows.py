"""Prefect 3 with its own server on SQLite; tasks run in threads of the process of the flow.

Prefect records states, and does not resume a flow of a process that has died.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import actions
from benchmarks.graphs import Graph
from benchmarks.jobs import Job, OfferLoad, Outcome, RunGraph, RunMany
from benchmarks.systems.serving import CannotDo, offer, serve, until_the_end
from benchmarks.systems.store import free_port

_START_S = 120.0
_END_S = 20.0


class Prefect:
    """A server, and flows in this process."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="bench-prefect-"))
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> dict[str, Any]:
        port = free_port()
        os.environ |= {
            "PREFECT_HOME": str(self._directory),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_LOGGING_LEVEL": "ERROR",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
        self._server = subprocess.Popen(command, stdout=sys.stderr)
        deadline = time.monotonic() + _START_S
        while not _answers(f"http://127.0.0.1:{port}/api/health"):
            if time.monotonic() > deadline or self._server.poll() is not None:
                raise RuntimeError("the Prefect server does not answer")
            time.sleep(0.2)
        import prefect

        @prefect.task
        def call(action: str, amount: float, takes: bool, reports: list[Any]) -> actions.Report:
            return actions.perform(action, amount, [r["value"] for r in reports] if takes else [])

        @prefect.flow
        def run(graph: Any) -> dict[str, Any]:
            futures: dict[str, Any] = {}
            for task in graph.tasks:
                before = [futures[name] for name in task.after]
                futures[task.name] = call.submit(
                    task.action,
                    task.amount,
                    task.takes,
                    before if task.takes else [],
                    wait_for=before,
                )
            return {name: future.result() for name, future in futures.items()}

        self._run = run
        return {"prefect": version("prefect")}

    def counters(self) -> dict[str, float]:
        return {}

    def stop(self) -> None:
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def run(self, job: Job) -> Outcome:
        match job:
            case RunGraph():
                begun = time.perf_counter()
                reports = self._run(_Whole(job.graph))
                seconds = time.perf_counter() - begun
                times = {name: (r["began"], r["ended"]) for name, r in reports.items()}
                value = reports[job.graph[-1].name]["value"]
                return Outcome(seconds, times if job.times else {}, value)
            case OfferLoad():
                return asyncio.run(self._offer(job))
            case RunMany():
                raise CannotDo("each flow that waits holds a thread and its tasks one each")

    async def _offer(self, job: OfferLoad) -> Outcome:
        until_the_end(job)

        async def ended() -> bool:
            await asyncio.to_thread(self._run, _Whole(job.graph))
            return True

        await ended()
        return await offer(job, ended)


class _Whole:
    """A graph that Prefect takes as it is, and does not look into for futures."""

    def __init__(self, graph: Graph) -> None:
        self.tasks = graph


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own server
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    serve(Prefect())
