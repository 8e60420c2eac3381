"""Fixtures of the runtime's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.runtime.driver_rig import Rig
from tests.unit.runtime.pool_rig import World


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
