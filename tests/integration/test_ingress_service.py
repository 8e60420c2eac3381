"""Requests and streams through HAProxy on a cluster that Harmonia starts: what passes, what not."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from ray.serve.generated import serve_pb2, serve_pb2_grpc
from websockets.sync.client import connect

from harmonia_actors.settings import Settings
from harmonia_serve.ingress import private_directory
from tests.support.clusters import until

ROOT = Path(__file__).parents[2]


@dataclass
class Service:
    process: subprocess.Popen[bytes]
    directory: Path
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(f"http://{self.address}{path}", headers=headers, timeout=30)

    def processes(self) -> list[psutil.Process]:
        """All processes of the cluster, the program's own first."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def haproxies(self) -> list[psutil.Process]:
        found = []
        for each in self.processes():
            # Some are short-lived.
            with contextlib.suppress(psutil.NoSuchProcess):
                if each.name() == "haproxy":
                    found.append(each)
        return found

    def ended(self) -> list[str]:
        file = self.directory / "ended"
        return file.read_text().split() if file.exists() else []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory, port = tmp_path_factory.mktemp("ingress"), free_port()
    log = directory / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.ingress_service", str(directory), str(port)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    service = Service(process, directory, port)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"READY\n", log.read_text()[-4000:]
        yield service
    finally:
        if process.poll() is None:
            for each in reversed(service.processes()):
                each.kill()
        process.wait()
        for left in sorted(private_directory(_settings(service)).rglob("*"), reverse=True):
            left.rmdir() if left.is_dir() else left.unlink()
        private_directory(_settings(service)).rmdir()


def _settings(service: Service) -> Settings:
    return Settings(data_dir=service.directory / "data", port=service.port)


def test_requests_reach_the_application_at_the_root(service: Service) -> None:
    assert service.get("/seen").status_code == 200
    for path in ("no/such/path", "ws/harmonian", "events"):
        answer = service.get(f"/{path}")
        assert answer.status_code == 404
        assert answer.json()["error"]["details"] == {"path": path}


def test_an_applications_errors_pass_as_they_are(service: Service) -> None:
    for code in (400, 404, 408, 413, 429, 500, 502, 503, 504):
        answer = service.get(f"/status/{code}")
        assert (answer.status_code, answer.json()) == (code, {"error": {"code": f"own_{code}"}})


def test_the_clients_address_passes_and_serves_switches_do_not(service: Service) -> None:
    switches = {"x-request-timeout-seconds": "0", "x-request-disconnect-disabled": "?1"}
    seen = service.get("/seen", **switches, **{"X-Forwarded-For": "203.0.113.9"}).json()
    assert seen["client"] == "127.0.0.1"  # Not who the client says it is, but who it is.
    assert not switches.keys() & seen["headers"].keys()
    assert service.get("/seen").json()["client"] == "127.0.0.1"


def test_websockets_pass_and_the_end_of_the_client_arrives(service: Service) -> None:
    before = service.ended().count("websocket")
    with connect(f"ws://{service.address}/ws/harmonia/one") as socket:
        assert [socket.recv(timeout=5) for _ in range(2)] == [
            '{"name":"one","number":0}',
            '{"name":"one","number":1}',
        ]
    until(lambda: service.ended().count("websocket") > before, "the handler's finally", 30)


def test_events_pass_one_by_one_and_the_end_of_the_client_arrives(service: Service) -> None:
    before = service.ended().count("events")
    with httpx.stream("GET", f"http://{service.address}/events/harmonia/one") as answer:
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(5)] == ["id: 0", "data: one", "", "id: 1", "data: one"]
    until(lambda: service.ended().count("events") > before, "the generator's finally", 30)


def test_a_client_that_gives_up_ends_its_call(service: Service) -> None:
    before = service.ended().count("rest")
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"http://{service.address}/endless", timeout=0.3)
    until(lambda: service.ended().count("rest") > before, "the handler's finally", 30)


def test_nothing_listens_beyond_loopback(service: Service) -> None:
    listening = {
        (each.name(), found.laddr.ip)
        for each in service.processes()
        for found in each.net_connections("inet")
        if found.status == psutil.CONN_LISTEN
    }
    assert any(name == "haproxy" for name, _ in listening)
    assert {ip for _, ip in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening


def test_the_ports_of_replicas_take_the_token_or_nothing(service: Service) -> None:
    class Intrusion:
        def __reduce__(self) -> object:
            return (os.mkdir, (str(service.directory / "intruded"),))

    call = serve_pb2.ASGIRequest(pickled_request_metadata=pickle.dumps(Intrusion()))
    pid = service.get("/seen").json()["pid"]
    refused = 0
    for found in psutil.Process(pid).net_connections("inet"):
        if found.status != psutil.CONN_LISTEN:
            continue
        with grpc.insecure_channel(f"127.0.0.1:{found.laddr.port}") as channel:
            with pytest.raises(grpc.RpcError) as caught:
                serve_pb2_grpc.ASGIServiceStub(channel).HandleRequest(call, timeout=5)
            refused += caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert refused
    assert not (service.directory / "intruded").exists()


def test_haproxys_files_are_the_owners_only(service: Service) -> None:
    top = private_directory(_settings(service))
    assert top.stat().st_mode & 0o077 == 0
    sockets = [path for path in top.rglob("*") if path.is_socket()]
    assert [path.name for path in sockets] == ["admin.sock"]
    assert sockets[0].stat().st_mode & 0o077 == 0


def test_haproxy_logs_no_request(service: Service) -> None:
    service.get("/seen?api_key=canary-in-a-query")
    for path in private_directory(_settings(service)).rglob("*"):
        if path.is_file():
            assert b"canary" not in path.read_bytes(), path


def test_a_new_replica_steps_in_for_a_dead_one_and_no_request_fails_for_it(
    service: Service,
) -> None:
    pid = service.get("/seen").json()["pid"]
    with contextlib.suppress(httpx.RemoteProtocolError):
        assert service.get("/die").status_code == 502
    # Until the new replica is there, Serve's own proxy behind HAProxy holds the request.
    assert service.get("/seen").json()["pid"] != pid


def test_haproxy_ends_with_the_actor_that_started_it_and_comes_back(service: Service) -> None:
    haproxy = service.haproxies()[-1]
    manager = haproxy.parent()
    assert manager is not None
    assert re.search("HAProxyManager", " ".join(manager.cmdline()))
    manager.send_signal(signal.SIGKILL)
    psutil.wait_procs([haproxy], timeout=5)
    assert not haproxy.is_running() or haproxy.status() == psutil.STATUS_ZOMBIE

    def answers() -> bool:
        try:
            return service.get("/seen").status_code == 200
        except httpx.TransportError:
            return False

    until(answers, "HAProxy is started again", 60)


def test_an_orderly_end_leaves_no_process(service: Service) -> None:
    everything = service.processes()
    assert service.process.stdin is not None
    service.process.stdin.close()
    assert service.process.wait(timeout=30) == 0
    _, left = psutil.wait_procs(everything, timeout=10)
    assert not left
