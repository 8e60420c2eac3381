"""Text and details of unknown origin, made so that they can be stored, sent and shown.

What an action raises, or a message that quotes somebody's input, may be of any length and hold
characters that no UTF-8 can carry. This module must not know where it came from.
"""

from __future__ import annotations

from typing import Any

from harmonia_actors.core import jsontext

__all__ = ["CODE_CHARS_MAX", "DETAILS_BYTES_MAX", "MESSAGE_CHARS_MAX", "safe_details", "safe_text"]

MESSAGE_CHARS_MAX = 4_000
CODE_CHARS_MAX = 100
DETAILS_BYTES_MAX = 32_000


def safe_text(value: object, chars_max: int = MESSAGE_CHARS_MAX) -> str:
    """A value as text: lone surrogates written out, then cut to `chars_max` characters."""
    try:
        text = value if type(value) is str else str(value)
    except Exception:
        # Whatever is raised by a foreign object's own method, there is still something to say.
        text = f"<{type(value).__name__} that cannot be shown>"
    # Longer ones are cut first, too: what is written out takes more characters than before.
    text = text[: chars_max + 1].encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"


def safe_details(details: object) -> dict[str, Any]:
    """Details that are a JSON object of bounded size; else a note of what was left out."""
    if not isinstance(details, dict):
        return {"note": "the details were not a JSON object and were left out"}
    try:
        size = len(jsontext.encode(details))
    except (TypeError, ValueError, RecursionError):
        return {"note": "the details were not JSON and were left out"}
    if size > DETAILS_BYTES_MAX:
        return {"note": f"the details had {size} bytes and were left out"}
    return details
