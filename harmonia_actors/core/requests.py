"""Values that cross the border between the engine and its surfaces: pages, principals, replies.

Plain data. This module must not know HTTP, the store or Ray.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from harmonia_actors.core.cursors import Cursor, Place

__all__ = [
    "SCOPES",
    "AnyEvent",
    "Edits",
    "ExecutionReply",
    "FileContent",
    "JsonObject",
    "LoggedEvent",
    "Once",
    "PageRequest",
    "Principal",
    "StreamEvent",
]

JsonObject = dict[str, Any]

#: What a key may be allowed: look, run executions, change definitions, manage keys.
SCOPES = ("read", "execute", "write", "admin")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sends a request: a key, by its public id (never the secret), and what it may do."""

    key_id: str
    name: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Once:
    """That a request is to be carried out once, however often it is sent: who says so, by what key.

    The caller is the public id of an API key, so that two callers never mean the same thing.
    """

    caller: str
    key: str


@dataclass(frozen=True, slots=True)
class Edits:
    """What a client wants to be different in a restored execution, by name.

    Each value of `input` takes the place of the execution's former one; each of `task_inputs` is a
    task's whole input, as it would stand in a definition.
    """

    input: Mapping[str, Any] = field(default_factory=dict)
    task_inputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.input or self.task_inputs)

    def to_json(self) -> dict[str, Any]:
        """As a client sends them."""
        return {"input": dict(self.input), "task_inputs": dict(self.task_inputs)}


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page of a list is asked for; `page` counts from 1."""

    page: int
    limit: int
    sort_by: str = "created_at"
    descending: bool = True


@dataclass(frozen=True, slots=True)
class ExecutionReply:
    """Answer to a start. `ended` is True if the request waited and the execution has ended."""

    document: JsonObject
    ended: bool


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of an execution, as the log holds it.

    `body` is the WebSocket envelope as UTF-8 JSON: type, timestamp, execution_id, data, seq,
    timestamp_ms. Its last member, `data`, begins at `data_at`. `last` is True for the event that
    ends the execution: no other follows.
    """

    seq: int
    type: str
    body: bytes
    data_at: int
    last: bool
    #: Of log lines, which have the seq of the event before: how many there were since.
    part: int = 0
    #: Its number in the log, which counts all.
    index: int = 0

    @property
    def data(self) -> bytes:
        """The UTF-8 JSON of the `data` member alone, for SSE: a copy, made when asked for."""
        return self.body[self.data_at : -1]

    @property
    def place(self) -> Place:
        """Where whoever has seen it stands."""
        return Place(self.seq, self.part)

    @property
    def cursor(self) -> str:
        """What to resume after once this event has been seen."""
        return self.place.text


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event of the whole installation's log, or a word of the log's own: a gap, a mark.

    `body` is the WebSocket envelope as UTF-8 JSON, with `cursor` besides; `data` begins at
    `data_at`. `workflow_id` is empty if it cannot be known any more. A mark only says where the
    stream is; it is no event for anybody.
    """

    position: Cursor
    cursor: str
    type: str
    body: bytes
    data_at: int
    workflow_id: str = ""

    @property
    def data(self) -> bytes:
        """The UTF-8 JSON of the `data` member alone."""
        return self.body[self.data_at : -1]

    @property
    def last(self) -> bool:
        """Never: another event may always follow."""
        return False


AnyEvent = StreamEvent | LoggedEvent


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file of a workspace, to be streamed."""

    name: str
    size: int
    chunks: AsyncIterator[bytes]
