"""One service for all tests of this folder: real processes, real Ray, a real store."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from tests.support.remote_service import RemoteServer, answering, ndjson, served_in_a_thread
from tests.support.running import RunningService, running_service

#: More than one, so that streams whose broadcaster lives go on beside those whose has died.
BROADCASTERS = 2
#: Small enough to be reached by tests.
STREAMS = {
    "HARMONIA_STREAM_SEND_TIMEOUT_S": "4",
    "HARMONIA_STREAMS_PER_KEY_MAX": "25",
    "HARMONIA_STREAMS_PER_REPLICA_MAX": "120",
}


@pytest.fixture(scope="package")
def remote() -> Iterator[RemoteServer]:
    """A service elsewhere that offers the component `far`."""
    server = RemoteServer()
    server.action("greet", ndjson({"progress": {"fraction": 0.5}}, {"output": {"said": "hello"}}))
    server.action("hold", server.held({"progress": {"fraction": 0.1, "message": "held"}}))
    server.action("refuse", answering({"error": {"message": "no", "code": "NOT_SO"}}, 422))
    with served_in_a_thread(server.app()) as url:
        server.url = f"{url}/parts"
        yield server


@pytest.fixture(scope="package")
def service(
    tmp_path_factory: pytest.TempPathFactory, remote: RemoteServer
) -> Iterator[RunningService]:
    """The service, until the last test of the folder; then nothing of it may be left."""
    data_dir = tmp_path_factory.mktemp("service") / "data"
    components = f"tests.support.actions,{remote.url}"
    # Some tests kill whoever drives an execution, again and again: it is not the execution's fault.
    # Several tests kill parts of it, and how many do within ten minutes hangs on the machine.
    settings = {
        "HARMONIA_QUARANTINE_CRASHES": "20",
        "HARMONIA_UP_RESTARTS_MAX": "100",
        "HARMONIA_BROADCASTERS": str(BROADCASTERS),
        **STREAMS,
    }
    with running_service(data_dir, "--components", components, settings=settings) as running:
        yield running
        processes = running.processes()
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive, f"left behind: {alive}"


@pytest.fixture(autouse=True)
def _patience(request: pytest.FixtureRequest) -> None:
    """The first test of the folder also pays for the boot."""
    request.node.add_marker(pytest.mark.timeout(400))
