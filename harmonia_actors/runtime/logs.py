"""What a process of Harmonia writes to its log: from which level on, and never an API key.

This module must not know who logs what: whatever is written passes through here last.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Final

__all__ = ["log_to_stderr", "without_keys"]

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: An API key as `service.keys` makes them; what names it may be shown, its secret not.
_KEY: Final = re.compile(r"(hk_[0-9a-f]{12}_)[A-Za-z0-9_-]+")
#: Loggers of others that say a lot, or the headers of what is sent, on the levels below this one.
_QUIET: Final = ("httpx", "httpcore", "matplotlib", "fontTools", "PIL", "asyncio")


def without_keys(text: str) -> str:
    """The text with the secret part of each API key in it replaced."""
    return _KEY.sub(r"\1***", text)


class _WithoutKeys(logging.Formatter):
    """Takes keys out of the whole text, tracebacks included: libraries log headers on DEBUG."""

    def format(self, record: logging.LogRecord) -> str:
        return without_keys(super().format(record))


def log_to_stderr(level: str) -> None:
    """Log lines from `level` on go to the process's log, which Ray keeps.

    `level` is a name of the standard library's: DEBUG, INFO, WARNING or ERROR. To be called once a
    process; on a second call nothing changes.
    """
    root = logging.getLogger()
    if root.handlers:
        return
    # Ray Serve puts an object in the place of stderr that keeps up to a thousand lines to itself.
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(_WithoutKeys(_FORMAT))
    root.addHandler(handler)
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
