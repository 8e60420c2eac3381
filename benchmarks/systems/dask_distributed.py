"""dask.distributed with two worker processes of one thread: graphs without durability."""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version
from typing import Any

from distributed import Client, LocalCluster, wait

from benchmarks import actions
from benchmarks.graphs import Graph
from benchmarks.jobs import Job, OfferLoad, Outcome, RunGraph, RunMany
from benchmarks.systems.serving import CannotDo, offer, serve, until_the_end


def call(action: str, amount: float, takes: bool, reports: list[Any]) -> actions.Report:
    """One task."""
    return actions.perform(action, amount, [r["value"] for r in reports] if takes else [])


class Dask:
    """A local cluster and its client."""

    def start(self) -> dict[str, Any]:
        self._cluster = LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        )
        self._client = Client(self._cluster)
        self._client.submit(call, "noop", 0, False, [], pure=False).result()
        return {"distributed": version("distributed")}

    def counters(self) -> dict[str, float]:
        return {}

    def stop(self) -> None:
        self._client.close()
        self._cluster.close()

    def run(self, job: Job) -> Outcome:
        if any(task.action == "sleep" for task in job.graph):
            raise CannotDo("a task that waits holds one of its worker threads")
        match job:
            case RunGraph():
                return self._run_graph(job)
            case OfferLoad():
                return asyncio.run(self._offer(job))
            case RunMany():
                raise CannotDo("not asked for anything else than waiting")

    def _submit(self, graph: Graph, client: Any) -> dict[str, Any]:
        futures: dict[str, Any] = {}
        for task in graph:
            before = [futures[name] for name in task.after]
            futures[task.name] = client.submit(
                call, task.action, task.amount, task.takes, before, pure=False
            )
        return futures

    def _run_graph(self, job: RunGraph) -> Outcome:
        begun = time.perf_counter()
        futures = self._submit(job.graph, self._client)
        wait(list(futures.values()))
        last = futures[job.graph[-1].name].result()
        seconds = time.perf_counter() - begun
        times: dict[str, tuple[int, int]] = {}
        if job.times:
            reports = self._client.gather(list(futures.values()))
            times = {
                name: (report["began"], report["ended"])
                for name, report in zip(futures, reports, strict=True)
            }
        return Outcome(seconds, times, last["value"])

    async def _offer(self, job: OfferLoad) -> Outcome:
        until_the_end(job)
        async with Client(self._cluster.scheduler_address, asynchronous=True) as client:

            async def ended() -> bool:
                await self._submit(job.graph, client)[job.graph[-1].name]
                return True

            await ended()
            return await offer(job, ended)


if __name__ == "__main__":
    serve(Dask())
