"""Every error that a client of Harmonia can be told about, as one tree.

    HarmoniaError
    ├── InvalidRequest            malformed: not JSON, wrong type, over a size limit
    ├── AuthenticationFailed      no key, or a wrong one
    ├── PermissionDenied          the key lacks the scope
    ├── NotFound                  (abstract) something named by id is not there
    │   ├── WorkflowNotFound
    │   ├── ExecutionNotFound
    │   ├── TemplateNotFound
    │   ├── CheckpointNotFound
    │   └── ResourceNotFound      a file, a task, a component, a path
    ├── Conflict                  the request is at odds with the current state
    ├── ValidationFailed          well-formed but not valid; `problems` names each field
    ├── RateLimitExceeded         try again after `retry_after_s`
    ├── ServiceUnavailable        the store is away; nothing was lost, try again
    ├── ComponentFailed           a component raised while a client waited for the execution
    └── ExecutionFailed           an execution failed otherwise while a client waited for it

This module knows codes, messages and details. It must not know HTTP: `harmonia_serve.problems`
maps each class to its status. All classes survive pickling, because Ray carries them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = [
    "AuthenticationFailed",
    "CheckpointNotFound",
    "ComponentFailed",
    "Conflict",
    "ExecutionFailed",
    "ExecutionNotFound",
    "HarmoniaError",
    "InvalidRequest",
    "NotFound",
    "PermissionDenied",
    "Problem",
    "RateLimitExceeded",
    "ResourceNotFound",
    "ServiceUnavailable",
    "TemplateNotFound",
    "ValidationFailed",
    "WorkflowNotFound",
]


class HarmoniaError(Exception):
    """Root of the tree. `code` is the API's error code, `details` a JSON object for the client."""

    code: ClassVar[str]

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.details, self.__dict__)


def _rebuild(
    kind: type[HarmoniaError], message: str, details: dict[str, Any], state: dict[str, Any]
) -> HarmoniaError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.message = message
    error.details = details
    error.__dict__.update(state)
    return error


class InvalidRequest(HarmoniaError):
    """The request is malformed: not JSON, a wrong type, or over a size limit.

    `too_large` is set when a size limit was passed, so that the HTTP layer can say so.
    """

    code = "invalid_request"

    def __init__(
        self, message: str, details: Mapping[str, Any] | None = None, *, too_large: bool = False
    ) -> None:
        super().__init__(message, details)
        self.too_large = too_large


class AuthenticationFailed(HarmoniaError):
    """Credentials are missing or wrong."""

    code = "authentication_failed"


class PermissionDenied(HarmoniaError):
    """The key is good, but lacks the scope that the operation needs."""

    code = "permission_denied"


class NotFound(HarmoniaError):
    """Something named by id is not there."""

    noun: ClassVar[str]

    def __init__(self, requested_id: str) -> None:
        super().__init__(
            f"{self.noun} with ID '{requested_id}' not found", {"requested_id": requested_id}
        )


class WorkflowNotFound(NotFound):
    """No workflow has this id."""

    code = "workflow_not_found"
    noun = "Workflow"


class ExecutionNotFound(NotFound):
    """No execution has this id."""

    code = "execution_not_found"
    noun = "Execution"


class TemplateNotFound(NotFound):
    """No template has this id."""

    code = "template_not_found"
    noun = "Template"


class CheckpointNotFound(NotFound):
    """No checkpoint has this id."""

    code = "checkpoint_not_found"
    noun = "Checkpoint"


class ResourceNotFound(HarmoniaError):
    """Something else that was asked for is not there: a path, a task, a file, a component."""

    code = "not_found"


class Conflict(HarmoniaError):
    """The request is at odds with the current state of what it names."""

    code = "conflict"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a request: where (`tasks.a.depends_on[0]`), what, and the way out.

    Both are cut to a length that is safe to show, since they may quote what was sent.
    """

    field: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "field", _shortened(self.field, 300))
        object.__setattr__(self, "message", _shortened(self.message, 600))

    def to_json(self) -> dict[str, str]:
        """The problem as it stands in `details.errors` of a `validation_error`."""
        return {"field": self.field, "message": self.message}


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


class ValidationFailed(HarmoniaError):
    """Well-formed but not valid; `details.errors` lists each field with its problem.

    `total` counts all problems, if not all are given.
    """

    code = "validation_error"

    #: At most this many problems travel in one answer; the count of all is in `details.total`.
    SHOWN_MAX: ClassVar[int] = 50

    def __init__(
        self, subject: str, problems: Iterable[Problem], *, total: int | None = None
    ) -> None:
        found = list(problems)
        first = found[0] if found else Problem("", "not valid")
        total = total or len(found)
        more = f" (and {total - 1} more)" if total > 1 else ""
        super().__init__(
            f"{subject} is not valid: {first.field}: {first.message}{more}",
            {
                "errors": [problem.to_json() for problem in found[: self.SHOWN_MAX]],
                "total": total,
            },
        )


class RateLimitExceeded(HarmoniaError):
    """Too many requests, or too many executions live; try again after `retry_after_s` seconds."""

    code = "rate_limit_exceeded"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message, {"retry_after_seconds": retry_after_s})
        self.retry_after_s = retry_after_s


class ServiceUnavailable(HarmoniaError):
    """The store cannot be reached; nothing accepted was lost, the client may try again."""

    code = "service_unavailable"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message, {"retry_after_seconds": retry_after_s})
        self.retry_after_s = retry_after_s


class ComponentFailed(HarmoniaError):
    """A component raised, and a client was waiting for the execution (`async: false`)."""

    code = "component_error"


class ExecutionFailed(HarmoniaError):
    """An execution failed, not by a component, and a client was waiting (`async: false`)."""

    code = "execution_error"
