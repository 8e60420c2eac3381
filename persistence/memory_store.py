"""The store's reference implementation: in this process's memory, lost with it.

It says by plain code what the contract says in words, and drives simulations and unit tests. It
never awaits anything, so that each call is one step, but for who waits until the log grows.
Documents, owners and rate limits, which know nothing of executions, are in `memory_parts`; one
execution is in `memory_execution`; copies of them are in `memory_checkpoints`; what is about
forgetting is in `memory_retention`; the log is in `memory_log`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from persistence import checks
from persistence.errors import AlreadyExists, LimitReached, Missing, StaleOwner, StoreError
from persistence.log import LOG_ENTRIES_MAX
from persistence.memory_checkpoints import Checkpoints
from persistence.memory_execution import StoredExecution
from persistence.memory_log import Entries, MemoryLog
from persistence.memory_parts import Definitions, Documents, Indexes, Roster, TokenBuckets
from persistence.memory_retention import Holdings, Lives
from persistence.retention import Tally
from persistence.store import (
    CRASHES_KEPT_MS,
    Commit,
    Document,
    Durability,
    Grant,
    InboxEntry,
    IndexEntry,
    Loaded,
    NewExecution,
    OwnCheckpoint,
    OwnerLoad,
    Page,
    Snapshot,
    StoredEvent,
)

__all__ = ["MemoryStore"]

#: Most inbox entries, and most executions with unread ones, that one call returns.
INBOX_MAX = 1_000
#: With so many unread, no outcome is taken in: a request that comes must be among those.
OUTCOMES_BELOW = 900
#: Executions that are taken from aside when an owner registers.
ASIDE_MAX = 1_000


class MemoryStore(MemoryLog):
    """`Store` in memory. `now_ms` is the clock that leases and rate limits use."""

    def __init__(
        self,
        now_ms: Callable[[], int] | None = None,
        *,
        log_entries_max: int = LOG_ENTRIES_MAX,
        crashes_kept_ms: int = CRASHES_KEPT_MS,
    ) -> None:
        self._now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)
        self._indexes = Indexes()
        self._definitions = Definitions(self._now_ms)
        self._documents = Documents(self._definitions, self._indexes)
        self._roster = Roster(self._now_ms, self._take_from_aside)
        self._buckets = TokenBuckets(self._now_ms)
        self._executions: dict[str, StoredExecution] = {}
        self._entries = Entries(self._now_ms, log_entries_max)
        self._lives = Lives(self._now_ms)
        self._holdings = Holdings(self._now_ms, self._executions)
        #: Executions without an owner.
        self._waiting: set[str] = set()
        self._suspects: set[str] = set()
        self._aside: set[str] = set()
        self._crashes_kept_ms = crashes_kept_ms
        self._checkpoints = Checkpoints(self._documents, self._definitions, self._holdings)

    # The server ------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Return: memory always answers."""

    async def time_ms(self) -> int:
        """The clock that the store was given."""
        return self._now_ms()

    async def durability(self) -> Durability:
        """Nothing is promised."""
        return Durability("none", "kept in memory: lost when the process ends")

    async def close(self) -> None:
        """Return: nothing is open."""

    # Documents -------------------------------------------------------------------------------

    async def put_definition(self, digest: str, body: bytes) -> None:
        """See `Store.put_definition`."""
        checks.check_name("digest", digest)
        checks.check_bodies("body", (body,))
        self._definitions.put(digest, body)

    async def get_definition(self, digest: str) -> bytes | None:
        """See `Store.get_definition`."""
        return self._definitions.get(digest)

    async def put_document(
        self,
        kind: str,
        document_id: str,
        body: bytes,
        indexes: Sequence[IndexEntry] = (),
        *,
        definition: str | None = None,
        expected_version: int | None = None,
    ) -> int:
        """See `Store.put_document`."""
        checks.check_put(kind, document_id, body, indexes, definition, expected_version)
        return self._documents.put(
            kind, document_id, body, indexes, definition=definition, expected=expected_version
        )

    async def get_document(self, kind: str, document_id: str) -> Document | None:
        """See `Store.get_document`."""
        return self._documents.get(kind, document_id)

    async def get_documents(self, kind: str, ids: Sequence[str]) -> list[Document | None]:
        """See `Store.get_documents`."""
        return [self._documents.get(kind, document_id) for document_id in ids]

    async def delete_document(self, kind: str, document_id: str) -> bool:
        """See `Store.delete_document`."""
        if not self._documents.delete(kind, document_id):
            return False
        if kind == "checkpoint":
            self._checkpoints.forget(document_id)
        return True

    async def page(self, index: str, *, offset: int, limit: int, descending: bool) -> Page:
        """See `Store.page`."""
        checks.check_count("offset", offset, 0)
        checks.check_count("limit", limit)
        return self._indexes.page(index, offset, limit, descending=descending)

    # Executions ------------------------------------------------------------------------------

    async def create_execution(
        self,
        new: NewExecution,
        *,
        owners_max: int,
        live_max: int | None = None,
        load_max: int | None = None,
    ) -> str:
        """See `Store.create_execution`."""
        checks.check_new(new)
        stored = self._executions.get(new.execution_id)
        if stored is not None:
            return stored.first_owner
        subject = f"execution {new.execution_id!r}"
        if new.sole and self._indexes.page(new.sole, 0, 1, descending=False).total:
            raise AlreadyExists(f"{subject}: {new.sole!r} has another one")
        if live_max is not None and self._lives.live >= live_max:
            raise LimitReached(f"{subject}: {live_max} executions are live, the most there may be")
        self._holdings.require(new.holds, subject)
        self._definitions.refer(new.definition, subject)
        self._holdings.hold(new.holds)
        self._holdings.keep_constants(new.execution_id, new.constants)
        owner = self._roster.choose(owners_max, load_max, suspects=bool(self._suspects))
        execution = StoredExecution(
            execution_id=new.execution_id,
            number=self._lives.begin(),
            definition=new.definition,
            first_owner=owner,
            owner=owner,
            epoch=1 if owner else 0,
            fields=dict(new.fields),
            constants=self._holdings.constants(new.execution_id),
            rows=dict(new.rows),
            events=list(new.events),
            indexes=tuple(new.indexes),
            holds=tuple(new.holds),
        )
        self._executions[new.execution_id] = execution
        self._entries.append(new.execution_id, 1, len(new.events))
        self._indexes.replace(new.execution_id, (), new.indexes)
        if owner:
            self._roster.give(owner, new.execution_id)
        else:
            self._waiting.add(new.execution_id)
        return owner

    async def claim(self, execution_id: str, owner: str) -> Loaded | None:
        """See `Store.claim`."""
        checks.check_name("owner", owner)
        execution = self._existing(execution_id)
        may = self._roster.has(owner) and not execution.ended
        return self._claim(execution, owner) if may else None

    async def claim_next(self, owner: str, *, owners_max: int) -> Loaded | None:
        """See `Store.claim_next`."""
        checks.check_name("owner", owner)
        if self._suspects and self._roster.may_take_a_suspect(owner):
            suspect = min(self._by_number(self._suspects), key=StoredExecution.turn)
            loaded = self._claim(suspect, owner)
            self._roster.isolate(owner, suspect.execution_id)
            return loaded
        if self._waiting and self._roster.may_take(owner, owners_max):
            return self._claim(self._by_number(self._waiting)[0], owner)
        return None

    async def commit(self, commit: Commit) -> None:
        """See `Store.commit`."""
        checks.check_commit(commit)
        execution = self._existing(commit.execution_id)
        if not execution.must_write(commit):
            return
        execution.fields.update(commit.fields)
        execution.rows.update(commit.rows)
        self._holdings.keep_outputs(commit.execution_id, dict(commit.outputs))
        execution.events.extend(commit.events)
        self._entries.append(commit.execution_id, commit.first_seq, len(commit.events))
        execution.acknowledge(commit.inbox_done)
        if commit.indexes is not None:
            self._indexes.replace(execution.execution_id, execution.indexes, commit.indexes)
            execution.indexes = tuple(commit.indexes)
        if commit.release:
            self._take_from_owner(execution)
            execution.ended = True
            self._lives.end(execution.execution_id)
        execution.version = commit.version

    async def commit_many(self, commits: Sequence[Commit]) -> list[Exception | None]:
        """See `Store.commit_many`."""
        for commit in commits:
            checks.check_commit(commit)
        outcomes: list[Exception | None] = []
        for commit in commits:
            try:
                await self.commit(commit)
                outcomes.append(None)
            except StoreError as error:
                outcomes.append(error)
        return outcomes

    async def read_execution(self, execution_id: str, *, rows: bool = True) -> Snapshot | None:
        """See `Store.read_execution`."""
        execution = self._executions.get(execution_id)
        return None if execution is None else execution.snapshot(rows=rows)

    async def read_executions(
        self, ids: Sequence[str], fields: Sequence[str]
    ) -> list[Mapping[str, bytes] | None]:
        """See `Store.read_executions`."""
        found = (self._executions.get(one) for one in ids)
        return [
            None
            if one is None
            else {name: one.fields[name] for name in fields if name in one.fields}
            for one in found
        ]

    async def read_seq(self, execution_id: str) -> int | None:
        """See `Store.read_seq`."""
        execution = self._executions.get(execution_id)
        return None if execution is None else len(execution.events)

    async def read_rows(self, execution_id: str, names: Sequence[str]) -> dict[str, bytes]:
        """See `Store.read_rows`."""
        execution = self._executions.get(execution_id)
        rows = {} if execution is None else execution.rows
        return {name: rows[name] for name in names if name in rows}

    async def read_outputs(self, references: Sequence[tuple[str, str]]) -> list[bytes | None]:
        """See `Store.read_outputs`."""
        return [self._holdings.output(one, output) for one, output in references]

    async def read_events(self, execution_id: str, *, after: int, limit: int) -> list[StoredEvent]:
        """See `Store.read_events`."""
        checks.check_count("after", after, 0)
        checks.check_count("limit", limit)
        bodies = self._existing(execution_id).events[after : after + limit]
        return [StoredEvent(after + at, body) for at, body in enumerate(bodies, start=1)]

    async def append_inbox(
        self, execution_id: str, entry: InboxEntry, *, epoch: int | None = None
    ) -> str:
        """See `Store.append_inbox`."""
        checks.check_bodies("body", (entry.body,))
        execution = self._existing(execution_id)
        execution.append(entry, epoch, OUTCOMES_BELOW)
        return execution.owner

    async def read_inbox(self, execution_id: str) -> list[InboxEntry]:
        """See `Store.read_inbox`."""
        execution = self._executions.get(execution_id)
        return [] if execution is None else execution.unread(INBOX_MAX)

    async def inboxes_waiting(self, owner: str) -> list[str]:
        """See `Store.inboxes_waiting`."""
        owned = self._by_number(self._roster.owned(owner))
        return [one.execution_id for one in owned if one.inbox][:INBOX_MAX]

    # Owners ----------------------------------------------------------------------------------

    async def renew_owner(
        self, owner: str, *, lease_ms: int, known: bool = False, by_ms: int | None = None
    ) -> bool:
        """See `Store.renew_owner`."""
        checks.check_name("owner", owner)
        checks.check_count("lease_ms", lease_ms)
        return self._roster.renew(owner, lease_ms, known=known, by_ms=by_ms)

    async def retire_owner(self, owner: str) -> bool:
        """See `Store.retire_owner`."""
        return self._roster.retire(owner)

    async def owners(self, *, lease_ms: int | None = None) -> list[OwnerLoad]:
        """See `Store.owners`."""
        return self._roster.loads(lease_ms)

    async def owned_executions(self, owner: str, *, limit: int, offset: int = 0) -> list[str]:
        """See `Store.owned_executions`."""
        checks.check_count("limit", limit)
        checks.check_count("offset", offset, 0)
        owned = self._by_number(self._roster.owned(owner))
        return [one.execution_id for one in owned[offset : offset + limit]]

    async def orphan(self, owner: str, *, limit: int, blame: bool = False) -> int:
        """See `Store.orphan`."""
        checks.check_count("limit", limit)
        moved = self._by_number(self._roster.owned(owner))[:limit]
        self._roster.start_emptying(owner)
        for execution in moved:
            self._take_from_owner(execution)
            if blame:
                execution.count_crash(self._now_ms(), self._crashes_kept_ms)
            self._enqueue(execution)
        self._roster.retire(owner)
        return len(moved)

    async def give_on(
        self, execution_id: str, *, epoch: int, blame: bool = False, aside: bool = False
    ) -> None:
        """See `Store.give_on`."""
        execution = self._executions.get(execution_id)
        if execution and execution.epoch == epoch and execution.owner and not execution.ended:
            self._take_from_owner(execution)
            if blame:
                execution.count_crash(self._now_ms(), self._crashes_kept_ms)
            (self._aside if aside else self._waiting).add(execution_id)

    async def calm(self, execution_id: str, *, epoch: int) -> bool:
        """See `Store.calm`."""
        execution = self._executions.get(execution_id)
        if execution is None or execution.epoch != epoch or execution.ended or not execution.owner:
            return False
        execution.crashes = 0
        is_alone = self._roster.owned(execution.owner) == {execution_id}
        if is_alone and self._suspects:
            return True
        self._roster.release(execution.owner, execution_id)
        return False

    async def waiting_executions(self) -> int:
        """See `Store.waiting_executions`."""
        return len(self._waiting) + len(self._suspects)

    # Checkpoints -----------------------------------------------------------------------------

    async def create_checkpoint(
        self,
        checkpoint_id: str,
        execution_id: str,
        body: bytes,
        indexes: Sequence[IndexEntry],
        note: InboxEntry | None,
    ) -> Snapshot:
        """See `Store.create_checkpoint`."""
        checks.check_put("checkpoint", checkpoint_id, body, indexes, None, None)
        if copy := self._checkpoints.find(checkpoint_id):
            return copy
        execution = self._existing(execution_id)
        self._checkpoints.add(checkpoint_id, execution, body, indexes)
        copy = execution.snapshot(rows=True)
        if note is not None and not execution.ended:
            await self.append_inbox(execution_id, note)
        return copy

    async def take_checkpoint(self, checkpoint: OwnCheckpoint) -> None:
        """See `Store.take_checkpoint`."""
        checks.check_own(checkpoint)
        checkpoint_id = checkpoint.checkpoint_id
        execution = self._existing(checkpoint.execution_id)
        subject = f"checkpoint {checkpoint_id!r}"
        if execution.epoch != checkpoint.epoch:
            raise StaleOwner(
                f"{subject}: taken under epoch {checkpoint.epoch}, now it is {execution.epoch}"
            )
        if self._checkpoints.find(checkpoint_id):
            return
        if execution.ended:
            raise StaleOwner(f"{subject}: the execution ended with commit {execution.version}")
        self._checkpoints.add(checkpoint_id, execution, checkpoint.body, checkpoint.indexes)
        self._checkpoints.enter(checkpoint_id, execution.execution_id, checkpoint.number)
        self._checkpoints.trim(execution.execution_id, checkpoint.kept)

    async def read_checkpoint(self, checkpoint_id: str) -> Snapshot | None:
        """See `Store.read_checkpoint`."""
        return self._checkpoints.find(checkpoint_id)

    # Retention -------------------------------------------------------------------------------

    async def expire(self, *, age_ms: int, limit: int) -> int:
        """See `Retention.expire`."""
        checks.check_count("age_ms", age_ms, 0)
        checks.check_count("limit", limit)
        due = self._lives.due(age_ms, limit)
        for execution_id in due:
            self._checkpoints.trim(execution_id, 0)
            execution = self._executions.pop(execution_id)
            self._lives.expire(execution_id)
            self._indexes.replace(execution_id, execution.indexes, ())
            self._definitions.drop_reference(execution.definition)
            self._holdings.let_go(execution.holds)
            self._holdings.discard_unless_kept(execution_id)
        return len(due)

    async def garbage(self, *, limit: int) -> list[str]:
        """See `Retention.garbage`."""
        checks.check_count("limit", limit)
        return self._holdings.garbage()[:limit]

    async def clear_garbage(self, removed: Sequence[str], later: Sequence[str] = ()) -> None:
        """See `Retention.clear_garbage`."""
        self._holdings.clear_garbage(removed, later)

    async def known(self, ids: Sequence[str]) -> set[str]:
        """See `Retention.known`."""
        return {one for one in ids if self._holdings.is_kept(one)}

    async def tally(self) -> Tally:
        """See `Retention.tally`."""
        lives = self._lives
        garbage, aside = len(self._holdings.garbage()), len(self._aside)
        return Tally(lives.live, lives.ended, lives.expired, garbage, aside)

    async def compact(self, *, bytes_min: int) -> bool:
        """Nothing is on disk."""
        checks.check_count("bytes_min", bytes_min, 0)
        return False

    async def installation(self) -> str:
        """See `Retention.installation`."""
        return self._lives.installation

    # Rate limits -----------------------------------------------------------------------------

    async def take_tokens(
        self, bucket: str, *, tokens: int, rate_per_s: float, burst: int
    ) -> Grant:
        """See `Store.take_tokens`."""
        checks.check_tokens(tokens, rate_per_s, burst)
        return self._buckets.take(bucket, tokens, rate_per_s, burst)

    # -----------------------------------------------------------------------------------------

    def _existing(self, execution_id: str) -> StoredExecution:
        execution = self._executions.get(execution_id)
        if execution is None:
            raise Missing(f"execution {execution_id!r} does not exist")
        return execution

    def _by_number(self, ids: set[str]) -> list[StoredExecution]:
        return sorted((self._executions[one] for one in ids), key=lambda one: one.number)

    def _claim(self, execution: StoredExecution, owner: str) -> Loaded:
        isolated = self._roster.isolates(owner, execution.execution_id)
        stays_alone = isolated and execution.crashes > 0
        self._take_from_owner(execution)
        execution.owner = owner
        execution.epoch += 1
        self._roster.give(owner, execution.execution_id)
        if stays_alone:
            self._roster.isolate(owner, execution.execution_id)
        return execution.loaded(INBOX_MAX)

    def _take_from_aside(self) -> None:
        for execution in self._by_number(self._aside)[:ASIDE_MAX]:
            self._aside.discard(execution.execution_id)
            self._enqueue(execution)

    def _enqueue(self, execution: StoredExecution) -> None:
        (self._suspects if execution.crashes else self._waiting).add(execution.execution_id)

    def _take_from_owner(self, execution: StoredExecution) -> None:
        for queue in (self._waiting, self._suspects, self._aside):
            queue.discard(execution.execution_id)
        if execution.owner:
            self._roster.take(execution.owner, execution.execution_id)
        execution.owner = ""
