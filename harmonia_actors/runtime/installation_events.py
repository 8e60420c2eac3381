"""Follows all executions at once, for all clients of one replica that want to.

The store's log says in which order commits were made. One reader waits for its next entries and
fetches their events once, whoever follows; a client that is further behind than what is kept in
memory reads for itself. What is not there any more is said by a gap, never left out in silence.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from harmonia_actors.core.cursors import ALL, Cursor
from harmonia_actors.core.errors import ServiceUnavailable
from harmonia_actors.core.event_batches import EventBatch
from harmonia_actors.core.records import UnknownSchema, decode_head
from harmonia_actors.core.requests import LoggedEvent
from harmonia_actors.runtime.logged_events import GAP, end_mark, gap, logged, mark
from harmonia_actors.runtime.pages import Pages
from persistence.errors import StoreUnavailable
from persistence.log import LogEntry, LogId
from persistence.store import Store, StoredEvent

__all__ = ["InstallationEvents"]

_RECENT_MAX = 5_000
#: Entries that one reading takes, and events that are taken from memory at a time.
_ENTRIES = 200
_PAGE = 500
_WAIT_MS = 5_000
#: While nothing comes, a client looks for itself this often: the reader may have failed.
_LOOK_S = 10.0
#: Looks again after the store could not be reached.
_SOON_S = 0.5
#: Executions of which it is remembered whose workflow they are of.
_WORKFLOWS_MAX = 10_000
#: Executions that a gap names.
_NAMED_MAX = 20
#: In place of a workflow's id, of an execution that another version of Harmonia has written.
_UNREADABLE = ""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some events of one entry: `count` from `first_seq` on; `skipped` ones come before."""

    entry: LogEntry
    skipped: int
    count: int

    @property
    def range(self) -> tuple[str, int, int]:
        return (self.entry.execution_id, self.entry.first_seq + self.skipped, self.count)

    def position(self, taken: int) -> Cursor:
        """After `taken` events of this piece."""
        done = self.skipped + taken
        return _after(self.entry.log_id, ALL if done == self.entry.count else done)


class InstallationEvents:
    """The events of all executions, from any cursor on."""

    def __init__(
        self,
        store: Store,
        *,
        recent_bytes_max: int = 16_000_000,
        batch_bytes_max: int = 256_000,
    ) -> None:
        """`batch_bytes_max`: of what one client is handed at a time, unless one event is larger."""
        self._store = store
        self._recent_bytes_max = recent_bytes_max
        self._batch_bytes_max = batch_bytes_max
        #: The newest events, without a gap after `_base`; None while nobody reads.
        self._recent: deque[LoggedEvent] = deque()
        self._base: Cursor | None = None
        #: Bytes of them.
        self.recent_bytes = 0
        #: What was last given out, and where: clients at the same place are given the same object.
        self._given: tuple[tuple[Cursor, ...], Sequence[LoggedEvent]] = ((), ())
        self._clients = 0
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._workflows: dict[str, str] = {}

    async def events(
        self, *, after: Cursor | None, follow: bool = True
    ) -> AsyncGenerator[Sequence[LoggedEvent], None]:
        """Events after a cursor, in batches without end; None means from now on.

        The first batch comes at once and begins with a mark, empty ones come now and then.
        Without `follow` it ends, with a word of its own, where the log ends now, and gives no batch
        at all if that is where it begins. Raises ServiceUnavailable before the first batch.
        """
        try:
            first = await self._open(after)
            end = None if follow else await self._end()
        except StoreUnavailable as error:
            raise ServiceUnavailable("the store cannot be reached; try again") from error
        position = first[-1].position
        pages = Pages(self._batch_bytes_max)
        if end is not None:
            if position < end or len(first) > 1:
                yield first
                async for found in self._history(position, end, pages):
                    yield found
            return
        yield first
        self._join()
        try:
            while True:
                changed = self._changed
                batch = await self._next(position, pages)
                if batch:
                    position = batch[-1].position
                    yield batch
                elif not await self._wait(changed, _SOON_S if batch is None else _LOOK_S):
                    yield ()
        finally:
            self._leave()

    async def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    # One client --------------------------------------------------------------------------------

    async def _open(self, after: Cursor | None) -> Sequence[LoggedEvent]:
        """Where a client begins. A cursor that lies beyond the log's end is of no log of ours."""
        if after is None:
            return [mark(await self._end())]
        before = LogId(after.at_ms, max(0, after.number - 1))
        if after == Cursor() or await self._store.read_log(after=before, limit=1):
            return [mark(after)]
        end = await self._end()
        return [mark(end), gap(end, "unknown_cursor", cursor=after.text)]

    async def _history(
        self, position: Cursor, end: Cursor, pages: Pages
    ) -> AsyncGenerator[Sequence[LoggedEvent], None]:
        """What the store has up to `end`, whatever is kept in memory, and a word at the end."""
        while position < end:
            try:
                batch = await self._fetch(position, pages)
            except StoreUnavailable:
                await asyncio.sleep(_SOON_S)
                yield ()
                continue
            if not batch:
                break
            position = batch[-1].position
            yield batch
        yield [end_mark(position)]

    async def _next(self, position: Cursor, pages: Pages) -> Sequence[LoggedEvent] | None:
        """What follows a position: from memory or the store; None if that cannot be known now."""
        if self._base is None or position < self._base:
            try:
                return await self._fetch(position, pages)
            except StoreUnavailable:
                return None
        recent = self._recent
        if not recent or position >= recent[-1].position:
            return ()
        place = (recent[0].position, recent[-1].position, position)
        if self._given[0] == place:
            return self._given[1]
        start = bisect.bisect_right(recent, position, key=_position)
        if _misses_nothing(position, recent[start]):
            start += 1
        recent_page = [recent[at] for at in range(start, min(start + _PAGE, len(recent)))]
        batch = EventBatch(pages.cut(recent_page))
        self._given = (place, batch)
        return batch

    async def _wait(self, changed: asyncio.Event, wait_s: float) -> bool:
        try:
            async with asyncio.timeout(wait_s):
                await changed.wait()
        except TimeoutError:
            self._ensure_reading()
            return False
        return True

    def _join(self) -> None:
        self._clients += 1
        self._ensure_reading()

    def _leave(self) -> None:
        self._clients -= 1
        if not self._clients and self._reading is not None:
            self._reading.cancel()

    # The one reader ----------------------------------------------------------------------------

    def _ensure_reading(self) -> None:
        if self._reading is None or self._reading.done() or self._reading.cancelling():
            self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        """Fetch what comes, as long as anybody follows."""
        position: Cursor | None = None
        pages = Pages(self._batch_bytes_max)
        me = asyncio.current_task()
        try:
            while True:
                try:
                    if position is None:
                        position = await self._end()
                        self._forget(position)
                    batch = await self._fetch(position, pages, wait_ms=_WAIT_MS)
                except StoreUnavailable:
                    await asyncio.sleep(_SOON_S)
                    continue
                if batch:
                    position = batch[-1].position
                    self._keep(batch)
        finally:
            # Another reader may have begun already: what is kept now is that one's.
            if self._reading is me:
                self._forget(None)

    def _forget(self, base: Cursor | None) -> None:
        """Keep nothing but what comes after `base`."""
        self._recent.clear()
        self.recent_bytes = 0
        self._given = ((), ())
        self._base = base
        self._wake()

    def _keep(self, batch: Sequence[LoggedEvent]) -> None:
        """Keep more recent events; the oldest go where there are too many."""
        self._recent.extend(batch)
        self.recent_bytes += sum(len(event.body) for event in batch)
        while self.recent_bytes > self._recent_bytes_max or len(self._recent) > _RECENT_MAX:
            oldest = self._recent.popleft()
            self.recent_bytes -= len(oldest.body)
            self._base = oldest.position
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # The store ---------------------------------------------------------------------------------

    async def _end(self) -> Cursor:
        return _after(await self._store.log_end())

    async def _fetch(
        self, position: Cursor, pages: Pages, *, wait_ms: int = 0
    ) -> Sequence[LoggedEvent]:
        """The next events after a position, with a gap before them if some are gone."""
        expected = position.number + (0 if position.is_partial else 1)
        after = LogId(position.at_ms, expected - 1)
        entries = await self._store.read_log(after=after, limit=_ENTRIES, wait_ms=wait_ms)
        if not entries:
            return ()
        first = entries[0].log_id
        is_next = first.number == expected
        if position.is_partial:
            is_next = first == (position.at_ms, position.number)
        missed = [] if is_next else [_gap_before(first, expected)]
        skipped = position.taken if position.is_partial and is_next else 0
        pieces = _pieces(entries, skipped, pages.count)
        if not pieces:
            # The cursor claims more events of its entry than there are.
            return [*missed, mark(_after(first))]
        stored, workflows = await asyncio.gather(
            self._store.read_event_ranges([piece.range for piece in pieces]),
            self._workflows_of({piece.entry.execution_id for piece in pieces}),
        )
        return pages.cut([*missed, *_put_together(pieces, stored, workflows)])

    async def _workflows_of(self, execution_ids: Iterable[str]) -> Mapping[str, str]:
        """The workflow of each execution that is there; _UNREADABLE if this version cannot tell."""
        known = self._workflows
        workflows = {one: known[one] for one in execution_ids if one in known}
        unknown = [one for one in execution_ids if one not in known]
        if not unknown:
            return workflows
        found = await self._store.read_executions(unknown, ["head"])
        for execution_id, fields in zip(unknown, found, strict=True):
            if fields is None:
                continue
            try:
                workflows[execution_id] = decode_head(fields["head"]).workflow_id
            except UnknownSchema:
                # Not remembered: whoever can read it may yet write it so that we can.
                workflows[execution_id] = _UNREADABLE
            else:
                known[execution_id] = workflows[execution_id]
        while len(known) > _WORKFLOWS_MAX:
            del known[next(iter(known))]
        return workflows


def _put_together(
    pieces: Sequence[_Piece],
    stored: Sequence[Sequence[StoredEvent]],
    workflows: Mapping[str, str],
) -> Iterator[LoggedEvent]:
    """Events in order; for all in a row that are missing for the same reason, a gap."""
    told = [
        (piece, events, _why_missing(piece, events, workflows))
        for piece, events in zip(pieces, stored, strict=True)
    ]
    for reason, row in groupby(told, key=itemgetter(2)):
        if reason:
            yield _gap_of([piece for piece, _, _ in row], reason)
            continue
        for piece, events, _ in row:
            workflow_id = workflows[piece.entry.execution_id]
            for taken, event in enumerate(events, start=1):
                yield logged(piece.position(taken), event.body, workflow_id)


def _why_missing(piece: _Piece, events: Sequence[StoredEvent], workflows: Mapping[str, str]) -> str:
    workflow_id = workflows.get(piece.entry.execution_id)
    if len(events) < piece.count or workflow_id is None:
        return "expired"
    return "unreadable" if workflow_id == _UNREADABLE else ""


def _position(event: LoggedEvent) -> Cursor:
    return event.position


def _misses_nothing(position: Cursor, event: LoggedEvent) -> bool:
    """Whether the event is a gap for the one reader only: the client has seen what is gone."""
    is_whole = not position.is_partial
    return event.type == GAP and is_whole and event.position.number == position.number


def _after(log_id: LogId, taken: int = ALL) -> Cursor:
    return Cursor(log_id.at_ms, log_id.number, taken)


def _pieces(entries: Sequence[LogEntry], skipped: int, room: int) -> list[_Piece]:
    """What to read of the entries, but for so many events of the first: at most `room` of them."""
    pieces = []
    for entry in entries:
        count = min(entry.count - skipped, room)
        if count > 0:
            pieces.append(_Piece(entry, skipped, count))
            room -= count
        skipped = 0
        if not room:
            break
    return pieces


def _gap_before(first: LogId, expected: int) -> LoggedEvent:
    """Says what is not in the log any more; its cursor leads to the first entry that is."""
    position = Cursor(first.at_ms, first.number - 1)
    if first.number > expected:
        return gap(position, "trimmed", commits=first.number - expected)
    # It has been numbered anew since: what the cursor named was lost, or was another log's.
    return gap(position, "unknown_cursor")


def _gap_of(missing: Sequence[_Piece], reason: str) -> LoggedEvent:
    last = missing[-1]
    names = list(dict.fromkeys(piece.entry.execution_id for piece in missing))
    return gap(
        last.position(last.count),
        reason,
        events=sum(piece.count for piece in missing),
        executions=names[:_NAMED_MAX],
        executions_total=len(names),
    )
