"""Fixtures of the runtime's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.unit.runtime.driver_rig import Rig
from tests.unit.runtime.pool_rig import World
from tests.unit.runtime.test_task_host import Bench


@pytest.fixture
async def rigs() -> AsyncIterator[list[Rig]]:
    made: list[Rig] = []
    yield made
    for rig in made:
        await rig.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Pools of task actors; other tests have worlds of their own."""
    made = World()
    yield made
    for pool in made.pools:
        await pool.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """What task hosts run on; whatever still waits at a gate goes on at the end."""
    made = Bench(tmp_path)
    yield made
    made.gates.open(*(f"t{number}" for number in range(20)))
    made.close()
