"""Where a stream begins and ends, as the query and the header of a client that resumes say."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from starlette.datastructures import Headers

from harmonia_actors.core.cursors import Cursor, Place, parse_cursor, parse_place
from harmonia_actors.core.errors import Problem, ValidationFailed
from harmonia_serve.gateway import StreamEvent

__all__ = ["age_s", "close_batches", "start_after", "start_cursor", "up_to"]

#: By this share streams may end before they have reached their greatest age.
_AGE_SPREAD: Final = 0.1


def start_after(after: str | None, headers: Headers) -> Place:
    """The place after which a stream starts. Raises ValidationFailed.

    A browser that reconnects keeps the query of its first request and adds Last-Event-ID, so the
    header wins.
    """
    last = headers.get("last-event-id")
    text = last or after
    if not text:
        return Place()
    place = parse_place(text)
    if place is None:
        message = f"must be the id of an event, like 12, not '{text[:100]}'"
        raise ValidationFailed("request", [Problem("Last-Event-ID" if last else "after", message)])
    return place


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


def age_s(most_s: float) -> float:
    """How old a stream may become: thousands that were opened at once are not to come back so."""
    return most_s * (1.0 - _AGE_SPREAD * random.random())  # noqa: S311 - nobody gains by a guess


async def up_to(
    until: Place, after: Place, batches: AsyncIterator[Sequence[StreamEvent]]
) -> AsyncIterator[Sequence[StreamEvent]]:
    """The batches up to the event at this place, or what there is before it."""
    position = after
    try:
        async for batch in batches:
            # The first one says that there is such an execution.
            if position >= until:
                return
            position = batch[-1].place if batch else position
            # As it is, it may be one that others are sent, too.
            is_within = position <= until
            yield batch if is_within else [event for event in batch if event.place <= until]
            if position >= until:
                return
    finally:
        await close_batches(batches)


async def close_batches(batches: AsyncIterator[Any]) -> None:
    """Let go of whatever they come from."""
    close = getattr(batches, "aclose", None)
    if close is not None:
        await close()
