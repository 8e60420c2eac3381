"""The errors that the client raises, as one tree.

    ClientError
    ├── CannotBeSent             what was asked for fits into no request (also a ValueError)
    ├── NotConfigured            no service to talk to: neither arguments, environment nor data dir
    ├── ServiceUnreachable       nothing answers at the URL, or the connection broke
    ├── WaitTimedOut             the execution is still going on after the time the caller gave
    ├── ExecutionEndedBadly      `Execution.result` of an execution that failed or was cancelled
    └── ApiError                 the service answered with an error; one class for each code
        ├── InvalidRequest, AuthenticationFailed, PermissionDenied, Conflict, ValidationFailed,
        │   RateLimitExceeded, ServiceUnavailable, ComponentFailed, ExecutionFailed
        └── NotFound
            └── WorkflowNotFound, ExecutionNotFound, TemplateNotFound, CheckpointNotFound

This module knows codes and statuses. It must not know the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "FOREIGN",
    "ApiError",
    "AuthenticationFailed",
    "CannotBeSent",
    "CheckpointNotFound",
    "ClientError",
    "ComponentFailed",
    "Conflict",
    "ExecutionEndedBadly",
    "ExecutionFailed",
    "ExecutionNotFound",
    "InvalidRequest",
    "NotConfigured",
    "NotFound",
    "PermissionDenied",
    "RateLimitExceeded",
    "ServiceUnavailable",
    "ServiceUnreachable",
    "TemplateNotFound",
    "ValidationFailed",
    "WaitTimedOut",
    "WorkflowNotFound",
    "api_error",
]

#: The code of an answer that is no envelope of ours.
FOREIGN = "http_error"
#: What a proxy says in place of a service that it has lost, or does not know yet.
_OF_A_PROXY = frozenset({404, 500, 502, 504})
#: Of an answer that is no envelope of ours (a proxy's page), so much is shown.
_FOREIGN_BODY_SHOWN = 200


class ClientError(Exception):
    """Root of the tree."""


class CannotBeSent(ClientError, ValueError):
    """What was asked for fits into no request: a name like `..`, text that is no Unicode, NaN."""


class NotConfigured(ClientError):
    """The client was not told which service to talk to, or was told something unusable."""


class ServiceUnreachable(ClientError):
    """Nothing answers at `url`. `sent` is True if the request may have reached the service."""

    def __init__(self, url: str, reason: str, *, sent: bool) -> None:
        super().__init__(f"no answer from {url}: {reason}")
        self.url = url
        self.reason = reason
        self.sent = sent

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_unreachable, (self.url, self.reason, self.sent)


def _rebuild_unreachable(url: str, reason: str, sent: bool) -> ServiceUnreachable:
    return ServiceUnreachable(url, reason, sent=sent)


class WaitTimedOut(ClientError):
    """The execution had not ended when the time was over. It goes on by itself."""

    def __init__(self, execution_id: str, timeout_s: float) -> None:
        super().__init__(f"execution {execution_id} has not ended after {timeout_s:g} s")
        self.execution_id = execution_id
        self.timeout_s = timeout_s

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.execution_id, self.timeout_s)


class ExecutionEndedBadly(ClientError):
    """The execution failed or was cancelled; `document` is its final state."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        error = document.get("error") or {}
        reason = f": {error['message']}" if isinstance(error, dict) and "message" in error else ""
        super().__init__(f"execution {document['execution_id']} {document['status']}{reason}")
        self.document = dict(document)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.document,)


class ApiError(ClientError):
    """The service's error envelope, with the HTTP status it came with."""

    code: ClassVar[str] = ""

    def __init__(self, code: str, message: str, details: Mapping[str, Any], status: int) -> None:
        super().__init__(message)
        self.error_code = code
        self.message = message
        self.details = dict(details)
        self.status = status

    @property
    def of_a_proxy(self) -> bool:
        """Whether this is no word of the service, but of a proxy that has lost it: ask again."""
        return self.error_code == FOREIGN and self.status in _OF_A_PROXY

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.error_code, self.message, self.details, self.status)


class InvalidRequest(ApiError):
    """400, and 413 for what is too large: the request is malformed."""

    code = "invalid_request"


class AuthenticationFailed(ApiError):
    """401: no key, or a wrong or revoked one."""

    code = "authentication_failed"


class PermissionDenied(ApiError):
    """403: the key lacks the scope."""

    code = "permission_denied"


class NotFound(ApiError):
    """404: a path, task, file, component or key that is not there."""

    code = "not_found"


class WorkflowNotFound(NotFound):
    """404: no workflow has this id."""

    code = "workflow_not_found"


class ExecutionNotFound(NotFound):
    """404: no execution has this id."""

    code = "execution_not_found"


class TemplateNotFound(NotFound):
    """404: no template has this id."""

    code = "template_not_found"


class CheckpointNotFound(NotFound):
    """404: no checkpoint has this id."""

    code = "checkpoint_not_found"


class Conflict(ApiError):
    """409: at odds with the current state."""

    code = "conflict"


class ValidationFailed(ApiError):
    """422: well-formed but not valid; `details["errors"]` names each field."""

    code = "validation_error"


class RateLimitExceeded(ApiError):
    """429: too many requests, also after the client's own retries."""

    code = "rate_limit_exceeded"


class ServiceUnavailable(ApiError):
    """503: the store is away, also after the client's own retries."""

    code = "service_unavailable"


class ComponentFailed(ApiError):
    """500: a component raised in an execution that the request waited for."""

    code = "component_error"


class ExecutionFailed(ApiError):
    """500: an execution that the request waited for failed otherwise."""

    code = "execution_error"


def _subclasses(kind: type[ApiError]) -> list[type[ApiError]]:
    direct = kind.__subclasses__()
    return direct + [deeper for child in direct for deeper in _subclasses(child)]


_BY_CODE: dict[str, type[ApiError]] = {kind.code: kind for kind in _subclasses(ApiError)}


def api_error(status: int, body: bytes, location: str = "") -> ApiError:
    """The error that an answer with this status (none of 2xx) and body means.

    A body that is not the reference's envelope comes from something between client and service;
    it is shown, shortened, under the code `http_error`. So is where it leads, for the client does
    not go there: its key may be meant for nobody there.
    """
    try:
        error = json.loads(body)["error"]
        code, message = str(error["code"]), str(error["message"])
        details = dict(error.get("details") or {})
    except (ValueError, KeyError, TypeError):
        text = body[:_FOREIGN_BODY_SHOWN].decode("utf-8", "replace").strip()
        text = f"it leads to {location[:_FOREIGN_BODY_SHOWN]}" if location else text
        code, message, details = FOREIGN, f"HTTP {status}: {text or 'empty answer'}", {}
    return _BY_CODE.get(code, ApiError)(code, message, details, status)
