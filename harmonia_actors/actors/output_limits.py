"""Sizes of inputs and outputs, as the settings have them."""

from __future__ import annotations

from harmonia_actors.runtime.ordering import OrderingLimits
from harmonia_actors.settings import Settings

__all__ = ["ordering_limits"]


def ordering_limits(settings: Settings) -> OrderingLimits:
    """Sizes of inputs and outputs."""
    return OrderingLimits(
        resolved_input_bytes_max=settings.resolved_input_bytes_max,
        inline_output_bytes_max=settings.inline_output_bytes_max,
        output_bytes_max=settings.output_bytes_max,
        output_depth_max=settings.output_depth_max,
    )
