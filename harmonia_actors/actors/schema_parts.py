"""What judges the inputs of remote actions where these run."""

from __future__ import annotations

from harmonia_actors.runtime.service.schema_checks import SchemaChecks
from harmonia_actors.runtime.service.schema_process import CheckLimits
from harmonia_actors.settings import Settings

__all__ = ["make_schema_checks"]


def make_schema_checks(settings: Settings) -> SchemaChecks:
    """Judges inputs of remote actions where they run; an attempt has time to wait its turn."""
    limits = CheckLimits(settings.schema_check_cpu_s_max, settings.schema_check_memory_bytes_max)
    return SchemaChecks(limits, turn_s=None)
