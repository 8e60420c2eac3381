"""The error table: which status, close code and headers each error has, and the one envelope.

Every error of every surface is written here, whatever raised it. This module must not know routes
or the gateway.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response

from harmonia_actors.core.errors import (
    AuthenticationFailed,
    ComponentFailed,
    Conflict,
    ExecutionFailed,
    HarmoniaError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimitExceeded,
    ResourceNotFound,
    ServiceUnavailable,
    ValidationFailed,
)

__all__ = [
    "CLOSE_BAD_REQUEST",
    "CLOSE_ENDED",
    "CLOSE_EXPIRED",
    "CLOSE_INTERNAL",
    "CLOSE_RESTART",
    "CLOSE_SLOW",
    "CLOSE_TOO_BIG",
    "CLOSE_UNWELCOME",
    "MethodNotAllowed",
    "close_code",
    "envelope",
    "json_bytes",
    "log_unexpected",
    "problem_response",
    "status_of",
    "unexpected_response",
]

_log = logging.getLogger(__name__)

#: WebSocket close codes. The 44xx follow the HTTP statuses; the others are RFC 6455's own.
CLOSE_ENDED: Final = 1000
CLOSE_EXPIRED: Final = 1001
CLOSE_UNWELCOME: Final = 1008
CLOSE_TOO_BIG: Final = 1009
CLOSE_INTERNAL: Final = 1011
CLOSE_RESTART: Final = 1012
CLOSE_TRY_LATER: Final = 1013
CLOSE_BAD_REQUEST: Final = 4400
CLOSE_SLOW: Final = 4408


class MethodNotAllowed(HarmoniaError):
    """The path is known, but not with this method; `allowed` lists those that are."""

    code = "method_not_allowed"

    def __init__(self, method: str, path: str, allowed: list[str]) -> None:
        super().__init__(
            f"{method} is not allowed here; allowed: {', '.join(allowed)}",
            {"path": path, "allowed_methods": allowed},
        )
        self.allowed = allowed


#: Error class to HTTP status and WebSocket close code; the nearest class in the tree counts.
_TABLE: Final[Mapping[type[HarmoniaError], tuple[int, int]]] = {
    InvalidRequest: (400, CLOSE_BAD_REQUEST),
    AuthenticationFailed: (401, 4401),
    PermissionDenied: (403, 4403),
    NotFound: (404, 4404),
    ResourceNotFound: (404, 4404),
    MethodNotAllowed: (405, CLOSE_BAD_REQUEST),
    Conflict: (409, CLOSE_BAD_REQUEST),
    ValidationFailed: (422, CLOSE_BAD_REQUEST),
    RateLimitExceeded: (429, 4429),
    ComponentFailed: (500, CLOSE_INTERNAL),
    ExecutionFailed: (500, CLOSE_INTERNAL),
    ServiceUnavailable: (503, CLOSE_TRY_LATER),
}


def _row(error: HarmoniaError) -> tuple[int, int] | None:
    return next((_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE), None)


def status_of(error: HarmoniaError) -> int:
    """The HTTP status of an error; 413 for what is too large, 500 for a class not in the table."""
    if isinstance(error, InvalidRequest) and error.too_large:
        return int(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    row = _row(error)
    return row[0] if row else int(HTTPStatus.INTERNAL_SERVER_ERROR)


def close_code(error: HarmoniaError) -> int:
    """The WebSocket close code of an error."""
    row = _row(error)
    return row[1] if row else CLOSE_INTERNAL


def envelope(code: str, message: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """The API's error object."""
    return {"error": {"code": code, "message": message, "details": dict(details)}}


def json_bytes(value: Any) -> bytes:
    """A document as UTF-8 JSON. Raises ValueError for NaN and Infinity, which are not JSON."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    except UnicodeEncodeError:
        # A lone surrogate cannot be UTF-8, but it can be escaped.
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def problem_response(error: HarmoniaError) -> Response:
    """The answer that an error is, with the headers that its kind demands."""
    return Response(
        json_bytes(envelope(error.code, error.message, error.details)),
        status_code=status_of(error),
        headers=_headers(error),
        media_type="application/json",
    )


def _headers(error: HarmoniaError) -> dict[str, str]:
    if isinstance(error, AuthenticationFailed):
        return {"WWW-Authenticate": 'Bearer realm="harmonia"'}
    if isinstance(error, RateLimitExceeded | ServiceUnavailable):
        return {"Retry-After": str(max(1, error.retry_after_s))}
    if isinstance(error, MethodNotAllowed):
        return {"Allow": ", ".join(error.allowed)}
    if isinstance(error, InvalidRequest) and error.too_large:
        # What is left of the body will not be read: the connection is of no more use.
        return {"Connection": "close"}
    return {}


def log_unexpected(error: BaseException, where: str) -> str:
    """Log an error that nothing foresaw, with its stack, and return the id it has in the log."""
    error_id = secrets.token_hex(8)
    _log.error("unexpected error %s in %s", error_id, where, exc_info=error)
    return error_id


def unexpected_response(error_id: str) -> Response:
    """The answer to an unexpected error: its id in the log and nothing of its cause."""
    message = "An unexpected error occurred; the log has more under this error_id"
    return Response(
        json_bytes(envelope("internal_error", message, {"error_id": error_id})),
        status_code=500,
        media_type="application/json",
    )
