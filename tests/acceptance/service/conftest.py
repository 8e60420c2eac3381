"""One service for all tests of this folder: real processes, real Ray, a real store."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from tests.support.running import RunningService, running_service


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The service, until the last test of the folder; then nothing of it may be left."""
    data_dir = tmp_path_factory.mktemp("service") / "data"
    with running_service(data_dir) as running:
        yield running
        processes = running.processes()
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive, f"left behind: {alive}"


@pytest.fixture(autouse=True)
def _patience(request: pytest.FixtureRequest) -> None:
    """The first test of the folder also pays for the boot."""
    request.node.add_marker(pytest.mark.timeout(400))
