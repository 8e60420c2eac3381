"""What tests of several kinds share."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from persistence.embedded import EmbeddedServer
from tests.support.ray_environment import prepare_ray_environment

# Before any module of a test is imported, because it may import Ray.
prepare_ray_environment()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A real server, in a temporary directory, stopped at the end."""
    server = EmbeddedServer(tmp_path_factory.mktemp("redis"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def redis_namespace() -> str:
    """A namespace that no other test uses."""
    return f"test-{secrets.token_hex(8)}"
