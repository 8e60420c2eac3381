"""Celery with two worker processes; its broker and its results are in a store in memory.

A chain is Celery's `chain`; many tasks and one after all of them are its `chord`. It has no other
graphs, and a worker process is held by a task that only waits.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import redis

from benchmarks.graphs import Graph, levels
from benchmarks.jobs import Job, OfferLoad, Outcome, RunGraph, RunMany
from benchmarks.systems.serving import CannotDo, offer, serve
from benchmarks.systems.store import Store, counters

_START_S = 60.0
_END_S = 20.0
_RUN_S_MAX = 300.0


class CeleryRedis:
    """A store, a worker with two processes, and a client."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="bench-celery-"))
        self._worker: subprocess.Popen[bytes] | None = None
        self._server: Store | None = None

    def start(self) -> dict[str, Any]:
        self._server = Store(os.environ["BENCH_STORE_BINARY"], self._directory, "")
        os.environ["BENCH_STORE_URL"] = self._server.url
        from benchmarks.systems.celery_app import act, app

        self._act, self._app = act, app
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.systems.celery_app"]
        command += ["worker", "--concurrency", "2", "--loglevel", "ERROR"]
        self._worker = subprocess.Popen(
            [*command, "--without-gossip", "--without-mingle"], stdout=sys.stderr
        )
        self._store = redis.Redis.from_url(self._server.url)
        act.delay(None, "noop", 0, False).get(timeout=_START_S)
        return {"celery": version("celery"), "store": self._store.info("server")["redis_version"]}

    def counters(self) -> dict[str, float]:
        return counters(self._store)

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.terminate()
            try:
                self._worker.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._worker.kill()
                self._worker.wait()
        if self._server is not None:
            self._server.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def run(self, job: Job) -> Outcome:
        if any(task.action == "sleep" for task in job.graph):
            raise CannotDo("a task that waits holds one of its worker processes")
        match job:
            case RunGraph():
                return self._run_graph(job)
            case OfferLoad():
                return asyncio.run(self._offer(job))
            case RunMany():
                raise CannotDo("not asked for anything else than waiting")

    def _canvas(self, graph: Graph) -> Any:
        from celery import chain, chord

        by_level = levels(graph)
        first, *rest = (
            [self._act.s(*([None] if number == 0 else []), t.action, t.amount, t.takes) for t in lv]
            for number, lv in enumerate(by_level)
        )
        if all(len(level) == 1 for level in by_level):
            return chain(first[0], *(level[0] for level in rest)) if rest else first[0]
        if [len(level) == 1 for level in by_level] == [True, False, True]:
            return chain(first[0], chord(rest[0], rest[1][0]))
        raise CannotDo("its canvas has chains and chords, and no graphs beyond them")

    def _run_graph(self, job: RunGraph) -> Outcome:
        canvas = self._canvas(job.graph)
        begun = time.perf_counter()
        last = canvas.apply_async()
        report = last.get(timeout=_RUN_S_MAX)
        seconds = time.perf_counter() - begun
        times: dict[str, tuple[int, int]] = {}
        result = last
        if job.times and all(len(level) == 1 for level in levels(job.graph)):
            for task in reversed(job.graph):
                found = result.get()
                times[task.name] = (found["began"], found["ended"])
                result = result.parent
        return Outcome(seconds, times, report["value"])

    async def _offer(self, job: OfferLoad) -> Outcome:
        """Completion is told by the result backend; each execution is waited for by a thread."""
        canvas = self._canvas(job.graph)
        gate = threading.BoundedSemaphore(200)

        def one() -> bool:
            with gate:
                result = canvas.apply_async()
                if not job.accepted_only:
                    result.get(timeout=_RUN_S_MAX)
            return True

        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(200) as threads:
            loop = asyncio.get_running_loop()

            async def ended() -> bool:
                return await loop.run_in_executor(threads, one)

            await ended()
            return await offer(job, ended)


if __name__ == "__main__":
    serve(CeleryRedis())
