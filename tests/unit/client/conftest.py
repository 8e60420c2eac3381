"""A whole service in this process, and a client of it, for tests that need no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harmonia_serve.client import HarmoniaClient
from tests.support.local_service import LocalService, local_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    with local_service(tmp_path_factory.mktemp("service")) as found:
        yield found


@pytest.fixture
def client(service: LocalService) -> Iterator[HarmoniaClient]:
    with HarmoniaClient(service.url, service.api_key) as found:
        yield found
