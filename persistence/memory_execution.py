"""One execution as the memory store keeps it, and which commits it takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from persistence.errors import StaleOwner, VersionConflict
from persistence.store import Commit, InboxEntry, IndexEntry, Loaded, Snapshot

__all__ = ["StoredExecution"]

#: Acknowledged inbox entries whose ids are remembered.
ACKNOWLEDGED_MAX = 1_000


@dataclass(slots=True)
class StoredExecution:
    """All that is stored of one execution but its outputs, which may outlive it."""

    execution_id: str
    #: Its place in the order of creation.
    number: int
    definition: str
    first_owner: str
    owner: str
    epoch: int
    fields: dict[str, bytes]
    #: Fields that no commit replaces; they may outlive it, as outputs do.
    constants: Mapping[str, bytes]
    rows: dict[str, bytes]
    #: Event n is at n - 1.
    events: list[bytes]
    indexes: tuple[IndexEntry, ...]
    #: Other executions whose outputs it holds.
    holds: tuple[str, ...]
    version: int = 1
    ended: bool = False
    #: Crashes since it was last calm, and lately.
    crashes: int = 0
    crashes_lately: int = 0
    crashed_ms: int = 0
    #: Unread entries in order of arrival.
    inbox: dict[str, bytes] = field(default_factory=dict)
    #: Ids of unread entries that are for one epoch alone: they are forgotten once acknowledged.
    fenced: set[str] = field(default_factory=set)
    #: Ids of the entries that were acknowledged last, oldest first.
    acknowledged: deque[str] = field(default_factory=lambda: deque(maxlen=ACKNOWLEDGED_MAX))

    def must_write(self, commit: Commit) -> bool:
        """False for a repeat of the last commit; raises if the commit has no place here."""
        subject = f"execution {commit.execution_id!r}, commit {commit.version}"
        if commit.epoch != self.epoch:
            raise StaleOwner(f"{subject}: made under epoch {commit.epoch}, now it is {self.epoch}")
        if self.owner not in ("", commit.owner):
            raise StaleOwner(f"{subject}: made by {commit.owner!r}, its owner is {self.owner!r}")
        if commit.version == self.version:
            return False
        if self.ended:
            raise StaleOwner(f"{subject}: the execution ended with commit {self.version}")
        if commit.version != self.version + 1:
            raise VersionConflict(f"{subject}: the last one stored is {self.version}")
        seq = len(self.events)
        if commit.events and commit.first_seq != seq + 1:
            raise VersionConflict(
                f"{subject}: its first event is {commit.first_seq}, the last stored is {seq}"
            )
        return True

    def has_seen(self, entry_id: str) -> bool:
        """Whether an inbox entry with this id is here, or was acknowledged lately."""
        return entry_id in self.inbox or entry_id in self.acknowledged

    def append(self, entry: InboxEntry, epoch: int | None, unread_max: int) -> None:
        """Take an entry in; see `Store.append_inbox`."""
        subject = f"execution {self.execution_id!r}"
        if epoch not in (None, self.epoch):
            raise StaleOwner(f"{subject}: epoch {epoch} has been superseded by {self.epoch}")
        if self.has_seen(entry.entry_id):
            return
        if self.ended:
            raise VersionConflict(f"{subject} has ended and takes nothing in")
        if epoch is not None and len(self.inbox) >= unread_max:
            raise VersionConflict(f"{subject} has {unread_max} unread entries, and takes no more")
        self.inbox[entry.entry_id] = entry.body
        if epoch is not None:
            self.fenced.add(entry.entry_id)

    def acknowledge(self, entry_ids: Sequence[str]) -> None:
        """Take entries out of the inbox, and remember for a while that they were there."""
        for entry_id in entry_ids:
            is_fenced = entry_id in self.fenced
            self.fenced.discard(entry_id)
            if self.inbox.pop(entry_id, None) is not None and not is_fenced:
                self.acknowledged.append(entry_id)

    def unread(self, limit: int) -> list[InboxEntry]:
        """Unread inbox entries, the oldest first."""
        entries = list(self.inbox.items())[:limit]
        return [InboxEntry(entry_id, body) for entry_id, body in entries]

    def count_crash(self, now_ms: int, kept_ms: int) -> None:
        """An owner has died with it, or on account of it."""
        if now_ms - self.crashed_ms > kept_ms:
            self.crashes_lately = 0
        self.crashed_ms = now_ms
        self.crashes += 1
        self.crashes_lately += 1

    def turn(self) -> tuple[int, int]:
        """Which of several suspects comes first: the one that will be alone for less time."""
        return self.crashes_lately, self.number

    def loaded(self, inbox_max: int) -> Loaded:
        """What a new owner gets."""
        return Loaded(
            execution_id=self.execution_id,
            epoch=self.epoch,
            version=self.version,
            seq=len(self.events),
            definition=self.definition,
            fields=self.all_fields(),
            rows=dict(self.rows),
            inbox=self.unread(inbox_max),
            crashes=self.crashes,
            crashes_lately=self.crashes_lately,
        )

    def all_fields(self) -> dict[str, bytes]:
        """A reading of its fields, those that never change included."""
        return {**self.constants, **self.fields}

    def snapshot(self, *, rows: bool) -> Snapshot:
        """A reading that is the reader's own."""
        return Snapshot(
            seq=len(self.events),
            version=self.version,
            epoch=self.epoch,
            owner=self.owner,
            definition=self.definition,
            fields=self.all_fields(),
            rows=dict(self.rows) if rows else {},
        )
