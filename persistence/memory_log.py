"""The memory store's log: entries in a row, and whoever waits for the next one."""

from __future__ import annotations

import asyncio
import bisect
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from persistence import checks
from persistence.log import LOG_START, LogEntry, LogId
from persistence.memory_execution import StoredExecution
from persistence.stored_event import StoredEvent

__all__ = ["Entries", "MemoryLog"]


class Entries:
    """The newest entries, up to `most`."""

    def __init__(self, now_ms: Callable[[], int], most: int) -> None:
        self._now_ms = now_ms
        self._kept: deque[LogEntry] = deque(maxlen=most)
        self._changed = asyncio.Event()

    @property
    def end(self) -> LogId:
        """The newest entry's id."""
        return self._kept[-1].log_id if self._kept else LOG_START

    def append(self, execution_id: str, first_seq: int, count: int) -> None:
        """Note the events of one commit, if it has any."""
        if not count:
            return
        log_id = LogId(max(self._now_ms(), self.end.at_ms), self.end.number + 1)
        self._kept.append(LogEntry(log_id, execution_id, first_seq, count))
        self._changed.set()
        self._changed = asyncio.Event()

    def after(self, log_id: LogId, limit: int) -> Sequence[LogEntry]:
        """Entries with a higher id."""
        start = bisect.bisect_right(self._kept, log_id, key=lambda entry: entry.log_id)
        return [self._kept[at] for at in range(start, min(start + limit, len(self._kept)))]

    async def next(self, wait_ms: int) -> None:
        """Return when there is another entry, or after so long."""
        try:
            async with asyncio.timeout(wait_ms / 1000):
                await self._changed.wait()
        except TimeoutError:
            return


class MemoryLog:
    """Implements `EventLog`."""

    _entries: Entries
    _executions: Mapping[str, StoredExecution]

    async def read_log(self, *, after: LogId, limit: int, wait_ms: int = 0) -> Sequence[LogEntry]:
        """See `EventLog.read_log`."""
        checks.check_count("limit", limit)
        checks.check_count("wait_ms", wait_ms, 0)
        if wait_ms and not self._entries.after(after, 1):
            await self._entries.next(wait_ms)
        return self._entries.after(after, limit)

    async def log_end(self) -> LogId:
        """See `EventLog.log_end`."""
        return self._entries.end

    async def read_event_ranges(
        self, ranges: Sequence[tuple[str, int, int]]
    ) -> list[Sequence[StoredEvent]]:
        """See `EventLog.read_event_ranges`."""
        return [
            [
                StoredEvent(seq, body)
                for seq, body in enumerate(
                    self._executions[one].events[first - 1 : first - 1 + count], start=first
                )
            ]
            if one in self._executions
            else []
            for one, first, count in ranges
        ]
