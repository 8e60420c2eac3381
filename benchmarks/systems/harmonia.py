"""Harmonia as its users have it: `harmonia up`, then plain HTTP. All commits are made durable.

`python -m benchmarks.systems.harmonia everysec` runs it on a store that writes once a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import redis

from benchmarks.graphs import Graph
from benchmarks.jobs import Job, OfferLoad, Outcome, RunGraph, RunMany
from benchmarks.systems.serving import offer, serve
from benchmarks.systems.store import Store, counters, free_port

_END_S = 60.0
_PAGE = 100
#: More than these are not held as open requests, but asked after.
_OPEN_REQUESTS_MAX = 2_000
_SUBMITTED_AT_ONCE = 64
_LOOK_S = 0.2
#: The limits that the workloads pass on purpose, as far as they pass them: how many may be at once,
#: and nothing about how they are run or made durable.
SETTINGS = {
    "HARMONIA_WORKFLOW_TASKS_MAX": "20000",
    "HARMONIA_ASYNC_ATTEMPTS_MAX": "20000",
    "HARMONIA_EXECUTIONS_PER_ACTOR_MAX": "5000",
    "HARMONIA_RATE_LIMIT_PER_S": "1000000",
    "HARMONIA_LOG_LEVEL": "ERROR",
}


class Harmonia:
    """The service in a directory of its own."""

    def __init__(self, fsync: str, settings: Mapping[str, str] | None = None) -> None:
        self._fsync = fsync
        self._settings = SETTINGS | dict(settings or {})
        self._directory = Path(tempfile.mkdtemp(prefix="bench-harmonia-"))
        self._data_dir = self._directory / "data"
        self._process: subprocess.Popen[str] | None = None
        self._own_store: Store | None = None
        self._workflows: dict[Graph, str] = {}

    def start(self) -> dict[str, Any]:
        command = [sys.executable, "-m", "harmonia_serve.cli", "up", "--json"]
        command += ["--data-dir", str(self._data_dir), "--port", str(free_port())]
        command += ["--components", "benchmarks.harmonia_component"]
        environment = os.environ | self._settings
        if self._fsync != "always":
            binary = os.environ["BENCH_STORE_BINARY"]
            self._own_store = Store(binary, self._directory, self._fsync)
            environment["HARMONIA_REDIS_URL"] = self._own_store.url
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("harmonia up has ended; its log is above")
        connection = json.loads((self._data_dir / "connection.json").read_text())
        self._connect(json.loads(line)["url"], connection["api_key"])
        return {"store": self._store.info("server")["redis_version"], "fsync": self._fsync}

    def _connect(self, service: str, api_key: str) -> None:
        self._url = f"{service}/api/harmonia"
        self._headers = {"X-API-Key": api_key}
        self._store = redis.Redis.from_url(self._store_url())

    @property
    def url(self) -> str:
        """Where its API begins."""
        return self._url

    @property
    def headers(self) -> dict[str, str]:
        """What a request has to carry."""
        return self._headers

    @property
    def data_dir(self) -> Path:
        """By which its processes are known."""
        return self._data_dir

    def _store_url(self) -> str:
        if self._own_store is not None:
            return self._own_store.url
        config = next(self._data_dir.rglob("server.conf")).read_text()
        port, password = (
            re.search(rf"^{name} (\S+)$", config, re.MULTILINE) for name in ("port", "requirepass")
        )
        if port is None or password is None:
            raise RuntimeError("the configuration of the embedded store has no port or password")
        return f"redis://:{password[1]}@127.0.0.1:{port[1]}/0"

    def counters(self) -> dict[str, float]:
        return counters(self._store)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        if self._own_store is not None:
            self._own_store.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def run(self, job: Job) -> Outcome:
        return asyncio.run(self._run(job))

    async def _run(self, job: Job) -> Outcome:
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            headers=self._headers, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
        ) as http:
            if job.graph not in self._workflows:
                self._workflows[job.graph] = await self._create(http, job.graph)
            workflow_id = self._workflows[job.graph]
            match job:
                case RunGraph():
                    return await self._run_graph(http, workflow_id, job)
                case RunMany():
                    return await self._run_many(http, workflow_id, job)
                case OfferLoad():
                    return await self._offer(http, workflow_id, job)

    async def _create(self, http: aiohttp.ClientSession, graph: Graph) -> str:
        body = {"name": "benchmark", "tasks": {task.name: _task(task) for task in graph}}
        async with http.post(f"{self._url}/workflows", json=body) as answer:
            document = await answer.json()
            if answer.status != 201:
                raise RuntimeError(f"{answer.status}: {document}")
            return str(document["workflow_id"])

    async def _execute(
        self, http: aiohttp.ClientSession, workflow_id: str, *, wait: bool
    ) -> dict[str, Any]:
        body = {"workflow_id": workflow_id, "execution_options": {"async": not wait}}
        async with http.post(f"{self._url}/executions", json=body) as answer:
            text = await answer.text()
            if answer.status not in (200, 202):
                raise RuntimeError(f"{answer.status}: {text[:500]}")
            found: dict[str, Any] = json.loads(text)
            return found

    async def _run_graph(
        self, http: aiohttp.ClientSession, workflow_id: str, job: RunGraph
    ) -> Outcome:
        begun = time.perf_counter()
        ended = await self._execute(http, workflow_id, wait=True)
        seconds = time.perf_counter() - begun
        if ended["status"] != "completed":
            raise RuntimeError(f"the execution is {ended['status']}: {ended.get('error')}")
        tasks = f"{self._url}/executions/{ended['execution_id']}/tasks"
        async with http.get(f"{tasks}/{job.graph[-1].name}/output") as answer:
            value = (await answer.json())["value"]
        times: dict[str, tuple[int, int]] = {}
        for page in range(1, -(-len(job.graph) // _PAGE) + 1) if job.times else ():
            async with http.get(tasks, params={"page": page, "limit": _PAGE}) as answer:
                for item in (await answer.json())["items"]:
                    output = item["output"]
                    times[item["task_name"]] = (output["began"], output["ended"])
        return Outcome(seconds, times=times, value=value)

    async def _run_many(
        self, http: aiohttp.ClientSession, workflow_id: str, job: RunMany
    ) -> Outcome:
        outcome = Outcome(0)
        wait = job.count <= _OPEN_REQUESTS_MAX
        gate = asyncio.Semaphore(_OPEN_REQUESTS_MAX if wait else _SUBMITTED_AT_ONCE)
        begun = time.perf_counter()

        async def one() -> None:
            try:
                async with gate:
                    found = await self._execute(http, workflow_id, wait=wait)
            except RuntimeError as error:
                outcome.note_failure(str(error))
                return
            if wait and found["status"] == "completed":
                outcome.latencies_ms.append((time.perf_counter() - begun) * 1000)
            elif wait:
                outcome.note_failure(f"the execution is {found['status']}")

        await asyncio.gather(*(one() for _ in range(job.count)))
        accepted = job.count - outcome.failed
        while not wait and await self._count(http, workflow_id, "completed") < accepted:
            if await self._count(http, workflow_id, "failed"):
                outcome.note_failure("an execution has failed")
                break
            await asyncio.sleep(_LOOK_S)
        outcome.seconds = time.perf_counter() - begun
        # The next job of this graph must not count these.
        del self._workflows[job.graph]
        return outcome

    async def _count(self, http: aiohttp.ClientSession, workflow_id: str, status: str) -> int:
        query: dict[str, str | int] = {"workflow_id": workflow_id, "status": status, "limit": 1}
        async with http.get(f"{self._url}/executions", params=query) as answer:
            return int((await answer.json())["total"])

    async def _offer(
        self, http: aiohttp.ClientSession, workflow_id: str, job: OfferLoad
    ) -> Outcome:
        async def one() -> bool:
            found = await self._execute(http, workflow_id, wait=not job.accepted_only)
            return job.accepted_only or found["status"] == "completed"

        await one()
        return await offer(job, one)


def _task(task: Any) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if task.action in ("fibonacci", "work", "payload", "sleep"):
        given["amount"] = task.amount
    if task.takes:
        given["values"] = [f'${{tasks["{name}"].output.value}}' for name in task.after]
    return {
        "name": task.name,
        "component": "bench",
        "action": task.action,
        "input": given,
        "depends_on": list(task.after),
    }


if __name__ == "__main__":
    serve(Harmonia(sys.argv[1] if len(sys.argv) > 1 else "always"))
