"""Names and descriptions that clients give to templates, instances and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harmonia_actors.core.errors import Problem, ValidationFailed
from harmonia_actors.settings import Settings

__all__ = ["check_texts"]


def check_texts(
    texts: Mapping[str, Any], subject: str, settings: Settings
) -> tuple[str, str | None]:
    """The name and the description among `texts`. Raises ValidationFailed.

    A description may be empty, or not be there.
    """
    name, description = texts.get("name"), texts.get("description")
    problems = []
    if not isinstance(name, str) or not name.strip():
        problems.append(Problem("name", "must be a text that is not empty"))
    if description is not None and not isinstance(description, str):
        problems.append(Problem("description", "must be a text"))
    limits = (
        ("name", name, settings.name_length_max),
        ("description", description, settings.description_length_max),
    )
    for field, text, most in limits:
        if isinstance(text, str) and len(text) > most:
            message = f"has {len(text)} characters; at most {most} are allowed"
            problems.append(Problem(field, message))
    if problems:
        raise ValidationFailed(subject, problems)
    return str(name), description
