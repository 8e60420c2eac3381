"""The settings of what tasks tell while they run: progress and log lines. A part of `settings`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings

__all__ = ["TellingSettings"]


class TellingSettings(BaseSettings):
    """Rates and sizes."""

    # What tasks tell while they run
    progress_interval_ms: int = Field(
        200, ge=0, description="Shortest time between two progress reports of one attempt."
    )
    events_per_execution_max: int = Field(
        200_000,
        gt=0,
        description="Progress and log lines stop beyond this many events of one execution.",
    )
    task_log_interval_ms: int = Field(
        250, ge=0, description="Shortest time between two events of one attempt's log lines."
    )
    task_log_event_bytes_max: int = Field(
        32_768, ge=1_024, description="Log lines of one event; each line counts 64 bytes more."
    )
    task_log_line_bytes_max: int = Field(8_192, ge=64, description="A longer log line is cut.")
    task_log_bytes_max: int = Field(
        1_000_000, ge=0, description="Log lines kept of one attempt, in bytes; 0: none are."
    )
    task_log_execution_bytes_max: int = Field(
        16_000_000, ge=0, description="Log lines kept of one execution, in bytes."
    )
    task_log_waiting_bytes_max: int = Field(
        64_000_000,
        ge=0,
        description="Log lines that wait for the store in one execution actor, in bytes; what is "
        "beyond is left out.",
    )
