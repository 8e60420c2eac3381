"""Killed between a large output and what refers to it: nothing dangles, and nothing is left over.

A process with the real service and drivers, a file blob store and a real server is killed there;
this one takes over.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.core import jsontext
from harmonia_actors.core.records import decode_row
from harmonia_actors.runtime.janitor import Janitor, JanitorLimits, Place
from harmonia_actors.runtime.places import BlobPlace
from harmonia_actors.settings import Settings
from persistence.embedded import EmbeddedServer
from persistence.redis_store import RedisStore
from tests.architecture.source import ROOT
from tests.support.killed_between import INLINE_BYTES_MAX, LARGE
from tests.support.local import LocalInstallation

_HOUR_MS = 3_600_000


@pytest.fixture
async def store(redis_server: EmbeddedServer, redis_namespace: str) -> AsyncIterator[RedisStore]:
    opened = RedisStore.connect(redis_server.url, redis_namespace)
    yield opened
    await opened.close()


async def killed_at(point: str, server: EmbeddedServer, namespace: str, directory: Path) -> str:
    """Run it in a process of its own, and kill that at the point. Returns the execution's id."""
    module = "tests.support.killed_between"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, server.url, namespace, str(directory), point),
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            said = {(await process.stdout.readline()).decode().strip() for _ in range(2)}
    finally:
        process.kill()
        await process.wait()
    assert "here" in said
    (execution_id,) = said - {"here"}
    return execution_id


@asynccontextmanager
async def heir(store: RedisStore, directory: Path) -> AsyncIterator[LocalInstallation]:
    """Another process's worth of owners, which take over what those that died had."""
    dead = [owner.owner for owner in await store.owners()]
    settings = Settings(inline_output_bytes_max=INLINE_BYTES_MAX)
    installation = LocalInstallation(store, directory, owners=0, settings=settings)
    async with installation, asyncio.timeout(60):
        for owner in dead:
            while await store.orphan(owner, limit=100):
                pass
        yield installation


async def ended(installation: LocalInstallation, execution_id: str) -> dict[str, Any]:
    await installation.add_owner("heir")
    async for _ in installation.gateway.events(execution_id, after=0):
        pass
    audit = await installation.gateway.audit_execution(execution_id)
    assert (audit["complete"], audit["violations"]) == (True, [])
    return await installation.gateway.get_execution(execution_id, outputs=True)


async def given_up(installation: LocalInstallation, execution_id: str) -> None:
    """It is there when one owner after the other dies, until it is quarantined."""
    store = installation.store
    for number in range(installation.host_limits.crashes_max):
        doomed = f"doomed-{number}"
        await store.renew_owner(doomed, lease_ms=60_000)
        assert await store.claim_next(doomed, owners_max=1) is not None
        assert await store.orphan(doomed, limit=10, blame=True) == 1
    found = await ended(installation, execution_id)
    assert (found["status"], found["error"]["code"]) == ("failed", "quarantined")


async def referred_to(store: RedisStore, execution_id: str) -> list[str]:
    """URLs of all blobs that what is stored refers to."""
    snapshot = await store.read_execution(execution_id)
    assert snapshot is not None
    rows = [decode_row(body) for _, body in sorted(snapshot.rows.items())]
    return [row.output.url for row in rows if row.output is not None and row.output.url]


def blobs_below(directory: Path) -> set[str]:
    """URLs of all files in the blob store, finished or not."""
    return {path.as_uri() for path in (directory / "blobs").rglob("*") if path.is_file()}


async def cleaned(installation: LocalInstallation, *, retention_ms: int) -> None:
    async def places() -> Sequence[Place]:
        return [BlobPlace(installation.blobs)]

    janitor = Janitor(installation.store, places, JanitorLimits(retention_ms, orphan_age_s=60.0))
    while await janitor.round():
        pass


@pytest.mark.parametrize(("point", "attempt"), [("blob", 2), ("commit", 1)])
async def test_an_output_is_whole_and_nothing_dangles(
    redis_server: EmbeddedServer,
    redis_namespace: str,
    store: RedisStore,
    tmp_path: Path,
    point: str,
    attempt: int,
) -> None:
    execution_id = await killed_at(point, redis_server, redis_namespace, tmp_path)
    left = blobs_below(tmp_path)
    assert len(left) == 1
    assert await referred_to(store, execution_id) == ([] if point == "blob" else [*left])

    async with heir(store, tmp_path) as installation:
        found = await ended(installation, execution_id)
        assert found["status"] == "completed"
        assert found["task_status"]["large"]["attempt"] == attempt
        output = await installation.gateway.get_task_output(execution_id, "last")
        assert jsontext.decode(output)["value"] == {"value": LARGE}
        urls = await referred_to(store, execution_id)
        assert len(urls) == 2
        for url in urls:
            assert installation.blobs.get(url)
        # Neither the attempt that died nor the janitor leaves anything else, nor takes any of it.
        await cleaned(installation, retention_ms=_HOUR_MS)
        assert blobs_below(tmp_path) == {*urls, *composed(installation, execution_id, tmp_path)}
        await cleaned(installation, retention_ms=0)
        assert blobs_below(tmp_path) == set()


def composed(installation: LocalInstallation, execution_id: str, directory: Path) -> set[str]:
    """The blob of the execution's own output, if it has one."""
    path = directory / "blobs" / execution_id / "execution.json"
    return {path.as_uri()} if path.exists() else set()


async def test_a_blob_that_nobody_ever_heard_of_goes_with_its_execution(
    redis_server: EmbeddedServer, redis_namespace: str, store: RedisStore, tmp_path: Path
) -> None:
    """It is given up, so that no other attempt follows the one that died."""
    execution_id = await killed_at("blob", redis_server, redis_namespace, tmp_path)
    async with heir(store, tmp_path) as installation:
        await given_up(installation, execution_id)
        assert len(blobs_below(tmp_path)) == 1
        assert await referred_to(store, execution_id) == []
        await cleaned(installation, retention_ms=0)
        assert blobs_below(tmp_path) == set()


async def test_a_blob_that_comes_when_its_execution_has_gone_is_found_by_the_sweep(
    redis_server: EmbeddedServer, redis_namespace: str, store: RedisStore, tmp_path: Path
) -> None:
    execution_id = await killed_at("blob", redis_server, redis_namespace, tmp_path)
    async with heir(store, tmp_path) as installation:
        await given_up(installation, execution_id)
        await cleaned(installation, retention_ms=0)
        # A process that was given up writes on.
        installation.blobs.put(f"{execution_id}/0-1.json", b"late")
        directory = tmp_path / "blobs" / execution_id
        for path in (directory / "0-1.json", directory):
            os.utime(path, (0, 0))
        await cleaned(installation, retention_ms=0)
        assert blobs_below(tmp_path) == set()
