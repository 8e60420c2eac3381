"""The settings of how attempts are handed to task actors. A part of `settings`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings

__all__ = ["HandingOutSettings"]


class HandingOutSettings(BaseSettings):
    """Counts, sizes and times."""

    # How attempts are handed to task actors
    batch_target_ms: int = Field(
        20,
        ge=0,
        description="Work handed to a task actor in one call, by how long its actions take.",
    )
    batch_bytes_max: int = Field(8_000_000, gt=0, description="Inputs handed over in one call.")
    attempts_in_flight_max: int = Field(
        2_000, gt=0, description="Attempts of one execution handed out at a time; the rest waits."
    )
    in_flight_bytes_max: int = Field(
        128_000_000,
        gt=0,
        description="Inputs of all attempts that one execution actor has handed out.",
    )
    batch_attempts_max: int = Field(256, gt=0, description="Attempts handed over in one call.")
    lease_turn_ms: int = Field(
        20,
        ge=0,
        description="So long an execution actor keeps a task actor that others wait for, while it "
        "has work for it.",
    )
    stretch_tasks_max: int = Field(
        128,
        ge=0,
        description="Tasks handed over behind one that they follow one by one, in the same call. "
        "0: each is handed over when its turn has come.",
    )
    stretch_ms: int = Field(
        50,
        ge=0,
        description="After so long a task actor goes no further with such tasks by itself, so that "
        "others get their turn.",
    )
    stretch_store_ms: int = Field(
        1_000,
        gt=0,
        description="How long a task actor waits until an outcome is in the store, before it goes "
        "no further and tells the execution actor instead.",
    )
