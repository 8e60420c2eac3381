"""A stream of what an execution's events come to, in place of the events of its tasks.

Each subscriber folds the log from its beginning, wherever it resumes, because the counts are not
known otherwise: one pass over the history, read in the pages of any stream, a few microseconds and
no message for each event. Its memory is one page, and one byte for each task.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from harmonia_actors.core.events import TaskLog
from harmonia_actors.core.requests import StreamEvent
from harmonia_actors.core.summary import ExecutionSummary, is_of_a_task
from harmonia_actors.settings import Settings
from harmonia_serve.gateway import Gateway

__all__ = ["Telling", "summarised"]


class Telling:
    """Which messages a subscriber gets for which events. Whoever drives it has the clock.

    The seqs of the messages only grow, and whoever has one of them has been told all up to it. So
    one of the execution's own events comes after a summary of what it follows; in the history, the
    first summary is that of the state which the subscriber has found.
    """

    def __init__(
        self, summary: ExecutionSummary, *, after: int, found_seq: int, found_completed: int
    ) -> None:
        """`found_…`: the last event, and how many tasks had completed, when the client came."""
        self._summary = summary
        self._after = after
        self._found_seq = found_seq
        self._found_completed = found_completed
        #: Where the subscriber is; a summary up to there would tell nothing.
        self._told = after
        self._settled = False
        #: Own events of the history after which no task's has come so far.
        self._held: list[StreamEvent] = []
        if found_seq == 0:
            self._settle()

    @property
    def is_settled(self) -> bool:
        """Whether the history has been taken in."""
        return self._settled

    @property
    def is_due(self) -> bool:
        """Whether something has changed that was not told."""
        return self._settled and self._summary.seq > self._told

    def take(self, events: Sequence[StreamEvent]) -> list[StreamEvent]:
        """Take in the next events; what has to be sent at once."""
        out: list[StreamEvent] = []
        for event in events:
            if event.type != TaskLog.type:
                self._take(event, out)
        return out

    def tell(self) -> StreamEvent:
        """The summary that is due."""
        self._told = self._summary.seq
        return self._summary.told()

    def _take(self, event: StreamEvent, out: list[StreamEvent]) -> None:
        own = not is_of_a_task(event.type)
        if not own:
            # A summary of more will follow those that are held.
            out += self._flush()
            self._summary.take(event)
        if not self._settled and event.seq >= self._found_seq:
            self._settle()
        if own:
            if self.is_due:
                out.append(self.tell())
            self._summary.take(event)
            if event.seq > self._after:
                self._held.append(event)
            if self._settled:
                out += self._flush()

    def _settle(self) -> None:
        self._settled = True
        self._summary.note_restored(max(0, self._found_completed - self._summary.completed))

    def _flush(self) -> list[StreamEvent]:
        held, self._held = self._held, []
        return held


async def summarised(
    gateway: Gateway, settings: Settings, execution_id: str, *, after: int
) -> AsyncIterator[Sequence[StreamEvent]]:
    """Batches as `Gateway.events` gives them, but with the tasks' events summed up.

    A summary comes at most once in `stream_summary_interval_ms`, and before each of the
    execution's own events if something has changed. Nothing comes, not even an empty batch, as long
    as the history is being folded: it may be that there is nothing to tell.
    """
    found = await gateway.get_execution(execution_id, outputs=False)
    progress = found["progress"]
    summary = ExecutionSummary(progress["total_tasks"], names_max=settings.stream_summary_names_max)
    telling = Telling(
        summary,
        after=after,
        found_seq=found["last_seq"],
        found_completed=progress["completed_tasks"],
    )
    clock = asyncio.get_running_loop().time
    due = clock()
    batches = gateway.events(execution_id, after=0)
    reading = asyncio.ensure_future(_next(batches))
    try:
        while True:
            wait_s = max(0.0, due - clock()) if telling.is_due else None
            await asyncio.wait({reading}, timeout=wait_s)
            out: list[StreamEvent] = []
            is_idle = False
            if reading.done():
                batch = reading.result()
                if batch is None:
                    return
                out = telling.take(batch)
                if batch and batch[-1].last:
                    if out:
                        yield out
                    return
                is_idle = not batch
                reading = asyncio.ensure_future(_next(batches))
            if telling.is_due and clock() >= due:
                out.append(telling.tell())
                due = clock() + settings.stream_summary_interval_ms / 1000
            if out or (is_idle and telling.is_settled):
                yield out
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        close = getattr(batches, "aclose", None)
        if close is not None:
            await close()


async def _next(batches: AsyncIterator[Sequence[StreamEvent]]) -> Sequence[StreamEvent] | None:
    """The next batch, or None after the end."""
    return await anext(batches, None)
