"""Which events of a stream a subscriber wants: by type, task, status and workflow.

Filters do not touch the cursor: what is not wanted is passed over. A gap is told to everybody,
because nobody knows whether something that was wanted is in it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import Problem, ValidationFailed
from harmonia_actors.core.events import EVENT_STATUSES, EVENT_TYPES, event_status
from harmonia_serve.gateway import AnyEvent, LoggedEvent
from harmonia_serve.queries import FilterQuery, InstallationStreamQuery, nearest

__all__ = ["Filter", "execution_filter", "installation_filter"]

#: What the log itself says.
_FOR_ALL: Final = ("gap", "end")
_MARK: Final = "cursor"
_ANY: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Filter:
    """What is wanted; empty means that anything is."""

    types: frozenset[str] = _ANY
    statuses: frozenset[str] = _ANY
    #: How the data of an event of the task begins.
    task: bytes = b""
    workflow_id: str = ""

    def __call__(self, event: AnyEvent) -> bool:
        """Whether the subscriber is to see an event."""
        if event.type in _FOR_ALL:
            return True
        if event.type == _MARK or (self.types and event.type not in self.types):
            return False
        if self.workflow_id and not (
            isinstance(event, LoggedEvent) and event.workflow_id == self.workflow_id
        ):
            return False
        if self.task and not event.body.startswith(self.task, event.data_at):
            return False
        return not self.statuses or event_status(event.type, event.data) in self.statuses


def execution_filter(query: FilterQuery) -> Filter | None:
    """What a client wants to see of one execution; None for everything.

    Raises ValidationFailed for a type that there is not.
    """
    if query.type is None and query.task is None:
        return None
    problems: list[Problem] = []
    types = _listed("type", "event type", query.type, EVENT_TYPES, problems)
    return _made(Filter(types, task=_task_start(query.task)), problems)


def installation_filter(query: InstallationStreamQuery) -> Filter:
    """What a client wants to see of all executions. Raises ValidationFailed."""
    problems: list[Problem] = []
    return _made(
        Filter(
            _listed("type", "event type", query.type, EVENT_TYPES, problems),
            _listed("status", "status", query.status, EVENT_STATUSES, problems),
            _task_start(query.task),
            query.workflow_id or "",
        ),
        problems,
    )


def _made(wanted: Filter, problems: list[Problem]) -> Filter:
    if problems:
        raise ValidationFailed("query", problems)
    return wanted


def _listed(
    field: str, noun: str, text: str | None, known: Collection[str], problems: list[Problem]
) -> frozenset[str]:
    """The words of a filter; what is wrong with them is added to `problems`."""
    if text is None:
        return _ANY
    words = text.split(",")
    for word in dict.fromkeys(words):
        if word not in known:
            hint = nearest(word, known) or f"; there are: {', '.join(known)}"
            problems.append(Problem(field, f"there is no {noun} '{word[:100]}'{hint}"))
    return frozenset(words)


def _task_start(name: str | None) -> bytes:
    """Events of tasks have the name first (`core.events`), so none has to be parsed."""
    return b"" if name is None else b'{"task_name":%s,' % jsontext.encode(name)
