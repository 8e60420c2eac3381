"""What bounds the executions of one owner.

Numbers only: this module must not know what is bounded by them.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HostLimits"]


@dataclass(frozen=True, slots=True)
class HostLimits:
    """Bounds of one host."""

    owners_max: int
    lease_ms: int
    executions_max: int = 2_000
    output_cache_bytes: int = 64_000_000
    #: Attempts of one execution handed out at a time, and bytes of all inputs that are.
    attempts_in_flight_max: int = 2_000
    in_flight_bytes_max: int = 128_000_000
    #: Log lines wait so long for something else to be committed with.
    lines_wait_ms: int = 250
    #: What all log lines may count for that wait to be committed.
    lines_waiting_bytes_max: int = 64_000_000
    #: Crashes in a row after which an execution is failed, and the time alone that clears it of
    #: one, four times as long for each that it ever had.
    crashes_max: int = 3
    calm_s: float = 0.5
    #: Wait before another try with an execution whose driver failed, four times as long each time.
    broken_s: float = 1.0
