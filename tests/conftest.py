"""What tests of several kinds share."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from persistence.embedded import EmbeddedServer
from tests.support.ray_environment import prepare_ray_environment

# Before any module of a test is imported, because it may import Ray.
prepare_ray_environment()

# No example has a deadline: how fast the machine is says nothing about what is tested.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")

# A test run that a script has put into the background ignores interrupts, and so would all that
# its tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
