"""Runs one execution and stops for ever at a point that it tells, so that it can be killed there.

`python -m tests.support.killed_between URL NAMESPACE DIRECTORY POINT` prints the execution's id and
then `here`. POINT: `blob` (a large output is written, and nobody has been told), `commit` (what
refers to it is stored, and nothing has followed from that).
"""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

from harmonia_actors.settings import Settings
from persistence.blobs import FileBlobs
from persistence.redis_store import RedisStore
from persistence.store import Commit
from tests.support.local import LocalInstallation

__all__ = ["DEFINITION", "INLINE_BYTES_MAX", "LARGE"]

INLINE_BYTES_MAX = 200
LARGE = ["x" * 20] * 50
DEFINITION: dict[str, Any] = {
    "name": "large",
    "tasks": {
        "large": {"component": "harmonia", "action": "echo", "input": {"value": LARGE}},
        "last": {
            "component": "harmonia",
            "action": "echo",
            "depends_on": ["large"],
            "input": {"value": "${tasks.large.output}"},
        },
    },
}


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class _StoppingBlobs(FileBlobs):
    """Stops for ever when the first blob is written."""

    def put(self, name: str, body: bytes) -> str:
        url = super().put(name, body)
        _say("here")
        threading.Event().wait()
        return url


class _StoppingStore(RedisStore):
    """Stops for ever when the first outcome is written."""

    async def commit(self, commit: Commit) -> None:
        await super().commit(commit)
        if any(b'"task_completed"' in body for body in commit.events):
            _say("here")
            await asyncio.Event().wait()


async def _run(url: str, namespace: str, directory: Path, point: str) -> None:
    kind = _StoppingStore if point == "commit" else RedisStore
    store = kind.connect(url, namespace)
    # Each outcome is committed before the next task starts, so that a kill falls between.
    settings = Settings(inline_output_bytes_max=INLINE_BYTES_MAX, stretch_tasks_max=0)
    async with LocalInstallation(store, directory, settings=settings) as installation:
        if point == "blob":
            installation.runner.blobs = _StoppingBlobs(directory / "blobs")
        made = await installation.gateway.create_workflow(DEFINITION)
        reply = await installation.gateway.execute(str(made["workflow_id"]), {}, {})
        _say(str(reply.document["execution_id"]))
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4]))
