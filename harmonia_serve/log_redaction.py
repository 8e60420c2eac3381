"""Keeps API keys out of what the server writes to its logs, whoever's handler writes it.

The surfaces take the key out of the query string before anything sees it, but a server that runs in
another process than they do, or that traces what it receives, logs the request as it came. This
module must not know where the loggers write to.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Final

from harmonia_actors.runtime.logs import without_keys
from harmonia_serve.credentials import is_key_name

__all__ = ["logging_filter", "silence_query_strings"]

_REDACTED: Final = "***"

#: Loggers of the server that write paths with their query strings or whole scopes.
_LOGGERS: Final = (
    "uvicorn",
    "uvicorn.access",
    "uvicorn.asgi",
    "uvicorn.error",
    "websockets",
    "websockets.server",
    "ray.serve",
)

_IN_TEXT: Final = re.compile(r"([A-Za-z0-9_%+\-]+)=([^&\s\"'<>]*)")


def _redact(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        if is_key_name(match[1]):
            return f"{match[1]}={_REDACTED}"
        return match[0]

    text = without_keys(text)
    return _IN_TEXT.sub(replace, text) if "=" in text else text


def _redact_value(value: Any) -> Any:
    """The same value without keys in it; other objects become text only if they hold one."""
    if isinstance(value, str):
        return _redact(value)
    if isinstance(value, bool | int | float | None):
        return value
    text = str(value)
    clean = _redact(text)
    return value if clean == text else clean


class _RedactQueryKeys(logging.Filter):
    """Replaces each key, and each value of `api_key=`, in a record before anything formats it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = _redact_value(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(_redact_value(argument) for argument in record.args)
        elif record.args:
            record.args = {name: _redact_value(value) for name, value in record.args.items()}
        return True


_FILTER: Final = _RedactQueryKeys("")


def logging_filter() -> logging.Filter:
    """A filter that takes API keys out of log records; it lets all through."""
    return _FILTER


def silence_query_strings() -> None:
    """Keep query keys out of what the server's loggers write in this process.

    To be called once in each process that runs a server for the surfaces; twice does no harm.
    """
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if _FILTER not in logger.filters:
            logger.addFilter(_FILTER)
