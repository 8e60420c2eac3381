"""Which events of a stream a subscriber wants: by type, task, status and workflow.

Filters do not touch the cursor: what is not wanted is passed over. A gap is told to everybody,
because nobody knows whether something that was wanted is in it. Log lines are only for those who
ask for them: there may be many, and whoever follows the reference to the letter does not know them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import Problem, ValidationFailed
from harmonia_actors.core.event_batches import EventBatch, made_once
from harmonia_actors.core.events import EVENT_STATUSES, EVENT_TYPES, TaskLog, event_status
from harmonia_serve.gateway import AnyEvent, LoggedEvent
from harmonia_serve.queries import FilterQuery, InstallationStreamQuery, nearest

__all__ = ["Filter", "execution_filter", "installation_filter"]

#: What the log itself says.
_FOR_ALL: Final = ("gap", "end")
_MARK: Final = "cursor"
_ANY: Final[frozenset[str]] = frozenset()
_LOGS: Final = frozenset({TaskLog.type})


@dataclass(frozen=True, slots=True)
class Filter:
    """What is wanted; empty means that anything is, but for types that are hidden."""

    types: frozenset[str] = _ANY
    statuses: frozenset[str] = _ANY
    #: How the data of an event of the task begins.
    task: bytes = b""
    workflow_id: str = ""
    hidden: frozenset[str] = _ANY
    #: Types that no status is asked of: they are wanted besides.
    besides: frozenset[str] = _ANY

    @property
    def is_plain(self) -> bool:
        """Whether it only hides what nobody sees who has not asked for it."""
        return not (self.types or self.statuses or self.task or self.workflow_id)

    def of(self, batch: Sequence[AnyEvent]) -> Sequence[AnyEvent]:
        """The events of a batch that the subscriber is to see.

        The batch as it is, if that is all of it: it may be one that others are sent, too. What all
        see who have asked for nothing special is the same object for all of them.
        """
        if self.is_plain:
            shown = made_once(batch, f"shown without {sorted(self.hidden)}", self._plainly)
        else:
            shown = self._narrowed(batch)
        return batch if shown is None else shown

    def _plainly(self, batch: Sequence[AnyEvent]) -> Sequence[AnyEvent] | None:
        """Without what is hidden; None if that is nothing."""
        hidden = self.hidden | {_MARK}
        shown = [event for event in batch if event.type not in hidden]
        return None if len(shown) == len(batch) else EventBatch(shown)

    def _narrowed(self, batch: Sequence[AnyEvent]) -> Sequence[AnyEvent] | None:
        """Without what is not wanted; None if that is nothing."""
        shown = [event for event in batch if self(event)]
        return None if len(shown) == len(batch) else shown

    def __call__(self, event: AnyEvent) -> bool:
        """Whether the subscriber is to see an event."""
        if event.type in _FOR_ALL:
            return True
        if event.type == _MARK or event.type in self.hidden:
            return False
        if self.types and event.type not in self.types:
            return False
        if self.workflow_id and not (
            isinstance(event, LoggedEvent) and event.workflow_id == self.workflow_id
        ):
            return False
        if self.task and not event.body.startswith(self.task, event.data_at):
            return False
        is_asked = bool(self.statuses) and event.type not in self.besides
        return not is_asked or event_status(event.type, event.data) in self.statuses


def execution_filter(query: FilterQuery) -> Filter:
    """What a client wants to see of one execution.

    Raises ValidationFailed for a type or a status that there is not.
    """
    problems: list[Problem] = []
    types, hidden = _types(query, problems)
    wanted = Filter(
        types,
        _listed("status", "status", query.status, EVENT_STATUSES, problems),
        _task_start(query.task),
        hidden=hidden,
        besides=_LOGS if query.logs else _ANY,
    )
    if problems:
        raise ValidationFailed("query", problems)
    return wanted


def installation_filter(query: InstallationStreamQuery) -> Filter:
    """The same for all executions, of which those of one workflow may be wanted."""
    return replace(execution_filter(query), workflow_id=query.workflow_id or "")


def _types(query: FilterQuery, problems: list[Problem]) -> tuple[frozenset[str], frozenset[str]]:
    """The types that are wanted, any if empty, and those that are not."""
    types = _listed("type", "event type", query.type, EVENT_TYPES, problems)
    if types and query.logs:
        types |= _LOGS
    return types, _ANY if types or query.logs else _LOGS


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
