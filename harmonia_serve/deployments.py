"""Harmonia on Ray Serve: three applications, each scaled on its own. The only import of ray.serve.

REST answers at "/" so that unknown paths get the API's error envelope, too; WebSocket and SSE have
prefixes of their own. Each replica builds its ASGI application itself from the settings.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig

from harmonia_actors.settings import Settings
from harmonia_serve.beside import begun
from harmonia_serve.ingress import REST_REQUESTS_MAX, choose_ingress, own_url

__all__ = ["Surface", "deploy", "surfaces", "undeploy"]

_READY_S = 120.0
_LOOK_S = 0.05
#: Serve's controller: name and namespace.
_CONTROLLER = ("SERVE_CONTROLLER_ACTOR", "serve")


@dataclass(frozen=True, slots=True)
class Surface:
    """One application: its name, its prefix, which builder makes it, how many replicas."""

    name: str
    prefix: str
    builder: str
    replicas: int
    requests_max: int


def surfaces(settings: Settings) -> list[Surface]:
    """The three applications of an installation."""
    namespace = settings.namespace
    streams = settings.streams_per_replica_max
    return [
        Surface(
            f"{namespace}-rest", "/", "build_rest_app", settings.rest_replicas, REST_REQUESTS_MAX
        ),
        Surface(
            f"{namespace}-websocket",
            "/ws/harmonia",
            "build_websocket_app",
            settings.stream_replicas,
            streams + 100,
        ),
        Surface(
            f"{namespace}-events",
            "/events/harmonia",
            "build_event_stream_app",
            settings.stream_replicas,
            streams + 100,
        ),
    ]


def _make_class(name: str) -> type:
    """A deployment class under the name that Ray shows for its replicas."""

    class Replica:
        """One replica: its application is built here, not pickled by whoever deploys."""

        def __init__(self, settings: Settings, builder: str) -> None:
            from harmonia_actors.runtime.logs import log_to_stderr
            from harmonia_serve.connections import extend_uvicorn
            from harmonia_serve.ingress import keep_replica_port_at
            from harmonia_serve.replicas import bound_websocket_messages
            from harmonia_serve.unfetched import count_unfetched

            log_to_stderr(settings.log_level)
            extend_uvicorn()
            count_unfetched()
            bound_websocket_messages()
            keep_replica_port_at(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
            self._settings = settings
            self._builder = builder

        async def __serve_build_asgi_app__(self) -> Any:
            from harmonia_actors.actors.replica import make_gateway
            from harmonia_actors.runtime.collection import collect_rarely
            from harmonia_serve import app
            from harmonia_serve.log_redaction import silence_query_strings
            from harmonia_serve.replicas import call_before_replica_ends
            from harmonia_serve.unfetched import BackPressure

            silence_query_strings()
            gateway = make_gateway(self._settings)
            collect_rarely()
            application = getattr(app, self._builder)(gateway, self._settings)
            bytes_max = self._settings.stream_buffer_bytes_max
            application.add_middleware(BackPressure, bytes_max=bytes_max)
            # Serve may run its own affairs in another thread.
            soon = asyncio.get_running_loop().call_soon_threadsafe
            call_before_replica_ends(partial(soon, application.state.context.slots.close))
            return application

    Replica.__name__ = Replica.__qualname__ = name
    return Replica


def deploy(settings: Settings) -> None:
    """Start Serve, if it does not run, and the applications; returns when they answer."""
    # It returns when the proxies serve, and the replicas can start while these do.
    started = begun(partial(_start_serve, settings))
    _wait_for_controller(started)
    try:
        serve.run_many([_target(surface, settings) for surface in surfaces(settings)])
    except Exception:
        if started.done():
            # Why Serve itself did not start says more.
            started.result()
        raise
    started.result()
    _wait_answering(settings)


def _start_serve(settings: Settings) -> None:
    ingress = choose_ingress(settings)
    serve.start(
        proxy_location="HeadOnly" if _is_loopback(settings.host) else "EveryNode",
        http_options=HTTPOptions(host=ingress.serve_host, port=settings.port),
        logging_config=_logging(settings),
    )


def _wait_for_controller(started: Future[None]) -> None:
    """Until Serve's controller has its name: whoever starts Serve then joins it as it is."""
    while not started.done():
        try:
            ray.get_actor(*_CONTROLLER)
        except ValueError:
            wait([started], _LOOK_S)
        else:
            return
    started.result()


def _target(surface: Surface, settings: Settings) -> serve.RunTarget:
    deployment: Any = serve.deployment(
        serve.ingress()(_make_class(surface.name.replace("-", "_"))),
        name=surface.name,
        num_replicas=surface.replicas,
        max_ongoing_requests=surface.requests_max,
        graceful_shutdown_timeout_s=3,
        graceful_shutdown_wait_loop_s=0.1,
        # Serve misses a replica that has died only when it looks: after 10 s by default.
        health_check_period_s=1,
        ray_actor_options={"num_cpus": 0},
    )
    return serve.RunTarget(
        target=deployment.bind(settings, surface.builder),
        name=surface.name,
        route_prefix=surface.prefix,
        logging_config=_logging(settings),
    )


def _wait_answering(settings: Settings) -> None:
    """The replicas run; the proxy may need a moment more to learn of them."""
    url = own_url(settings.host, settings.port)
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            answer = httpx.get(f"{url}/health", timeout=2, trust_env=False)
            if answer.status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError(f"the service does not answer at {url}")
        time.sleep(_LOOK_S)


def undeploy(namespace: str) -> None:
    """Remove this installation's applications; Serve itself ends if nothing else uses it.

    REST first: it is at "/", and would say of the streams' paths, once they are gone, that there
    is nothing, in a form that their clients believe.
    """
    try:
        applications = serve.status().applications
    except (RayServeException, RuntimeError):
        return
    ours = [f"{namespace}-{kind}" for kind in ("rest", "websocket", "events")]
    for name in ours:
        if name in applications:
            serve.delete(name)
    if not set(applications) - set(ours):
        serve.shutdown()  # type: ignore[no-untyped-call]


def _logging(settings: Settings) -> LoggingConfig:
    return LoggingConfig(log_level=settings.log_level, enable_access_log=False)


def _is_loopback(host: str) -> bool:
    return host in ("127.0.0.1", "::1", "localhost")
