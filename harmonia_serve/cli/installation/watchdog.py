"""The watch of `harmonia up`: starts store and Ray, restarts what dies, ends all in good order.

It holds the lock on the data directory as long as it lives. It decides and waits; what a store, a
Ray cluster or a deployment is, others know. If it is killed, the Ray process notices and ends what
it has started, and the next `up` ends what may still be left.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import httpx
import psutil
from pydantic import SecretStr

from harmonia_serve.cli.installation import records, reports
from harmonia_serve.cli.installation.child import Child, log_path, log_tail
from harmonia_serve.cli.installation.lock import hold
from harmonia_serve.cli.installation.plan import Plan
from harmonia_serve.cli.installation.ports import choose_port, service_url
from harmonia_serve.cli.installation.processes import end_all, marked, runs, tree
from harmonia_serve.cli.installation.ray_environment import (
    ray_environment,
    remove_scratch,
)
from harmonia_serve.cli.problems import CommandFailed
from persistence.embedded import EmbeddedServer, reap
from persistence.errors import ServerFailed

__all__ = ["RAY_PROCESS", "Watchdog"]

#: The module that is Ray's driver, run as a process of its own.
RAY_PROCESS = "harmonia_serve.cli.installation.ray_process"

_LOOK_S = 0.5
_HEALTH_TIMEOUT_S = 5.0


class _Stop(Exception):
    """Somebody wants it to end."""


class _StartFailed(CommandFailed):
    """Ray or the service did not start, for a reason that may be gone the next time."""


class Watchdog:
    """One `up`, from its start to its end."""

    def __init__(
        self,
        plan: Plan,
        show: reports.Show,
        *,
        ray_process: str = RAY_PROCESS,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ray_process` is the module that brings up Ray and the service, as `ray_process` does.

        `now_s` is what the silence of its start is measured by.
        """
        self._now_s = now_s
        self._plan = plan
        self._ray_process = ray_process
        self._data_dir: Path = plan.settings.data_dir
        self._show = show
        self._store = EmbeddedServer(self._data_dir) if plan.embedded else None
        self._child: Child | None = None
        self._head: dict[str, psutil.Process] = {}
        self._url = ""
        #: Keeps other installations away from our port, also before and while it is bound.
        self._claim: socket.socket | None = None
        self._started_s = time.time()
        self._stops_asked = 0
        self._environ: dict[str, str] = {}
        self._restarts: deque[float] = deque()
        self._health = _Health(plan.settings.up_health_interval_s)

    def run(self) -> None:
        """Start all, watch over it until a signal comes, end all.

        Raises CommandFailed if it cannot start or cannot go on; nothing is left then either.
        """
        with hold(self._data_dir):
            signal.signal(signal.SIGINT, self._on_signal)
            signal.signal(signal.SIGTERM, self._on_signal)
            # An ignored one stays so: `nohup harmonia up` outlives its terminal.
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                signal.signal(signal.SIGHUP, self._on_signal)
            try:
                self._start()
                if self._leaves_running:
                    self._see_child_off()
                else:
                    self._watch()
            except _Stop:
                self._stop()
            except ServerFailed as error:
                self._stop()
                raise CommandFailed(str(error)) from error
            except BaseException:
                self._stop()
                raise

    @property
    def _leaves_running(self) -> bool:
        return bool(self._plan.address) and self._plan.detach

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stops_asked += 1

    def _pause(self) -> None:
        if self._stops_asked:
            raise _Stop

    # Start --------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._reap()
        if not self._plan.address:
            self._settle_port()
        if self._store is not None:
            self._start_store(self._store)
        self._pause()
        try:
            self._start_child()
        except _StartFailed as error:
            self._count_restart(error.message)
            self._note(f"{_first_line(error)}; trying once more", True)
            self._end_child(graceful=bool(self._plan.address))
            self._start_child()

    def _reap(self) -> None:
        """End what an `up` that was killed has left of this installation."""
        count = end_all(marked(self._data_dir))
        try:
            count += reap(self._data_dir) is not None
        except ServerFailed as error:
            raise CommandFailed(str(error)) from error
        if count:
            self._note(f"ended {count} processes that an earlier `harmonia up` had left")
        if records.read_running(self._data_dir) is not None:
            records.remove_running(self._data_dir)
            remove_scratch(self._data_dir, {})

    def _settle_port(self) -> None:
        settings = self._plan.settings
        port, self._claim = choose_port(
            settings.host, settings.port, explicit=self._plan.port_explicit
        )
        if port != settings.port:
            self._note(f"port {settings.port} is taken, so the service listens on port {port}")
            self._plan = self._plan.with_settings(port=port)

    def _start_store(self, store: EmbeddedServer) -> None:
        begun = time.monotonic()
        self._show(reports.Step("starting the store"))
        store.start(timeout_s=self._plan.settings.up_start_s_max, pause=self._pause)
        self._plan = self._plan.with_settings(redis_url=SecretStr(store.url))
        text = f"store on 127.0.0.1:{store.port}: every write on disk before it is acknowledged"
        self._show(reports.Done(text, _ms_since(begun)))

    def _start_child(self) -> None:
        """Start the Ray process and follow it until the service is ready."""
        self._head = {}
        order = {"task": "bring_up", "plan": self._plan.to_json()}
        self._environ = ray_environment(self._plan)
        # Ray's workers import from the directory that their driver was started in, before all
        # others: it must be one where nobody has put modules.
        self._child = Child(
            self._ray_process, order, self._data_dir, self._environ, cwd=self._data_dir
        )
        heard_s = self._now_s()
        while True:
            self._pause()
            # What Ray starts waits for the store: it has to come back first.
            if self._look_at_store():
                # It may have had a long log to read, and nobody could do anything meanwhile.
                heard_s = self._now_s()
            found = self._child.read(_LOOK_S)
            for report in found:
                heard_s = self._now_s()
                if isinstance(report, reports.Ready):
                    self._become_ready(report.url)
                    return
                self._take(report)
            if not found and self._child.exit_code is not None:
                raise _StartFailed(
                    f"the Ray process ended (exit code {self._child.exit_code}); "
                    f"the end of its log:\n{log_tail(self._data_dir)}",
                    f"The whole log: {log_path(self._data_dir)}",
                )
            # Ray's driver would notice late, and be silent until then.
            if ended := self._ended_heads():
                raise _start_without(ended[0], self._data_dir)
            if self._now_s() - heard_s > self._plan.settings.up_start_s_max:
                raise _StartFailed(
                    "nothing has happened for "
                    f"{self._plan.settings.up_start_s_max:.0f} s; the end of the log:\n"
                    + log_tail(self._data_dir),
                    "HARMONIA_UP_START_S_MAX gives a slow machine more time.",
                )

    def _take(self, report: reports.Report) -> None:
        match report:
            case reports.FirstKey(api_key):
                # Once: a service that is started again needs no other key.
                self._plan = replace(self._plan, new_key=False)
                self._write_connection(self._own_url(), api_key)
                self._show(report)
            case reports.HeadProcesses(pids):
                for name, pid in pids.items():
                    try:
                        self._head[name] = psutil.Process(pid)
                    except psutil.Error as error:
                        raise _start_without(name, self._data_dir) from error
            case reports.Failed(message, way_out, again):
                log = f"The log: {log_path(self._data_dir)}"
                raise (_StartFailed if again else CommandFailed)(message, way_out or log)
            case _:
                self._show(report)

    def _own_url(self) -> str:
        return service_url(self._plan.settings.host, self._plan.settings.port)

    def _become_ready(self, url: str) -> None:
        self._url = url
        has_key = self._write_connection(url, None)
        self._write_running()
        self._health.reset()
        self._show(reports.Ready(url, has_key))

    def _write_connection(self, url: str, api_key: str | None) -> bool:
        settings = self._plan.settings
        store = "embedded" if self._store is not None else _place(settings.redis_url)
        return records.write_connection(
            self._data_dir, url, api_key, store=f"{store} {settings.namespace}"
        )

    def _write_running(self) -> None:
        running = records.Running(
            url=self._url,
            pid=os.getpid(),
            started_s=self._started_s,
            namespace=self._plan.settings.namespace,
            store_pid=(self._store.pid or 0) if self._store is not None else 0,
            address=self._plan.address,
            log=str(log_path(self._data_dir)),
        )
        records.write_running(self._data_dir, running)

    def _see_child_off(self) -> None:
        """Wait until the Ray process has left the cluster, where Harmonia goes on without it."""
        deadline = time.monotonic() + self._plan.settings.up_stop_s_max
        while self._child is not None and self._child.exit_code is None:
            self._child.read(_LOOK_S)
            if time.monotonic() > deadline:
                self._child.kill()

    # Watch --------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            self._pause()
            self._look_at_store()
            trouble = self._trouble_with_ray()
            if trouble:
                self._restart_ray(trouble)
            change = self._health.look(self._url)
            if change:
                self._note(change, warning=self._health.unanswered_s > 0)
            if self._child is not None:
                for report in self._child.read(_LOOK_S):
                    self._take(report)

    def _look_at_store(self) -> bool:
        """Start it again if it has ended; whether it had."""
        store = self._store
        if store is None or store.alive():
            return False
        self._count_restart("the store ended")
        self._note("the store ended unexpectedly; starting it again with the same data", True)
        self._start_store(store)
        if self._url:
            self._write_running()
        return True

    def _trouble_with_ray(self) -> str:
        """What is wrong with Ray or the service that only a restart can mend; "" if nothing."""
        if self._child is not None and self._child.exit_code is not None:
            return f"the Ray process ended (exit code {self._child.exit_code})"
        if ended := self._ended_heads():
            return f"Ray's {ended[0]} ended"
        if self._health.unanswered_s > self._plan.settings.up_unanswered_s_max:
            return f"the service has not answered for {self._health.unanswered_s:.0f} s"
        return ""

    def _ended_heads(self) -> list[str]:
        return [name for name, process in self._head.items() if not runs(process)]

    def _restart_ray(self, trouble: str) -> None:
        """Start it again until it serves, as often as it may be."""
        while trouble:
            self._count_restart(trouble)
            self._note(f"{trouble}; starting Ray and the service again", True)
            self._end_child(graceful=bool(self._plan.address))
            try:
                self._start_child()
            except _StartFailed as error:
                trouble = _first_line(error)
            else:
                trouble = ""

    def _count_restart(self, trouble: str) -> None:
        settings, now = self._plan.settings, time.monotonic()
        while self._restarts and now - self._restarts[0] > settings.up_restart_window_s:
            self._restarts.popleft()
        if len(self._restarts) >= settings.up_restarts_max:
            raise CommandFailed(
                f"{trouble}, after {len(self._restarts)} restarts within "
                f"{settings.up_restart_window_s:.0f} s; the end of the log:\n"
                + log_tail(self._data_dir),
                f"The whole log: {log_path(self._data_dir)}. Nothing accepted was lost.",
            )
        self._restarts.append(now)

    # End ----------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """End all that was started, in the order that loses least: service, Ray, store."""
        # A cluster of our own can simply die while it starts; somebody else's must be tidied up.
        self._end_child(graceful=bool(self._url or self._plan.address))
        if self._store is not None:
            self._show(reports.Step("stopping the store"))
            begun = time.monotonic()
            self._store.stop()
            self._show(reports.Done("store stopped", _ms_since(begun)))
        records.remove_running(self._data_dir)
        if self._claim is not None:
            self._claim.close()
        if not self._plan.address:
            remove_scratch(self._data_dir, self._environ)

    def _end_child(self, *, graceful: bool) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        started = tree([psutil.Process(child.pid)]) if child.exit_code is None else []
        if graceful and child.exit_code is None:
            child.ask_to_end()
            deadline = time.monotonic() + self._plan.settings.up_stop_s_max
            # Whoever asks twice does not want to wait.
            while child.exit_code is None and time.monotonic() < deadline and self._stops_asked < 2:
                for report in child.read(_LOOK_S):
                    if isinstance(report, reports.Step | reports.Done | reports.Note):
                        self._show(report)
            if child.exit_code is None:
                why = "as was asked for twice" if self._stops_asked > 1 else "it took too long"
                self._note(f"Ray is killed: {why}", True)
        child.kill()
        end_all([*started, *self._head.values(), *marked(self._data_dir)])
        self._head = {}

    def _note(self, text: str, warning: bool = False) -> None:
        self._show(reports.Note(text, warning))


class _Health:
    """Whether the service answers, looked at every few seconds."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self.reset()

    def reset(self) -> None:
        """It has just answered."""
        self._answered_s = self._looked_s = time.monotonic()
        self.unanswered_s = 0.0

    def look(self, url: str) -> str:
        """Look if it is time to. Returns what has changed, if anything has."""
        now = time.monotonic()
        if now - self._looked_s < self._interval_s:
            return ""
        failed_before = self.unanswered_s > 0
        try:
            answer = httpx.get(f"{url}/health", timeout=_HEALTH_TIMEOUT_S, trust_env=False)
            # The ingress answers for a service that is dead.
            answer.raise_for_status()
        except httpx.HTTPError as error:
            self._looked_s = time.monotonic()
            self.unanswered_s = self._looked_s - self._answered_s
            reason = str(error) or type(error).__name__
            return "" if failed_before else f"the service does not answer ({reason})"
        lasted_s = time.monotonic() - self._answered_s
        self.reset()
        return f"the service answers again, after {lasted_s:.0f} s" if failed_before else ""


def _start_without(name: str, data_dir: Path) -> _StartFailed:
    return _StartFailed(
        f"Ray's {name} ended while the service started; the end of the log:\n{log_tail(data_dir)}",
        f"The whole log: {log_path(data_dir)}",
    )


def _first_line(error: CommandFailed) -> str:
    return error.message.splitlines()[0]


def _place(url: SecretStr) -> str:
    """A store's address without the secrets in it."""
    parts = urlsplit(url.get_secret_value())
    return f"{parts.hostname or ''}:{parts.port or ''}{parts.path}"


def _ms_since(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)
