"""Owners that own something, without a process."""

from __future__ import annotations

from persistence.store import Loaded, Store

__all__ = ["OWNED_MS", "claim"]

#: Longer than any test.
OWNED_MS = 10**9


async def claim(store: Store, execution_id: str, owner: str) -> Loaded | None:
    """As an owner that is registered."""
    assert await store.renew_owner(owner, lease_ms=OWNED_MS)
    return await store.claim(execution_id, owner)
