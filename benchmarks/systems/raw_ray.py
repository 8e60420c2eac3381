"""Ray without an engine: the floor. Nothing is durable; a task is a call, a graph is its refs.

Tasks that wait are calls of one async actor, which is what Ray offers for them. Requests come by
Ray Serve, with the ingress and as many replicas as Harmonia has.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks import actions
from benchmarks.graphs import Graph
from benchmarks.jobs import Job, OfferLoad, Outcome, RunGraph, RunMany
from benchmarks.systems.serving import CannotDo, offer, serve, until_the_end
from benchmarks.systems.store import free_port

_WAITING_MAX = 20_000


class RawRay:
    """A cluster of one node, an actor that waits, and three Serve applications."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="bench-ray-"))
        self._started = False

    def start(self) -> dict[str, Any]:
        from harmonia_actors.settings import Settings
        from harmonia_serve.ingress import choose_ingress, serve_environment

        settings = Settings(port=free_port(), data_dir=self._directory / "data")
        os.environ |= serve_environment(settings)
        os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        os.environ |= {"RAY_SCHEDULER_EVENTS": "0", "RAY_enable_metrics_collection": "0"}
        import ray
        from ray import serve as ray_serve
        from ray.serve.config import HTTPOptions

        self._ray: Any = ray
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",  # type: ignore[arg-type]
            _node_ip_address="127.0.0.1",
            _temp_dir=str(self._directory),
        )
        self._started = True

        def call(action: str, amount: float, takes: bool, *values: Any) -> actions.Report:
            made = [value["value"] for value in values] if takes else []
            return actions.perform(action, amount, made)

        class Waiting:
            async def call(
                self, action: str, amount: float, takes: bool, *values: Any
            ) -> actions.Report:
                made = [value["value"] for value in values] if takes else []
                return await actions.perform_waiting(action, amount, made)

        self._call = ray.remote(call)
        waiting = ray.remote(Waiting)
        self._waiting: Any = waiting.options(max_concurrency=_WAITING_MAX, num_cpus=0).remote()
        ingress = choose_ingress(settings)
        ray_serve.start(http_options=HTTPOptions(host=ingress.serve_host, port=settings.port))
        ray_serve.run_many(
            [
                ray_serve.RunTarget(
                    _application(name, self._call), name=name, route_prefix=f"/{name}"
                )
                for name in ("run", "idle1", "idle2")
            ]
        )
        self._url = f"http://127.0.0.1:{settings.port}/run"
        ray.get([self._call.remote("noop", 0, False) for _ in range(8)])
        return {"ray": ray.__version__, "ingress": ingress.kind}

    def counters(self) -> dict[str, float]:
        return {}

    def stop(self) -> None:
        if self._started:
            from ray import serve as ray_serve

            ray_serve.shutdown()  # type: ignore[no-untyped-call]
            self._ray.shutdown()
        shutil.rmtree(self._directory, ignore_errors=True)

    def run(self, job: Job) -> Outcome:
        match job:
            case RunGraph():
                begun = time.perf_counter()
                refs = self._submit(job.graph)
                reports = self._ray.get(list(refs.values()))
                seconds = time.perf_counter() - begun
                times = {
                    name: (report["began"], report["ended"])
                    for name, report in zip(refs, reports, strict=True)
                }
                return Outcome(seconds, times if job.times else {}, reports[-1]["value"])
            case RunMany():
                return self._run_many(job)
            case OfferLoad():
                return asyncio.run(self._offer(job))

    def _submit(self, graph: Graph) -> dict[str, Any]:
        refs: dict[str, Any] = {}
        for task in graph:
            target = self._waiting.call if task.action == "sleep" else self._call
            before = [refs[name] for name in task.after]
            refs[task.name] = target.remote(task.action, task.amount, task.takes, *before)
        return refs

    def _run_many(self, job: RunMany) -> Outcome:
        begun = time.perf_counter()
        last = [self._submit(job.graph)[job.graph[-1].name] for _ in range(job.count)]
        reports = self._ray.get(last)
        seconds = time.perf_counter() - begun
        start_us = time.time_ns() // 1000 - seconds * 1e6
        return Outcome(
            seconds, latencies_ms=[(report["ended"] - start_us) / 1000 for report in reports]
        )

    async def _offer(self, job: OfferLoad) -> Outcome:
        until_the_end(job)
        if len(job.graph) > 1:
            raise CannotDo("its Serve application runs one task per request")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

            async def one() -> bool:
                async with http.post(self._url, json={}) as answer:
                    await answer.read()
                    return answer.status == 200

            await one()
            return await offer(job, one)


def _application(name: str, call: Any) -> Any:
    from ray import serve as ray_serve
    from starlette.requests import Request

    async def respond(self: Any, request: Request) -> dict[str, Any]:
        await request.body()
        report: dict[str, Any] = await call.remote("noop", 0, False)
        return report

    respond.__annotations__["request"] = Request
    replica = type(name, (), {"__call__": respond})
    deployment: Any = ray_serve.deployment(
        replica, max_ongoing_requests=1_000, ray_actor_options={"num_cpus": 0}
    )
    return deployment.bind()


if __name__ == "__main__":
    serve(RawRay())
