"""The part of the store's contract about the log: which events were committed, in what order.

Each commit that has events is one entry, written with it. An entry names the events and does not
hold them: they are read from their execution's own log. The log keeps its newest entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from persistence.stored_event import StoredEvent

__all__ = ["LOG_ENTRIES_MAX", "LOG_START", "EventLog", "LogEntry", "LogId"]


#: Entries that the log keeps, unless it is said otherwise.
LOG_ENTRIES_MAX = 100_000


class LogId(NamedTuple):
    """An entry's id: ids grow in the order of commits.

    Each number is one more than the last, so a jump says that entries are gone; times tell an
    entry from one that had the same number before a server lost its last writes.
    """

    at_ms: int
    number: int


#: Before the first entry that there ever was.
LOG_START = LogId(0, 0)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """The events of one commit: `count` events of an execution, from `first_seq` on."""

    log_id: LogId
    execution_id: str
    first_seq: int
    count: int


class EventLog(Protocol):
    """What all executions' commits have said, in the order of commits."""

    async def read_log(self, *, after: LogId, limit: int, wait_ms: int = 0) -> Sequence[LogEntry]:
        """Entries with a higher id, the oldest first.

        If there is none, waits up to `wait_ms` (or somewhat less) for one.
        """
        ...

    async def log_end(self) -> LogId:
        """The id of the newest entry; LOG_START if there has never been one."""
        ...

    async def read_event_ranges(
        self, ranges: Sequence[tuple[str, int, int]]
    ) -> list[Sequence[StoredEvent]]:
        """Events of several executions in one round trip: (id, first seq, how many) of each.

        Nothing of an execution that is not there any more.
        """
        ...
