"""Identifiers as clients send them: what cannot be one of ours is not there.

Checked before the gateway is asked, so that nothing a client makes up becomes part of a key in
the store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from harmonia_actors.core.errors import (
    CheckpointNotFound,
    ExecutionNotFound,
    NotFound,
    Problem,
    ResourceNotFound,
    TemplateNotFound,
    ValidationFailed,
    WorkflowNotFound,
)

__all__ = [
    "checkpoint_id",
    "execution_id",
    "filter_id",
    "key_id",
    "template_id",
    "workflow_id",
]

_SHOWN_MAX: Final = 200
_PATTERN: Final = re.compile(r"(wf|exec|cp|tmpl)-[0-9a-f-]{36}")
_KEY_PATTERN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ERRORS: Final[Mapping[str, type[NotFound]]] = {
    "wf": WorkflowNotFound,
    "exec": ExecutionNotFound,
    "tmpl": TemplateNotFound,
    "cp": CheckpointNotFound,
}


def _fits(prefix: str, value: str) -> bool:
    return value.startswith(f"{prefix}-") and _PATTERN.fullmatch(value) is not None


def _checked(prefix: str, value: str) -> str:
    if not _fits(prefix, value):
        raise _ERRORS[prefix](value[:_SHOWN_MAX])
    return value


def workflow_id(value: str) -> str:
    """The same id. Raises WorkflowNotFound if it cannot be one."""
    return _checked("wf", value)


def execution_id(value: str) -> str:
    """The same id. Raises ExecutionNotFound if it cannot be one."""
    return _checked("exec", value)


def template_id(value: str) -> str:
    """The same id. Raises TemplateNotFound if it cannot be one."""
    return _checked("tmpl", value)


def checkpoint_id(value: str) -> str:
    """The same id. Raises CheckpointNotFound if it cannot be one."""
    return _checked("cp", value)


def key_id(value: str) -> str:
    """The same id. Raises ResourceNotFound if it cannot be one."""
    if _KEY_PATTERN.fullmatch(value) is None:
        shown = value[:_SHOWN_MAX]
        raise ResourceNotFound(f"Key with ID '{shown}' not found", {"requested_id": shown})
    return value


def filter_id(prefix: str, field: str, value: str | None) -> str | None:
    """The id that a list is filtered by. Raises ValidationFailed if it cannot be one."""
    if value is not None and not _fits(prefix, value):
        message = f"must be an ID like {prefix}-123e4567-…, not '{value[:_SHOWN_MAX]}'"
        raise ValidationFailed("query", [Problem(field, message)])
    return value
