"""What the store says of its server: what it promises, why not, and that it is away for now."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from redis.exceptions import DataError, ResponseError

from persistence.embedded import EmbeddedServer, find_binary
from persistence.errors import StoreUnavailable, UnsuitableServer
from persistence.redis_client import RedisClient, is_refusal
from persistence.redis_store import RedisStore
from persistence.redis_suitability import refuse_kind
from persistence.store import Commit, NewExecution
from tests.contract.builders import DEADLINE_S, claimed, create, next_commit
from tests.support.owning import claim
from tests.support.scripted_actors import until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of this test's own, to be mistreated."""
    one = EmbeddedServer(tmp_path)
    one.start()
    yield one
    one.stop()


@pytest.fixture
async def store(server: EmbeddedServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore.connect(server.url, "test", timeout_ms=2_000)
    yield opened
    await opened.close()


@pytest.fixture
async def admin(server: EmbeddedServer) -> AsyncIterator[redis.Redis]:
    async with redis.Redis.from_url(server.url) as client:
        yield client


async def test_the_embedded_server_promises_always(store: RedisStore):
    assert (await store.durability()).promise == "always"


@pytest.mark.parametrize(
    ("settings", "promise", "reason"),
    [
        ({"appendfsync": "everysec"}, "everysec", "once a second"),
        ({"appendfsync": "no"}, "none", "appendfsync no"),
        ({"no-appendfsync-on-rewrite": "yes"}, "none", "no-appendfsync-on-rewrite yes"),
        ({"appendonly": "no"}, "none", "append-only file is off; no snapshot"),
        ({"appendonly": "no", "save": "60 1"}, "none", "snapshots only"),
    ],
)
async def test_the_promise_is_what_the_configuration_allows(
    store: RedisStore, admin: redis.Redis, settings: dict[str, str], promise: str, reason: str
):
    for name, value in settings.items():
        await admin.config_set(name, value)
    durability = await store.durability()
    assert durability.promise == promise
    assert reason in durability.detail


@pytest.mark.parametrize("wrong", ["half a pair \ud800", None, True])
async def test_what_cannot_be_sent_is_an_error_of_whoever_sends_it(
    server: EmbeddedServer, wrong: Any
):
    """Commands of others travel with it."""
    client = RedisClient(server.url, connections_max=4, timeout_ms=2_000)
    try:
        found = await asyncio.gather(
            client.command("SET", "a", "1"),
            client.command("SET", "b", wrong),
            client.command("GET", "a"),
            return_exceptions=True,
        )
        assert found[0] == b"OK"
        assert isinstance(found[1], ValueError | DataError)
        assert found[2] == b"1"
    finally:
        await client.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_evicts_is_refused(store: RedisStore, admin: redis.Redis, policy: str):
    await admin.config_set("maxmemory-policy", policy)
    with pytest.raises(UnsuitableServer, match=f"{policy}.*noeviction"):
        await store.durability()


async def test_a_server_that_hides_its_configuration_gets_no_promise(
    server: EmbeddedServer, admin: redis.Redis
):
    await admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-config")
    url = f"redis://app:secret@127.0.0.1:{server.port}/0"
    store = RedisStore.connect(url, "test")
    try:
        durability = await store.durability()
        assert durability.promise == "unknown"
        assert "does not show its configuration" in durability.detail
        await admin.config_set("appendonly", "no")
        durability = await store.durability()
        assert durability.promise == "none"
        assert "append-only file is off; the server does not show" in durability.detail
        await admin.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(UnsuitableServer, match="allkeys-lru"):
            await store.durability()
    finally:
        await store.close()


async def test_a_cluster_is_refused(tmp_path: Path):
    port = await free_port()
    process = await asyncio.create_subprocess_exec(
        *(str(find_binary()), "--port", str(port), "--cluster-enabled", "yes", "--save", ""),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    store = RedisStore.connect(f"redis://127.0.0.1:{port}", "test")
    try:
        await eventually_answers(store)
        with pytest.raises(UnsuitableServer, match="cluster mode"):
            await store.durability()
    finally:
        await store.close()
        process.terminate()
        await asyncio.wait_for(process.wait(), DEADLINE_S)


def test_a_server_that_lacks_commands_is_refused():
    with pytest.raises(UnsuitableServer, match=r"6\.0\.16.*6\.2"):
        refuse_kind({"redis_version": "6.0.16", "role": "master"})
    for version in ("6.2.0", "7.2.4", "10.0.1"):
        refuse_kind({"redis_version": version, "role": "master"})
    refuse_kind({})


@pytest.mark.parametrize("url", ["redis://192.0.2.1:6379/0", "rediss://192.0.2.1:6379/0"])
async def test_a_server_on_the_network_without_credentials_is_refused(url: str):
    store = RedisStore.connect(url, "test", timeout_ms=100)
    with pytest.raises(UnsuitableServer, match=r"192\.0\.2\.1.*password"):
        await store.durability()
    await store.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@192.0.2.1:6379/0",
        "rediss://192.0.2.1:6379/0?ssl_certfile=/c.pem&ssl_keyfile=/k.pem",
        "redis://127.0.0.1:1/0",
        "redis://localhost:1/0",
        "redis://[::1]:1/0",
        "unix:///nowhere.sock",
    ],
)
async def test_credentials_or_loopback_are_enough(url: str):
    store = RedisStore.connect(url, "test", timeout_ms=100)
    with pytest.raises(StoreUnavailable):
        await store.durability()
    await store.close()


async def test_a_killed_server_is_unavailable_and_comes_back_by_itself(
    server: EmbeddedServer, store: RedisStore
):
    loaded = await claimed(store)
    await store.commit(next_commit(loaded, events=(b"2",), rows={"task-1": b"done"}))
    before = await store.read_execution("e")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: not server.alive())
    for call in (
        lambda: store.read_execution("e"),
        lambda: store.commit(next_commit(loaded)),
        store.ping,
        lambda: create(store, "f"),
        store.durability,
    ):
        with pytest.raises(StoreUnavailable):
            await call()
    (outcome,) = await asyncio.gather(
        store.commit_many([next_commit(loaded)]), return_exceptions=True
    )
    assert isinstance(outcome, StoreUnavailable)
    await asyncio.to_thread(server.start)
    assert await store.read_execution("e") == before
    await store.ping()


async def committed(store: RedisStore, commit: Commit) -> None:
    """Written at last: each connection of before the death may fail once when it is used again."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(StoreUnavailable):
                return await store.commit(commit)


async def test_commits_under_way_when_the_server_dies_all_get_an_answer(
    server: EmbeddedServer, store: RedisStore
):
    loaded = [await claimed(store, f"e{at}") for at in range(20)]
    commits = [next_commit(one, events=(b"2",)) for one in loaded]
    assert server.pid is not None
    tasks = [asyncio.ensure_future(store.commit(one)) for one in commits]
    await asyncio.sleep(0)
    os.kill(server.pid, signal.SIGKILL)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(one) for one in outcomes} <= {type(None), StoreUnavailable}
    await until(lambda: not server.alive())
    await asyncio.to_thread(server.start)
    for commit in commits:
        await committed(store, commit)
    snapshots = [await store.read_execution(one.execution_id) for one in loaded]
    assert {one and (one.version, one.seq) for one in snapshots} == {(2, 2)}


async def test_a_server_without_memory_is_unavailable_and_nothing_is_written_in_part(
    store: RedisStore, admin: redis.Redis
):
    loaded = await claimed(store)
    before = await store.read_execution("e")
    await admin.config_set("maxmemory", 1)
    commit = next_commit(loaded, events=(b"2",), fields={"head": b"x"}, release=True)
    with pytest.raises(StoreUnavailable, match="maxmemory"):
        await store.commit(commit)
    with pytest.raises(StoreUnavailable, match="maxmemory"):
        await store.ping()
    assert await store.commit_many([commit]) != [None]
    assert await store.read_execution("e") == before
    await admin.config_set("maxmemory", 0)
    await store.commit(commit)


async def test_a_replica_is_unavailable_for_writes(store: RedisStore, admin: redis.Redis):
    await create(store)
    await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
    for call in (store.ping, lambda: claim(store, "e", "o")):
        with pytest.raises(StoreUnavailable):
            await call()
    with pytest.raises(UnsuitableServer, match="replica"):
        await store.durability()
    await admin.execute_command("REPLICAOF", "NO", "ONE")
    assert await claim(store, "e", "o")


async def test_an_error_of_our_own_stays_loud(store: RedisStore, admin: redis.Redis):
    await admin.set("test:execution:e", "not a hash")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await store.read_execution("e")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await claim(store, "e", "o")


@pytest.mark.parametrize("password", ["s3cret-canary", "with%2Fslash%40at"])
async def test_no_error_shows_the_password(server: EmbeddedServer, password: str):
    store = RedisStore.connect(f"redis://:{password}@127.0.0.1:{server.port}/0", "test")
    with pytest.raises(StoreUnavailable) as refused:
        await store.ping()
    await store.close()
    server.stop()
    away = RedisStore.connect(f"redis://:{password}@127.0.0.1:{server.port}/0", "test")
    with pytest.raises(StoreUnavailable) as unreachable:
        await away.ping()
    await away.close()
    for error in (refused.value, unreachable.value):
        assert error.__suppress_context__
        for secret in (password, password.replace("%2F", "/").replace("%40", "@")):
            assert secret not in str(error) + repr(error)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1", "redis://:can/ary@host:6379", "127.0.0.1:6379", "redis://h:canary"]
)
def test_a_url_that_cannot_be_read_is_refused_without_being_quoted(url: str):
    with pytest.raises(ValueError, match="redis_url") as refused:
        RedisStore.connect(url, "test")
    assert "can" not in str(refused.value).replace("characters", "")
    assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("LOADING Redis is loading the dataset in memory", True),
        ("MISCONF Errors writing to the AOF file: No space left on device", True),
        ("ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed", True),
        ("READONLY You can't write against a read only replica.", True),
        ("BUSY Redis is busy running a script.", True),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
        ("ERR user_script:3: attempt to index nil OOM", False),
        ("NOPERM this user has no permissions to run the 'evalsha' command", False),
    ],
)
def test_which_error_replies_mean_not_now(text: str, refused: bool):
    assert is_refusal(ResponseError(text)) is refused


async def test_an_unreferenced_definition_and_a_full_bucket_expire(
    store: RedisStore, admin: redis.Redis
):
    await store.put_definition("d", b"")
    assert 86_000 < await admin.ttl("test:definition:d") <= 86_400
    await store.create_execution(NewExecution("e", "d", {}), owners_max=1)
    assert await admin.ttl("test:definition:d") == -1
    await store.take_tokens("b", tokens=3, rate_per_s=1, burst=3)
    assert 0 < await admin.pttl("test:rate:b") <= 3_001


async def test_a_definition_counts_executions_and_checkpoints(
    store: RedisStore, admin: redis.Redis
):
    await create(store)
    await store.create_checkpoint("c", "e", b"", [], None)
    assert await admin.hget("test:definition:digest", "n") == b"2"
    await store.delete_document("checkpoint", "c")
    assert await admin.hget("test:definition:digest", "n") == b"1"


async def test_a_clock_set_back_does_not_close_a_bucket_for_long(
    store: RedisStore, admin: redis.Redis
):
    ahead = (await store.time_ms() + 3_600_000) * 1_000
    await admin.set("test:rate:b", ahead)
    grant = await store.take_tokens("b", tokens=1, rate_per_s=1, burst=2)
    assert (grant.tokens, grant.retry_after_ms) == (0, 1_000)


async def test_a_bucket_fills_again_by_the_servers_clock(store: RedisStore):
    first = await store.take_tokens("b", tokens=2, rate_per_s=100, burst=2)
    assert first.tokens == 2
    started = time.monotonic()
    while (await store.take_tokens("b", tokens=1, rate_per_s=100, burst=2)).tokens == 0:
        assert time.monotonic() - started < DEADLINE_S


async def test_a_lease_runs_out_by_the_servers_clock(store: RedisStore):
    await store.renew_owner("o", lease_ms=1)
    started = time.monotonic()
    while not (await store.owners())[0].expired:
        assert time.monotonic() - started < DEADLINE_S
    assert await create(store) == ""


async def free_port() -> int:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()
    return port


async def eventually_answers(store: RedisStore) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            await store.time_ms()
        except StoreUnavailable:
            assert time.monotonic() < deadline
        else:
            return
