"""Where a stream begins: what the query and the header of a client that resumes say."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers

from harmonia_actors.core.cursors import Cursor, parse_cursor
from harmonia_actors.core.errors import Problem, ValidationFailed

__all__ = ["start_after", "start_cursor"]

_SEQ_DIGITS_MAX: Final = 16


def start_after(after: int | None, headers: Headers) -> int:
    """The seq after which a stream starts. Raises ValidationFailed.

    A browser that reconnects keeps the query of its first request and adds Last-Event-ID, so the
    header wins.
    """
    last = headers.get("last-event-id")
    if not last:
        return after or 0
    if not (last.isascii() and last.isdecimal()) or len(last) > _SEQ_DIGITS_MAX:
        message = f"must be the id of an event, a whole number, not '{last[:100]}'"
        raise ValidationFailed("request", [Problem("Last-Event-ID", message)])
    return int(last)


def start_cursor(after: str | None, headers: Headers) -> Cursor | None:
    """The same for the stream of the whole installation; None means from now on."""
    last = headers.get("last-event-id")
    field, text = ("Last-Event-ID", last) if last else ("after", after)
    if text is None:
        return None
    cursor = parse_cursor(text)
    if cursor is None:
        message = (
            "must be a cursor that this stream has sent, like 1795000000000-42, or 0 for all that "
            f"is kept, not '{text[:100]}'"
        )
        raise ValidationFailed("request" if last else "query", [Problem(field, message)])
    return cursor
