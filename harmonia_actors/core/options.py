"""Execution options and the small values they share with definitions: seconds, retry policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harmonia_actors.core.errors import Problem, ValidationFailed
from harmonia_actors.core.retry import RetryPolicy

__all__ = [
    "CheckpointPolicy",
    "ExecutionOptions",
    "parse_checkpoint_policy",
    "parse_options",
    "parse_retry_policy",
    "parse_seconds",
]

_RETRY_FIELDS = ("max_retries", "retry_interval", "backoff", "max_interval", "jitter")
_CHECKPOINT_FIELDS = ("every_completions", "every_s", "keep")
_OPTION_FIELDS = ("async", "timeout", "retry_policy", "checkpoint")

Report = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """When an execution takes checkpoints by itself; at least one of the two must be given."""

    #: As soon as so many tasks have completed since the last one.
    every_completions: int | None = None
    #: As soon as so much time has passed since the last one, if any task has completed since.
    every_ms: int | None = None
    #: How many of them stay; None: as many as the installation keeps.
    keep: int | None = None


@dataclass(frozen=True, slots=True)
class ExecutionOptions:
    """How an execution is run. `wait` is the request's `"async": false`."""

    wait: bool = False
    timeout_ms: int | None = None
    retry: RetryPolicy | None = None
    checkpoint: CheckpointPolicy | None = None


def parse_seconds(value: Any, where: str, most_s: float, report: Report) -> int | None:
    """A positive number of seconds, as milliseconds; problems go to `report`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        report(where, f"must be a number of seconds, not {value!r}")
    elif not 0 < value <= most_s:
        report(where, f"must be above 0 and at most {most_s:g} seconds, not {value!r}")
    else:
        return max(1, int(value * 1000))
    return None


def parse_retry_policy(
    value: Any, where: str, retries_max: int, report: Report
) -> RetryPolicy | None:
    """A `retry_policy` object; times are in seconds there, in milliseconds here."""
    if value is None:
        return None
    if not isinstance(value, dict):
        report(where, 'must be an object, like {"max_retries": 3, "retry_interval": 5}')
        return None
    for key in value:
        if key not in _RETRY_FIELDS:
            report(
                f"{where}.{key}", f"there is no such field; there are: {', '.join(_RETRY_FIELDS)}"
            )
    number = _Numbers(value, where, report)
    return RetryPolicy(
        max_retries=int(number.read("max_retries", 0, 0, retries_max, whole=True)),
        retry_interval_ms=int(number.read("retry_interval", 1.0, 0, 86_400) * 1000),
        backoff=number.read("backoff", 1.0, 1.0, 100.0),
        max_interval_ms=int(number.read("max_interval", 3600.0, 0, 86_400 * 30) * 1000),
        jitter=number.read("jitter", 0.0, 0.0, 1.0),
    )


def parse_checkpoint_policy(
    value: Any, where: str, *, kept_max: int, most_s: float, report: Report
) -> CheckpointPolicy | None:
    """A `checkpoint` object; problems go to `report`."""
    if value is None:
        return None
    if not isinstance(value, dict):
        report(where, f'must be an object, like {{"every_completions": 10}}, not {value!r}')
        return None
    for key in value:
        if key not in _CHECKPOINT_FIELDS:
            known = ", ".join(_CHECKPOINT_FIELDS)
            report(f"{where}.{key}", f"there is no such field; there are: {known}")
    if value.get("every_completions") is None and value.get("every_s") is None:
        report(where, "must have every_completions, every_s or both: when a checkpoint is due")
    return CheckpointPolicy(
        every_completions=_count(value, "every_completions", where, None, report),
        every_ms=parse_seconds(value.get("every_s"), f"{where}.every_s", most_s, report),
        keep=_count(value, "keep", where, kept_max, report),
    )


def _count(
    raw: Mapping[str, Any], key: str, where: str, most: int | None, report: Report
) -> int | None:
    value = raw.get(key)
    if value is None:
        return None
    bounds = "1 or more" if most is None else f"from 1 to {most}"
    if isinstance(value, bool) or not isinstance(value, int):
        report(f"{where}.{key}", f"must be a whole number, {bounds}, not {value!r}")
    elif value < 1 or (most is not None and value > most):
        report(f"{where}.{key}", f"must be {bounds}, not {value!r}")
    else:
        return value
    return None


class _Numbers:
    """Reads numbers within bounds from an object and reports those that are not."""

    def __init__(self, raw: Mapping[str, Any], where: str, report: Report) -> None:
        self.raw = raw
        self.where = where
        self.report = report

    def read(
        self, key: str, default: float, least: float, most: float, *, whole: bool = False
    ) -> float:
        value = self.raw.get(key)
        if value is None:
            return default
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            noun = "a whole number" if whole else "a number"
            self.report(f"{self.where}.{key}", f"must be {noun}, not {value!r}")
            return default
        if not least <= value <= most:
            self.report(f"{self.where}.{key}", f"must be from {least:g} to {most:g}, not {value!r}")
            return default
        return float(value)


def parse_options(
    raw: Mapping[str, Any], *, retries_max: int, timeout_s_max: float, checkpoints_kept_max: int
) -> ExecutionOptions:
    """Check a request's `execution_options`. Raises ValidationFailed with all problems."""
    problems: list[Problem] = []

    def report(where: str, message: str) -> None:
        problems.append(Problem(where, message))

    for key in raw:
        if key not in _OPTION_FIELDS:
            report(
                f"execution_options.{key}",
                f"there is no such option; there are: {', '.join(_OPTION_FIELDS)}",
            )
    runs_async = raw.get("async", True)
    if not isinstance(runs_async, bool):
        report("execution_options.async", f"must be true or false, not {runs_async!r}")
    options = ExecutionOptions(
        wait=runs_async is False,
        timeout_ms=parse_seconds(
            raw.get("timeout"), "execution_options.timeout", timeout_s_max, report
        ),
        retry=parse_retry_policy(
            raw.get("retry_policy"), "execution_options.retry_policy", retries_max, report
        ),
        checkpoint=parse_checkpoint_policy(
            raw.get("checkpoint"),
            "execution_options.checkpoint",
            kept_max=checkpoints_kept_max,
            most_s=timeout_s_max,
            report=report,
        ),
    )
    if problems:
        raise ValidationFailed("execution", problems)
    return options
