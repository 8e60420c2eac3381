"""The process that is Ray's driver: starts or joins a cluster, brings up Harmonia on it, waits.

The only module of the command line that imports Ray. It is told what to do on standard input (one
JSON line), says how it goes through a pipe, and ends Harmonia in good order once its standard input
is closed: by the watchdog, or because the watchdog is dead.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from harmonia_serve.beside import begun
from harmonia_serve.cli.installation import reports
from harmonia_serve.cli.installation.plan import Plan
from harmonia_serve.cli.installation.ports import service_url
from harmonia_serve.cli.installation.ray_environment import ray_directory
from harmonia_serve.cli.problems import CommandFailed
from harmonia_serve.ingress import fit_streams

__all__ = ["UNUSED_STARTS", "Driver", "main"]

_SERVE_CONTROLLER = ("SERVE_CONTROLLER_ACTOR", "serve")
_HEAD_PROCESSES = ("gcs_server", "raylet")
_DEPLOYED_S = 60.0
#: What Ray starts on a head and nobody here has a use for: one asks a cloud for nodes, one forwards
#: to drivers what workers print, and what is left of a dashboard that is turned off counts usage
#: for Ray's makers. Each costs 50 to 80 MB and half a second of CPU; the last is waited for.
UNUSED_STARTS = ("start_monitor", "start_log_monitor", "start_api_server")


def main() -> int:
    """Run until standard input is closed. The exit code is 0 if all went well."""
    # Ctrl-C is for the watchdog, which closes our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    report = reports.ReportWriter(int(sys.argv[1]))
    plan_line = sys.stdin.buffer.readline()
    lifeline = _take_stdin()
    if not plan_line:
        return 1
    order = json.loads(plan_line)
    driver = Driver(Plan.from_json(order["plan"]), report)
    try:
        if order["task"] == "take_down":
            driver.take_down()
            return 0
        driver.bring_up()
    except Exception as error:
        traceback.print_exc()
        driver.abandon()
        report(_failure(error))
        return 1
    if driver.leaves_running:
        return 0
    while os.read(lifeline, 1):
        pass
    driver.end()
    return 0


def _take_stdin() -> int:
    """Keep standard input to ourselves: what Ray starts gets an empty one."""
    lifeline = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return lifeline


def _failure(error: Exception) -> reports.Failed:
    if isinstance(error, CommandFailed):
        return reports.Failed(error.message, error.way_out)
    # What comes out of an actor brings the stack of that actor along; the log has it all.
    lines = [line for line in str(error).splitlines() if line.strip()]
    message = f"{type(error).__name__}: {lines[-1] if lines else 'no reason given'}"
    # Nobody has made a mistake: a slow machine, for one, lets Ray give up after 30 seconds.
    return reports.Failed(message, again=True)


class Driver:
    """Harmonia on a cluster: brought up, and taken down again."""

    def __init__(self, plan: Plan, report: reports.Show) -> None:
        self._plan = plan
        self._report = report
        #: Whether a failed start would leave something on the cluster that is ours alone.
        self._has_begun = False
        self._serving: Future[None] | None = None

    @property
    def leaves_running(self) -> bool:
        """Whether Harmonia is to go on on its cluster without this process."""
        return bool(self._plan.address) and self._plan.detach

    def bring_up(self) -> None:
        """Start or join the cluster, start Harmonia's actors and applications."""
        self._check_components()
        # Ray's own processes take seconds to start: what is needed next is loaded meanwhile.
        loading = begun(_load_what_comes_next)
        if self._plan.address:
            self._join()
        else:
            self._start()
        loading.result()
        from harmonia_actors.actors.names import list_actors
        from harmonia_actors.actors.sizes import with_owners_max
        from harmonia_actors.actors.wiring import ensure_first_key, install
        from harmonia_serve.deployments import deploy

        settings = with_owners_max(self._plan.settings, _cpus())
        self._has_begun = not list_actors(settings.namespace)
        # Most of either start is waiting for processes; a request waits for the actors it needs.
        self._serving = begun(lambda: deploy(settings))
        with self._step("starting the actors", "actors"):
            install(settings, progress=self._progress)
        first_key = ensure_first_key(settings, anew=self._plan.new_key)
        if first_key is not None:
            self._report(reports.FirstKey(first_key))
        url = service_url(settings.host, settings.port)
        with self._step("starting the service", f"REST, WebSocket and SSE on {url}"):
            self._serving.result()
        self._report(reports.Ready(url))

    def _check_components(self) -> None:
        """Refuse remote components that have the name of one of a module: only here is it known."""
        if not self._plan.settings.component_catalogues:
            return
        from harmonia_actors.actors.parts import make_registry

        try:
            make_registry(self._plan.settings)
        except ValueError as error:
            raise CommandFailed(str(error)) from error

    def take_down(self) -> None:
        """Join the cluster and end Harmonia on it."""
        self._connect()
        self.end()

    def end(self) -> None:
        """End Harmonia's applications and actors, and with a cluster of our own the cluster."""
        import ray

        from harmonia_actors.actors.wiring import uninstall
        from harmonia_serve.deployments import undeploy

        namespace = self._plan.settings.namespace
        with self._step("stopping the service", "service stopped"):
            undeploy(namespace)
        with self._step("stopping the actors", "actors stopped"):
            uninstall(namespace)
        doing, done = ("leaving", "left") if self._plan.address else ("stopping", "stopped")
        with self._step(f"{doing} Ray", f"Ray {done}"):
            ray.shutdown()

    def abandon(self) -> None:
        """After a failed start: leave nothing of it on somebody else's cluster.

        A Harmonia that was there before it is left alone.
        """
        if self._plan.address and self._has_begun:
            if self._serving is not None:
                # What is half deployed cannot be removed.
                wait([self._serving], _DEPLOYED_S)
            try:
                self.end()
            except Exception:
                # The failure that is told is the first one; this one is in the log.
                traceback.print_exc()

    def _start(self) -> None:
        with self._step("starting Ray", "Ray", detail=_resources):
            import ray

            _leave_out_what_is_unused()
            ray.init(
                address="local",
                namespace=self._plan.settings.namespace,
                num_cpus=self._plan.num_cpus,  # type: ignore[arg-type]
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",  # type: ignore[arg-type]
                _node_ip_address="127.0.0.1",
                _temp_dir=str(ray_directory(self._plan.settings.data_dir)),
            )
        self._report(reports.HeadProcesses(_head_pids()))
        settings, told = fit_streams(self._plan.settings)
        if told:
            self._plan = replace(self._plan, settings=settings)
            self._note(told)

    def _join(self) -> None:
        with self._step(f"joining Ray at {self._plan.address}", "Ray", detail=_resources):
            self._connect()
        if self._plan.embedded:
            _require_this_node_only()
        self._note(
            "unless its Serve has HAProxy, or gRPC before replicas, slow readers of streams cost "
            "memory: see Known limits in the README"
        )
        found = _serve_options()
        if found is None:
            self._note("Serve does not run on this cluster yet; it is started with its defaults")
            return
        host, port, more = found
        self._note(f"Serve runs on this cluster already: {host}:{port}{more}; it is used as it is")
        self._plan = self._plan.with_settings(host=host, port=port)

    def _connect(self) -> None:
        import ray

        try:
            ray.init(
                address=self._plan.address,
                namespace=self._plan.settings.namespace,
                log_to_driver=False,
                logging_level="ERROR",  # type: ignore[arg-type]
            )
        except Exception as error:
            raise CommandFailed(
                f"cannot join the Ray cluster at {self._plan.address}: {error}",
                "Is it running, and is its token in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH?",
            ) from error

    def _progress(self, text: str) -> None:
        self._report(reports.Step(text))

    def _note(self, text: str) -> None:
        self._report(reports.Note(text))

    @contextmanager
    def _step(self, doing: str, done: str, *, detail: Any = None) -> Iterator[None]:
        started = time.monotonic()
        self._report(reports.Step(doing))
        yield
        text = done if detail is None else f"{done} {detail()}"
        self._report(reports.Done(text, round((time.monotonic() - started) * 1000)))


def _load_what_comes_next() -> None:
    """Import what `bring_up` needs once there is a cluster."""
    import harmonia_serve.deployments  # noqa: F401 - loaded, not used


def _leave_out_what_is_unused() -> None:
    """Ray has a parameter for each of these, and `ray.init` none to set them by."""
    from ray._private.node import Node

    for start in UNUSED_STARTS:
        setattr(Node, start, _started_nothing)


def _started_nothing(_node: object, **_options: object) -> None:
    """Stands for one of Ray's processes that is not started."""


def _cpus() -> float:
    import ray

    return float(ray.cluster_resources().get("CPU", 0.0))  # type: ignore[no-untyped-call]


def _resources() -> str:
    import ray

    found = ray.cluster_resources()  # type: ignore[no-untyped-call]
    nodes = len(_nodes_alive())
    parts = [f"{found.get('CPU', 0):g} CPUs", f"{found.get('memory', 0) / 1e9:.1f} GB"]
    if found.get("GPU"):
        parts.insert(1, f"{found['GPU']:g} GPUs")
    if nodes > 1:
        parts.insert(0, f"{nodes} nodes")
    return f"{ray.__version__}: {', '.join(parts)}"


def _nodes_alive() -> list[str]:
    """Addresses of the cluster's living nodes."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["NodeManagerAddress"] for node in nodes if node["Alive"]]


def _head_pids() -> dict[str, int]:
    """Process ids of the processes without which a cluster is dead."""
    from ray._private.worker import _global_node

    started = getattr(_global_node, "all_processes", {})
    return {
        kind: infos[0].process.pid for kind, infos in started.items() if kind in _HEAD_PROCESSES
    }


def _require_this_node_only() -> None:
    """Refuse an embedded store that other nodes could not reach."""
    import psutil

    alive = _nodes_alive()
    ours = {address.address for found in psutil.net_if_addrs().values() for address in found}
    if len(alive) == 1 and alive[0] in ours:
        return
    raise CommandFailed(
        f"the cluster has {len(alive)} node{'s' if len(alive) != 1 else ''} "
        f"({', '.join(alive[:5])}), and an embedded store listens on this machine's loopback "
        "only: other nodes could not reach it",
        "Give the URL of a Redis that all nodes reach: --redis-url, or HARMONIA_REDIS_URL.",
    )


def _serve_options() -> tuple[str, int, str] | None:
    """Where Serve listens on this cluster, and what else is worth knowing; None: it does not run.

    Asked of its controller, so that nothing is started by asking.
    """
    import ray

    name, namespace = _SERVE_CONTROLLER
    try:
        controller = ray.get_actor(name, namespace=namespace)
    except ValueError:
        return None
    options: Any = ray.get(controller.get_http_config.remote())
    prefix = f", below {options.root_path}" if getattr(options, "root_path", "") else ""
    return str(options.host), int(options.port), prefix


if __name__ == "__main__":
    sys.exit(main())
