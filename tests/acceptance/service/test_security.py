"""Who is let in, how much, and where the service can be reached at all."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from harmonia_actors.settings import Settings
from harmonia_serve.app import build_rest_app, guarded_routes
from tests.support.running import RunningService, until
from tests.support.sockets import ending, open_socket, until_closed
from tests.unit.serve.gateway import MemoryGateway

ECHO = {"say": {"component": "harmonia", "action": "echo", "input": {"value": "hello"}}}
ELSEWHERE = "123e4567-e89b-12d3-a456-426614174000"
#: An id of the right form for each parameter of a path; nothing has it.
IDS = {
    "workflow_id": f"wf-{ELSEWHERE}",
    "execution_id": f"exec-{ELSEWHERE}",
    "template_id": f"tmpl-{ELSEWHERE}",
    "checkpoint_id": f"cp-{ELSEWHERE}",
    "key_id": "000000000000",
    "task_name": "task",
    "task_name:path": "task",
    "path:path": "file.txt",
    "name": "harmonia",
    "action": "echo",
    "component": "harmonia",
}


def make_key(service: RunningService, *scopes: str, **more: Any) -> tuple[str, str]:
    """A new key with these scopes: its id and itself."""
    answer = service.api.post("/keys", json={"name": "test", "scopes": scopes, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()["key_id"], answer.json()["api_key"]


def revoke(service: RunningService, key_id: str) -> None:
    assert service.api.delete(f"/keys/{key_id}").status_code == 200


@pytest.fixture(scope="module")
def ended(service: RunningService) -> str:
    """An execution that has ended."""
    found = service.run(ECHO)
    assert found["status"] == "completed"
    return str(found["execution_id"])


@pytest.fixture(scope="module")
def routes() -> list[tuple[str, str, str]]:
    """Every guarded REST route: method, path with ids filled in, the scope it needs."""
    found = []
    for route, scope in guarded_routes(build_rest_app(MemoryGateway(), Settings())):
        if scope is None:
            continue
        path = route.path
        for name, value in IDS.items():
            path = path.replace(f"{{{name}}}", value)
        assert "{" not in path, f"{route.path} has a parameter that this test does not know"
        found += [(method, path, scope) for method in sorted(route.methods - {"HEAD"})]
    return found


def bad_credentials(service: RunningService) -> dict[str, list[tuple[str, str]]]:
    """Headers that must not let anybody in."""
    key_id, revoked = make_key(service, "admin")
    revoke(service, key_id)
    return {
        "none": [],
        "garbage": [("X-API-Key", "garbage")],
        "garbage of the right form": [("X-API-Key", f"hk_{'0' * 12}_{'A' * 43}")],
        "Bearer nothing": [("Authorization", "Bearer nothing")],
        "Bearer alone": [("Authorization", "Bearer")],
        "Basic": [("Authorization", f"Basic {service.key}")],
        "empty": [("X-API-Key", "")],
        "revoked": [("X-API-Key", revoked)],
        "another secret": [("X-API-Key", service.key[:-4] + "AAAA")],
        "two that differ": [("X-API-Key", service.key), ("Authorization", "Bearer nothing")],
        "twice": [("X-API-Key", service.key), ("X-API-Key", service.key)],
    }


def patient(url: str, method: str = "GET", **more: Any) -> httpx.Response:
    """A request, sent again while this address has failed too often to be told more."""

    def send() -> httpx.Response | None:
        with httpx.Client(timeout=60, trust_env=False) as client:
            answer = client.request(method, url, **more)
        return None if answer.status_code == 429 else answer

    found: httpx.Response = until(send, 30, "an answer other than 429")
    return found


def patient_ending(
    service: RunningService, execution_id: str, headers: list[tuple[str, str]]
) -> tuple[int, list[Any]]:
    """The same for a WebSocket: its close code and what came before."""

    def read() -> tuple[int, list[Any]] | None:
        found = ending(service, execution_id, headers)
        return None if found[0] == 4429 else found

    found: tuple[int, list[Any]] = until(read, 30, "a close other than 4429")
    return found


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error that an answer is, in the one envelope and with nothing else in it."""
    assert answer.headers["content-type"] == "application/json", answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    document = answer.json()
    assert set(document) == {"error"}
    assert set(document["error"]) == {"code", "message", "details"}
    for trace in ("Traceback", ".py", "harmonia:", "redis", "0x"):
        assert trace not in answer.text
    error: dict[str, Any] = document["error"]
    return error


# Authentication ----------------------------------------------------------------------------------


def test_every_rest_route_demands_a_key(
    service: RunningService, routes: list[tuple[str, str, str]]
) -> None:
    assert len(routes) > 25
    for method, path, _ in routes:
        answer = patient(service.url + path, method)
        assert (answer.status_code, method, path) == (401, method, path)
        assert error_of(answer)["code"] == "authentication_failed"
        assert "bearer" in answer.headers["www-authenticate"].lower()


def test_no_surface_takes_a_bad_key(service: RunningService, ended: str) -> None:
    for what, headers in bad_credentials(service).items():
        for path in (
            f"/api/harmonia/executions/{ended}",
            f"/events/harmonia/executions/{ended}",
        ):
            answer = patient(service.url + path, headers=headers)
            assert (answer.status_code, what, path) == (401, what, path)
            error_of(answer)
        code, messages = patient_ending(service, ended, headers)
        assert (code, messages, what) == (4401, [], what)


def test_a_key_does_what_its_scopes_say_and_no_more(
    service: RunningService, routes: list[tuple[str, str, str]], ended: str
) -> None:
    key_ids = {}
    for scope in ("read", "execute", "write"):
        key_ids[scope], key = make_key(service, scope)
        for method, path, needed in routes:
            answer = httpx.request(
                method,
                service.url + path,
                headers={"X-API-Key": key},
                json={} if method in ("POST", "PUT") else None,
                timeout=60,
                trust_env=False,
            )
            denied = answer.status_code == 403
            assert (denied, scope, method, path) == (needed != scope, scope, method, path)
            if denied:
                assert error_of(answer)["code"] == "permission_denied"
        can_read = scope == "read"
        code, messages = ending(service, ended, {"X-API-Key": key})
        assert (code, bool(messages)) == ((1000, True) if can_read else (4403, False))
        stream = httpx.get(
            f"{service.url}/events/harmonia/executions/{ended}",
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
        )
        assert stream.status_code == (200 if can_read else 403)
    for key_id in key_ids.values():
        revoke(service, key_id)


@pytest.mark.parametrize(
    "path",
    [
        "/api/harmonia/workflows/",
        "/api/harmonia//workflows",
        "/api/harmonia/%2e/workflows",
        "/api/harmonia/workflows%2f",
        "/api/harmonia/Workflows",
        "/API/harmonia/workflows",
        "/api/harmonia/workflows.json",
        "/api/harmonia/workflows;x=/health",
        "/health/../api/harmonia/workflows",
        "/health/",
        "/configs",
        f"/events/harmonia/executions/{IDS['execution_id']}/",
    ],
)
def test_variants_of_a_path_reach_nothing(service: RunningService, path: str) -> None:
    # As it is: the client would tidy the path up.
    sent = {"target": path.encode()}
    assert patient(service.url, extensions=sent).status_code in (401, 404)
    answer = patient(service.url, headers={"X-API-Key": service.key}, extensions=sent)
    assert answer.status_code == 404
    assert "workflow_id" not in answer.text


def test_conflicting_and_repeated_keys_are_refused_everywhere(
    service: RunningService, ended: str
) -> None:
    both = [("X-API-Key", service.key), ("Authorization", f"Bearer {service.key}")]
    assert patient(f"{service.url}/api/harmonia/executions", headers=both).status_code == 200
    query = f"?api_key={service.key}&api_key={service.key}"
    events = f"{service.url}/events/harmonia/executions/{ended}"
    assert patient(events + query).status_code == 401
    assert ending(service, ended, query=query)[0] == 4401
    assert ending(service, ended, {"X-API-Key": "garbage"}, f"?api_key={service.key}")[0] == 4401
    # The query string is for streams alone.
    rest = patient(f"{service.url}/api/harmonia/executions?api_key={service.key}")
    assert rest.status_code == 401


def test_a_revoked_key_ends_at_once_and_so_do_its_streams(
    service: RunningService, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    waits = {"component": "testing", "action": "wait_for_file_async", "input": {"path": str(gate)}}
    execution_id = service.start(service.create({"wait": waits}))
    key_id, key = make_key(service, "read")
    headers = {"X-API-Key": key}
    url = f"{service.url}/events/harmonia/executions/{execution_id}"
    with (
        open_socket(service, execution_id, headers) as socket,
        httpx.stream("GET", url, headers=headers, timeout=60, trust_env=False) as stream,
    ):
        assert stream.status_code == 200
        socket.recv(timeout=30)
        revoke(service, key_id)
        assert service.client(key).get("/executions").status_code == 401
        assert until_closed(socket)[0] == 4401
        # Ends although the execution goes on.
        read = "".join(stream.iter_text())
    assert "execution_completed" not in read
    assert service.status(execution_id)["status"] == "running"
    gate.touch()
    assert service.finish(execution_id)["status"] == "completed"


def test_a_key_is_shown_once_and_its_digest_never(service: RunningService) -> None:
    key_id, key = make_key(service, "read")
    listed = service.api.get("/keys", params={"limit": 100})
    item = next(item for item in listed.json()["items"] if item["key_id"] == key_id)
    assert set(item) == {"key_id", "name", "scopes", "rate_limit_per_s", "created_at"}
    assert key not in listed.text
    assert key.split("_", 2)[2] not in listed.text
    revoke(service, key_id)


def test_a_foreign_origin_is_refused_on_websockets(service: RunningService, ended: str) -> None:
    headers = {"X-API-Key": service.key}
    assert ending(service, ended, {**headers, "Origin": "https://evil.example"})[0] == 4403
    assert ending(service, ended, {**headers, "Origin": service.url})[0] == 1000
    assert ending(service, ended, headers)[0] == 1000


# Rate limits -------------------------------------------------------------------------------------


def test_the_limit_of_a_key_holds_whatever_address_it_claims(service: RunningService) -> None:
    rate, burst = 5.0, 10
    key_id, key = make_key(service, "read", rate_limit_per_s=rate)
    client = service.client(key)
    begun = time.monotonic()
    answers = [
        client.get("/workflows", headers={"X-Forwarded-For": f"198.51.100.{number}"})
        for number in range(60)
    ]
    seconds = time.monotonic() - begun
    passed = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(passed) + len(refused) == len(answers)
    assert len(passed) >= burst / 2
    assert len(passed) <= burst + rate * seconds + 1
    for answer in refused:
        assert int(answer.headers["retry-after"]) >= 1
        assert error_of(answer)["code"] == "rate_limit_exceeded"
    # Somebody else's limit is another one.
    assert service.api.get("/workflows").status_code == 200
    revoke(service, key_id)


def test_a_storm_of_bad_keys_is_damped_and_hurts_no_good_one(service: RunningService) -> None:
    url = f"{service.url}/api/harmonia/workflows"
    with httpx.Client(timeout=60, trust_env=False) as client:

        def storm(number: int) -> httpx.Response | None:
            headers = {"X-API-Key": "garbage", "X-Forwarded-For": f"198.51.100.{number % 256}"}
            answer = client.get(url, headers=headers)
            assert answer.status_code in (401, 429)
            return answer if answer.status_code == 429 else None

        answers = [storm(number) for number in range(400)]
    damped = [answer for answer in answers if answer is not None]
    assert damped
    assert int(damped[0].headers["retry-after"]) >= 1
    assert service.api.get("/workflows").status_code == 200


# What can be reached ----------------------------------------------------------------------------


def listeners(service: RunningService) -> Iterator[tuple[str, str, int]]:
    """Every TCP port that a process of the service listens on: who, address, port."""
    for process in service.processes():
        try:
            connections = process.net_connections(kind="tcp")
        except psutil.NoSuchProcess:
            continue
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN and connection.laddr:
                yield process.name(), connection.laddr.ip, connection.laddr.port


def test_nothing_listens_beyond_loopback(service: RunningService) -> None:
    found = set(listeners(service))
    ports = {port for _, _, port in found}
    assert urlsplit(service.url).port in ports
    assert len(ports) > 5
    beyond = [
        listener
        for listener in found
        if not ip_address(listener[1].removeprefix("::ffff:")).is_loopback
    ]
    assert beyond == []


def test_ray_takes_no_jobs_from_strangers(service: RunningService, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    job = {"entrypoint": f"touch {proof}"}
    ports = {port for _, _, port in listeners(service)} | {8265}
    ports.discard(urlsplit(service.url).port or 0)

    def knock(port: int) -> list[tuple[int, str, int]]:
        """What a port answers to who asks without a token; nothing if it speaks no HTTP."""
        answered = []
        # Whoever does not answer the first speaks no HTTP; the others would only take their time.
        with (
            contextlib.suppress(httpx.HTTPError),
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=3, trust_env=False) as client,
        ):
            for method, path in (("GET", "/api/jobs/"), ("POST", "/api/jobs/"), ("GET", "/nodes")):
                answer = client.request(method, path, json=job if method == "POST" else None)
                # Ray's exporters for Prometheus give their numbers at every path, nothing else.
                if not answer.text.startswith("# HELP"):
                    answered.append((port, path, answer.status_code))
        return answered

    with ThreadPoolExecutor(16) as threads:
        answers = [answer for found in threads.map(knock, ports) for answer in found]
    assert [answer for answer in answers if answer[2] < 400] == []
    assert not proof.exists()


@pytest.mark.parametrize(
    ("arguments", "way_out"),
    [
        (["--host", "0.0.0.0"], "--allow-commands"),  # noqa: S104
        (["--redis-url", "redis://redis.example:6379/0"], "password"),
        (
            ["--host", "0.0.0.0", "--allow-commands", "curl", "--redis-url", "redis://127.0.0.1:1"],  # noqa: S104
            "password",
        ),
    ],
)
def test_up_refuses_to_be_open_without_need(
    arguments: list[str], way_out: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "harmonia_serve.cli", "up", "--data-dir", str(tmp_path / "d")]
    ended = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert way_out in ended.stderr
    assert not (tmp_path / "d").exists()
