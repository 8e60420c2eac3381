"""Fills an embedded server with executions, lets them expire, and counts what is left.

`python -m tests.support.after_expiry 10000` prints the figures.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio as redis

from harmonia_actors.runtime.janitor import Janitor, JanitorLimits, Place
from harmonia_actors.runtime.places import BlobPlace, DirectoryPlace
from harmonia_actors.settings import Settings
from persistence.embedded import EmbeddedServer
from persistence.redis_store import RedisStore
from tests.support.local import LocalInstallation

__all__ = ["ALLOCATOR_BYTES", "DISK_BYTES", "Life", "Reading", "live_and_expire"]

#: Memory that the server may have at the end beyond the start: what its allocator, its clients'
#: buffers and its tables, which shrink step by step, keep for a while.
ALLOCATOR_BYTES = 1_000_000
#: The same for the disk: what is written between the last rewriting and the look.
DISK_BYTES = 100_000

_AT_ONCE = 40
_COMPACT_BYTES_MIN = 1_000_000
_END_S = 60.0

#: A few small outputs, which follow each other, and a large one, which becomes a blob.
_DEFINITION: dict[str, Any] = {
    "name": "short",
    "tasks": {
        "first": {"component": "harmonia", "action": "echo", "input": {"value": {"n": 1}}},
        "large": {"component": "harmonia", "action": "echo", "input": {"value": ["x" * 20] * 20}},
        "last": {
            "component": "harmonia",
            "action": "echo",
            "depends_on": ["first", "large"],
            "input": {"value": "${tasks.first.output.value.n}"},
        },
    },
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What there is at one moment."""

    keys: int
    memory_bytes: int
    #: The append-only file with all its parts.
    disk_bytes: int
    #: Blobs and files of executions.
    outside: int


@dataclass(frozen=True, slots=True)
class Life:
    """Before the executions, when all have ended, and when all have expired."""

    begin: Reading
    full: Reading
    end: Reading


@dataclass
class _Rig:
    directory: Path
    server: EmbeddedServer
    admin: redis.Redis
    store: RedisStore
    installation: LocalInstallation
    workflow_id: str = ""

    def append_only_files(self) -> list[Path]:
        return [*(self.directory / "store" / "appendonlydir").glob("*")]

    async def rewrite(self) -> None:
        """Until there are one file of what is kept, one of what comes, and the list of both."""
        await self.admin.bgrewriteaof()
        async with asyncio.timeout(_END_S):
            while True:
                info = await self.admin.info("persistence")
                busy = info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"]
                if not busy and len(self.append_only_files()) == 3:
                    return
                await asyncio.sleep(0.02)

    async def read(self) -> Reading:
        installation = self.installation
        files = self.append_only_files()
        memory = await self.admin.info("memory")
        return Reading(
            await self.admin.dbsize(),
            memory["used_memory"],
            sum(map(_size, files)),
            len(installation.blobs.first_parts("", 10**6)) + len(installation.files.ids("", 10**6)),
        )

    async def run(self, count: int) -> None:
        limited = asyncio.Semaphore(_AT_ONCE)

        async def one() -> None:
            async with limited:
                reply = await self.installation.gateway.execute(
                    self.workflow_id, {}, {"async": False}
                )
                assert reply.document["status"] == "completed", reply.document

        await asyncio.gather(*(one() for _ in range(count)))

    async def clean(self) -> None:
        """As the supervisor does it, but for the time between two rounds."""

        async def places() -> Sequence[Place]:
            return [BlobPlace(self.installation.blobs), DirectoryPlace(self.installation.files)]

        limits = JanitorLimits(0, 86_400.0, compact_bytes_min=_COMPACT_BYTES_MIN)
        janitor = Janitor(self.store, places, limits)
        while await janitor.round():
            pass

    async def settle(self, condition: Callable[[Reading], bool]) -> Reading:
        """Read until the condition holds, or the time is over: who asked will see."""
        deadline_s = asyncio.get_running_loop().time() + _END_S
        while True:
            found = await self.read()
            if condition(found) or asyncio.get_running_loop().time() > deadline_s:
                return found
            await asyncio.sleep(0.05)


async def live_and_expire(directory: Path, count: int) -> Life:
    """So many executions, by the real service, store and janitor, and a server of their own."""
    server = EmbeddedServer(directory)
    await asyncio.to_thread(server.start)
    # The log names commits, whatever has expired: a short one has its full length at the start.
    store = RedisStore.connect(server.url, "harmonia", log_entries_max=100)
    settings = Settings(inline_output_bytes_max=200)
    try:
        async with (
            redis.Redis.from_url(server.url) as admin,
            LocalInstallation(store, directory, settings=settings) as installation,
        ):
            rig = _Rig(directory, server, admin, store, installation)
            return await _live(rig, count)
    finally:
        await store.close()
        await asyncio.to_thread(server.stop)


async def _live(rig: _Rig, count: int) -> Life:
    # An installation that has been used has some keys more, and its server some memory, for ever.
    made = await rig.installation.gateway.create_workflow(_DEFINITION)
    rig.workflow_id = str(made["workflow_id"])
    await rig.run(_AT_ONCE)
    await rig.clean()
    await rig.rewrite()
    begin = await rig.read()
    await rig.run(count)
    full = await rig.read()
    await rig.clean()
    end = await rig.settle(
        lambda now: (
            now.disk_bytes <= begin.disk_bytes + DISK_BYTES
            and now.memory_bytes <= begin.memory_bytes + ALLOCATOR_BYTES
        )
    )
    return Life(begin, full, end)


def _main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as directory:
        life = asyncio.run(live_and_expire(Path(directory), count))
    print(f"{count} executions")
    for name in ("begin", "full", "end"):
        found: Reading = getattr(life, name)
        print(
            f"{name:>6}: {found.keys:>7} keys, {found.memory_bytes / 1e6:8.2f} MB in memory, "
            f"{found.disk_bytes / 1e6:8.2f} MB on disk, {found.outside:>6} blobs and directories"
        )


def _size(file: Path) -> int:
    """In bytes; a rewrite of the server's own accord may have replaced it by now."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    _main()
