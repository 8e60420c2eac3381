"""HEAD is answered as GET but for the body, and the connection goes on, behind the real proxy."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import pytest

from tests.support.running import RunningService

#: They differ between two answers to the same request.
_VOLATILE = {"date", "x-request-id"}


@pytest.fixture
def connection(service: RunningService) -> http.client.HTTPConnection:
    where = urlsplit(service.url)
    assert where.hostname
    return http.client.HTTPConnection(where.hostname, where.port, timeout=30)


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, key: str
) -> tuple[int, dict[str, str], bytes]:
    connection.request(method, path, headers={"X-API-Key": key})
    answer = connection.getresponse()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    return answer.status, {n: v for n, v in headers.items() if n not in _VOLATILE}, answer.read()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/health", 200),
        ("/ready", 200),
        ("/openapi.json", 200),
        ("/api/harmonia/components", 200),
        ("/api/harmonia/executions/EXECUTION", 200),
        ("/api/harmonia/executions/EXECUTION/tasks/say/output", 200),
        ("/api/harmonia/executions/EXECUTION/files/FILE", 200),
        ("/api/harmonia/executions/exec-nobody", 404),
        ("/nowhere", 404),
    ],
)
def test_the_headers_are_those_of_get_and_the_connection_goes_on(
    service: RunningService,
    connection: http.client.HTTPConnection,
    written: tuple[str, str],
    path: str,
    status: int,
) -> None:
    path = path.replace("EXECUTION", written[0]).replace("FILE", written[1])
    told = ask(connection, "HEAD", path, service.key)
    socket = connection.sock
    got = ask(connection, "GET", path, service.key)
    assert connection.sock is socket
    assert (told[0], got[0]) == (status, status)
    assert told[2] == b""
    assert got[2] != b""
    # A body whose length is not known beforehand is sent in chunks, of which there are none here.
    for length in ("content-length", "transfer-encoding"):
        told[1].pop(length, None)
        got[1].pop(length, None)
    assert told[1] == got[1]


def test_a_stream_that_runs_is_answered_without_waiting_for_its_end(
    service: RunningService, connection: http.client.HTTPConnection
) -> None:
    execution_id = service.start(
        service.create(
            {"nap": {"component": "harmonia", "action": "sleep", "input": {"seconds": 600}}}
        )
    )
    path = f"/events/harmonia/executions/{execution_id}"
    status, headers, body = ask(connection, "HEAD", path, service.key)
    assert (status, body) == (200, b"")
    assert headers["content-type"].startswith("text/event-stream")
    assert ask(connection, "GET", "/health", service.key)[0] == 200
    assert service.api.post(f"/executions/{execution_id}/cancel").status_code == 200
    service.finish(execution_id)


@pytest.fixture(scope="module")
def written(service: RunningService) -> tuple[str, str]:
    """An execution with an output and a file, and the file's path."""
    execution_id = service.run(
        {"say": {"component": "testing", "action": "meet", "input": {"me": "a", "other": "a"}}}
    )["execution_id"]
    files = service.api.get(f"/executions/{execution_id}/files").json()["items"]
    return str(execution_id), str(files[0]["path"])
