"""Owners that begin together do not go on asking the store at the same moments."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as s

from harmonia_actors.runtime.pauses import SPREAD, Pauses
from persistence.memory_store import MemoryStore
from tests.simulation.virtual_loop import VirtualLoop, pass_time, run_virtually
from tests.support.local import LocalInstallation

MOST_S = 2.0


@given(s.text(), s.floats(0.001, 1_000))
def test_a_pause_is_never_longer_than_asked_for_nor_much_shorter(name: str, most_s: float) -> None:
    pauses = Pauses(name, most_s)
    for _ in range(50):
        assert most_s * (1 - SPREAD) <= pauses.next_s() <= most_s


@given(s.text())
def test_the_same_name_draws_the_same_pauses(name: str) -> None:
    first, second = Pauses(name, MOST_S), Pauses(name, MOST_S)
    assert [first.next_s() for _ in range(20)] == [second.next_s() for _ in range(20)]


def test_many_who_begin_together_are_soon_spread_over_a_whole_pause() -> None:
    owners = [Pauses(f"owner-{number}", MOST_S) for number in range(64)]
    moments = [sum(one.next_s() for _ in range(20)) for one in owners]
    assert max(moments) - min(moments) > MOST_S / 2
    tenths = [int(moment % MOST_S / MOST_S * 10) for moment in moments]
    assert max(map(tenths.count, tenths)) < len(owners) / 2, "no moment is that of many"


class Watched(MemoryStore):
    """Notes when each owner asks for what."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__(lambda: int(loop.time() * 1000))
        self._loop = loop
        self.asked: dict[str, list[float]] = {}

    async def inboxes_waiting(self, owner: str) -> list[str]:
        self._note(f"{owner} looks")
        return await super().inboxes_waiting(owner)

    async def renew_owner(self, owner: str, **how: Any) -> bool:
        self._note(f"{owner} renews")
        return await super().renew_owner(owner, **how)

    def _note(self, what: str) -> None:
        self.asked.setdefault(what, []).append(self._loop.time())


def test_neither_looks_nor_renewals_of_two_owners_stay_in_step(tmp_path: Path) -> None:
    async def run(loop: VirtualLoop) -> tuple[int, dict[str, list[float]]]:
        store = Watched(loop)
        async with LocalInstallation(store, tmp_path) as installation:
            lease_ms = next(iter(installation.hosts.values())).limits.lease_ms
            await pass_time(lease_ms / 1000 * 10)
            return lease_ms, store.asked

    lease_ms, asked = run_virtually(run)
    longest_s = lease_ms / 3000
    assert len(asked) == 4
    for moments in asked.values():
        gaps = [after - before for before, after in pairwise(moments)]
        assert len(gaps) >= 29
        assert all(longest_s * (1 - SPREAD) - 1e-6 <= gap <= longest_s + 1e-6 for gap in gaps)
    for what in ("looks", "renews"):
        first, second = (asked[f"owner-{number} {what}"] for number in range(2))
        apart = [abs(one - other) for one, other in zip(first, second, strict=False)]
        assert max(apart) > longest_s * SPREAD
