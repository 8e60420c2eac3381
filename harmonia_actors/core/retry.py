"""When a failed attempt is followed by another one: arithmetic only, luck derived from names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

__all__ = ["NO_RETRY", "RetryPolicy", "delay_ms"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a failed task is tried again. Lost attempts are not counted here."""

    max_retries: int = 0
    retry_interval_ms: int = 1_000
    #: Each further wait is this many times as long as the one before.
    backoff: float = 1.0
    max_interval_ms: int = 3_600_000
    #: Share of the wait by which it may be longer or shorter, 0.0 to 1.0.
    jitter: float = 0.0


NO_RETRY = RetryPolicy()


def delay_ms(policy: RetryPolicy, *, failures: int, luck: str) -> int:
    """Milliseconds to wait after the n-th failure (n = `failures`, from 1).

    `luck` (execution, task and attempt) decides the jitter, so that a replay waits the same time.
    """
    wait = float(policy.retry_interval_ms)
    if policy.backoff != 1.0:
        # The exponent is bounded so that a large count cannot overflow before the cap applies.
        wait *= policy.backoff ** min(failures - 1, 64)
    wait = min(wait, float(policy.max_interval_ms))
    if policy.jitter:
        digest = hashlib.sha256(luck.encode()).digest()
        share = int.from_bytes(digest[:8], "big") / 2**64
        wait *= 1.0 + policy.jitter * (2.0 * share - 1.0)
    return max(0, int(wait))
