"""The store's contract: what Harmonia needs from durable storage, as a protocol of plain data.

Every write is atomic and may be repeated: a caller that lost the reply sends the same call again
and gets the same answer. Writes to an execution are fenced by (`epoch`, `version`): the epoch is
raised by each claim, the version by each commit. Ids, index names and field names are opaque.

One set of contract tests (tests/contract) runs through every implementation. This module must not
know what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from persistence.inbox import Inbox, InboxEntry
from persistence.log import EventLog
from persistence.retention import Retention
from persistence.stored_event import StoredEvent

__all__ = [
    "CRASHES_KEPT_MS",
    "Commit",
    "Document",
    "Durability",
    "Grant",
    "InboxEntry",
    "IndexEntry",
    "Loaded",
    "NewExecution",
    "OwnCheckpoint",
    "OwnerLoad",
    "Page",
    "Snapshot",
    "Store",
    "StoredEvent",
]

#: How long a store remembers an execution's crashes after the last one, unless it is told.
CRASHES_KEPT_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """Membership of a document or execution in a sorted list.

    Lists are ordered by `score`, then by `text`, then by id. A list by time uses the score alone
    (milliseconds), a list by name the text alone.
    """

    index: str
    score: float = 0.0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: ids in order, and how many the whole list holds."""

    ids: tuple[str, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Document:
    """A stored document. `version` starts at 1 and grows by one with each put."""

    document_id: str
    body: bytes
    version: int


@dataclass(frozen=True, slots=True)
class NewExecution:
    """An execution to be created.

    Creating it is its commit number 1: it is then at version 1, under epoch 1 if it is assigned
    to an owner at once, else under epoch 0. The owner's first commit is number 2, under the epoch
    that its claim returned (or 1 if it never claimed).
    """

    execution_id: str
    #: Digest of the definition it runs; must have been put before (`put_definition`).
    definition: str
    #: Fields of the execution, which commits may replace.
    fields: Mapping[str, bytes]
    rows: Mapping[str, bytes] = field(default_factory=dict)
    #: Events 1..n.
    events: Sequence[bytes] = ()
    indexes: Sequence[IndexEntry] = ()
    #: Other executions to whose outputs or files this one refers: they are kept as long as it is.
    holds: Sequence[str] = ()
    #: The one of these lists in which it must be alone, or "".
    sole: str = ""
    #: Fields that no commit replaces. They are read with the others, and kept once: checkpoints
    #: share them with their execution. Their names are none of `fields`.
    constants: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a claim returns.

    That is the whole state as of the last commit, and the unread inbox (its oldest 1,000 entries;
    `read_inbox` gives the next once these are acknowledged).
    """

    execution_id: str
    epoch: int
    version: int
    #: Seq of the last event; 0 if there is none.
    seq: int
    definition: str
    fields: Mapping[str, bytes]
    rows: Mapping[str, bytes]
    inbox: Sequence[InboxEntry]
    #: How often an owner has died with it, or on account of it, since `calm` was last said of it.
    crashes: int = 0
    #: The same, since the store has last forgotten them, a set time after the last one.
    crashes_lately: int = 0


@dataclass(frozen=True, slots=True)
class Commit:
    """All that one decision changes, written in one atomic step.

    Refused with StaleOwner if the stored epoch is not `epoch`, or there is another owner: a server
    that has lost its last second may give an epoch twice. Refused with VersionConflict if the
    stored version is neither `version - 1` (apply) nor `version` (already applied: success), or
    if `first_seq` does not follow the last event. After a release nothing more is taken
    (StaleOwner).
    """

    execution_id: str
    owner: str
    epoch: int
    #: The number of this commit: one more than the last.
    version: int
    #: Seq of the first event in `events`.
    first_seq: int
    fields: Mapping[str, bytes] = field(default_factory=dict)
    rows: Mapping[str, bytes] = field(default_factory=dict)
    #: Immutable: a key is written once, and only read afterwards.
    outputs: Mapping[str, bytes] = field(default_factory=dict)
    events: Sequence[bytes] = ()
    #: Ids of inbox entries whose effect this commit holds; they are removed.
    inbox_done: Sequence[str] = ()
    #: If not None, the execution's index entries are replaced by these.
    indexes: Sequence[IndexEntry] | None = None
    #: The execution has ended: it is taken from its owner's load and has no owner any more. Its
    #: age, by which it expires, counts from here.
    release: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A consistent reading of an execution or a checkpoint at one seq."""

    seq: int
    version: int
    epoch: int
    #: Name of the owner; empty if nobody owns it.
    owner: str
    definition: str
    fields: Mapping[str, bytes]
    rows: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class OwnCheckpoint:
    """A checkpoint that an execution's owner takes by itself, fenced by its epoch."""

    checkpoint_id: str
    execution_id: str
    epoch: int
    #: Its place among those that owners of the execution took; later ones have higher numbers.
    number: int
    #: How many of those stay, this one included: the rest is deleted, lowest numbers first.
    kept: int
    #: The document about it, and its index entries.
    body: bytes
    indexes: Sequence[IndexEntry] = ()


@dataclass(frozen=True, slots=True)
class OwnerLoad:
    """An owner, how many executions it has, and whether its lease has run out."""

    owner: str
    load: int
    expired: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """Answer of the rate limiter: tokens granted, or how long until there is one."""

    tokens: int
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class Durability:
    """What the server's own configuration allows Harmonia to promise.

    `promise` is "always" (a write is on disk before it is acknowledged), "everysec" (at most the
    last second is lost), "none", or "unknown" if the server does not say. `detail` says in a
    sentence why.
    """

    promise: str
    detail: str


class Store(Retention, EventLog, Inbox, Protocol):
    """Durable storage. Every method may raise StoreUnavailable."""

    async def ping(self) -> None:
        """Return if the server answers and can write."""
        ...

    async def time_ms(self) -> int:
        """The server's clock: the only clock that leases use."""
        ...

    async def durability(self) -> Durability:
        """Read the server's configuration and say what it allows. Raises UnsuitableServer."""
        ...

    async def close(self) -> None:
        """Close connections. The store is not used afterwards."""
        ...

    # Documents: workflows, templates, keys and the like -------------------------------------

    async def put_definition(self, digest: str, body: bytes) -> None:
        """Keep `body` under its digest; a digest that is there already is left as it is.

        One that nothing has ever referred to is kept for a day after it was last put.
        """
        ...

    async def get_definition(self, digest: str) -> bytes | None:
        """The body under a digest."""
        ...

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
        """Write a document with its index entries (which replace its former ones).

        `definition` is the digest that the document refers to (DefinitionMissing if not stored);
        a definition is dropped with the last document, execution or checkpoint that refers to it.
        `expected_version` 0 means it must be new (AlreadyExists, unless the stored body is the
        very same: then version 1 is returned); n means the stored version must be n
        (VersionConflict, unless it is n + 1 with the very same body: a repeat; Missing if there
        is none); None writes whatever is there.
        Returns the new version.
        """
        ...

    async def get_document(self, kind: str, document_id: str) -> Document | None:
        """The document with this id."""
        ...

    async def get_documents(self, kind: str, ids: Sequence[str]) -> list[Document | None]:
        """Several documents in one round trip, in the order asked."""
        ...

    async def delete_document(self, kind: str, document_id: str) -> bool:
        """Remove a document and its index entries. False if it was not there."""
        ...

    async def page(self, index: str, *, offset: int, limit: int, descending: bool) -> Page:
        """One page of a list, at a cost bounded by `limit` (and the logarithm of the length)."""
        ...

    # Executions ------------------------------------------------------------------------------

    async def create_execution(
        self,
        new: NewExecution,
        *,
        owners_max: int,
        live_max: int | None = None,
        load_max: int | None = None,
    ) -> str:
        """Store a new execution and assign an owner, all at once.

        The owner is a live one (its lease has not run out) without load if there is any that is
        not kept for suspects (`claim_next`); else, if there are at least `owners_max` live owners,
        the least loaded one, unless it has `load_max` already; else nobody: the execution then
        waits in the list that `claim_next` serves.
        Returns the owner's name, or "".
        Repeating the call returns the owner first assigned, until the execution has expired.
        Raises AlreadyExists if another one stands in the list `sole`, LimitReached if `live_max`
        executions are live, Missing if nobody holds what `holds` names any more,
        DefinitionMissing.
        """
        ...

    async def claim(self, execution_id: str, owner: str) -> Loaded | None:
        """Make `owner` the owner: raise the epoch and return the state.

        Returns None if the execution has ended (was released), or this is no owner: it is not
        registered, or has been found dead since (`orphan`) and others have what it had. Raises
        Missing. Claiming again as the same owner raises the epoch too, and leaves a suspect as
        alone as it was.
        """
        ...

    async def claim_next(self, owner: str, *, owners_max: int) -> Loaded | None:
        """Claim the oldest execution that waits for an owner, if this owner may take one.

        The oldest is the one created first. The owner may if it has no load, or if there are at
        least `owners_max` live owners. Suspects (`orphan`) go before all others, but only to an
        owner without load, which then gets nothing else until `calm`; those that have met fewer
        crashes lately come first, because they are alone for less time. Owners without load that
        are beyond `owners_max` live ones, not counting those that have a suspect alone, are kept
        for suspects. None if there is nothing to take or it may not; an owner that is not
        registered, or not any more, never may. A repeat after a lost reply takes the next one:
        what the lost reply named is in `owned_executions`.
        """
        ...

    async def commit(self, commit: Commit) -> None:
        """Write a commit. Raises StaleOwner, VersionConflict, Missing."""
        ...

    async def commit_many(self, commits: Sequence[Commit]) -> list[Exception | None]:
        """Commits of different executions in one round trip, each atomic by itself.

        Per commit None, or the StoreError that `commit` would have raised.
        """
        ...

    async def read_execution(self, execution_id: str, *, rows: bool = True) -> Snapshot | None:
        """A consistent reading of fields and (if asked) rows."""
        ...

    async def read_executions(
        self, ids: Sequence[str], fields: Sequence[str]
    ) -> list[Mapping[str, bytes] | None]:
        """Some fields of several executions in one round trip, in the order asked."""
        ...

    async def read_seq(self, execution_id: str) -> int | None:
        """How many events the log has; None if there is no such execution."""
        ...

    async def read_rows(self, execution_id: str, names: Sequence[str]) -> dict[str, bytes]:
        """The rows with these names, those that exist."""
        ...

    async def read_outputs(self, references: Sequence[tuple[str, str]]) -> list[bytes | None]:
        """Outputs by (execution id, output key) in one round trip, in the order asked."""
        ...

    async def read_events(self, execution_id: str, *, after: int, limit: int) -> list[StoredEvent]:
        """Events with seq > `after`, at most `limit`, in order. Raises Missing."""
        ...

    # Owners ------------------------------------------------------------------------------------

    async def renew_owner(
        self, owner: str, *, lease_ms: int, known: bool = False, by_ms: int | None = None
    ) -> bool:
        """Register an owner or renew its lease, by the server's clock.

        False, and nothing done, if it is being emptied (`orphan`), or is `known` to have registered
        before and is not on the roster any more: others have what it had. The same if it is not on
        the roster after `by_ms`: a registration that arrives late may be a repeat of one that made
        it an owner, which has been succeeded since.
        """
        ...

    async def retire_owner(self, owner: str) -> bool:
        """Remove an owner that has no load. False (and nothing done) if it has some."""
        ...

    async def owners(self, *, lease_ms: int | None = None) -> list[OwnerLoad]:
        """All registered owners.

        A lease that runs out later than `lease_ms` from now, the longest that is given, is one from
        before the server's clock was put back: it counts as run out.
        """
        ...

    async def owned_executions(self, owner: str, *, limit: int, offset: int = 0) -> list[str]:
        """Ids of the executions that are this owner's, oldest first: `limit` from `offset` on.

        An owner compares them with what it runs, and claims what it was never told of: the reply
        or the call that should have told it may have been lost.
        """
        ...

    async def orphan(self, owner: str, *, limit: int, blame: bool = False) -> int:
        """Give on what a dead owner has.

        Takes up to `limit` executions from it, puts them in the list that `claim_next` serves,
        and removes the owner once it has none. It gets no new ones from the
        first call on, whatever it renews. Returns how many were moved; call until 0.
        `blame`: any of them may have been its death. Each counts a crash more, and is a suspect
        until `calm` is said of it. Crashes are forgotten at the next one, if the last one of the
        same execution was long ago.
        """
        ...

    async def give_on(
        self, execution_id: str, *, epoch: int, blame: bool = False, aside: bool = False
    ) -> None:
        """Let another owner have an execution, if the epoch is still this one.

        It waits for its next owner like a new one. `blame`: it counts a crash more. `aside`: no
        owner that is there now is of use to it; it waits until one registers, retires or dies.
        """
        ...

    async def calm(self, execution_id: str, *, epoch: int) -> bool:
        """Say of an execution that it does its owner no harm: it is a suspect no more.

        True if it is alone with its owner, and other suspects wait for the same: the owner is to
        give it on, and can then take the next one. Until then it gets nothing else, or no suspect
        would be given to it any more. Without effect under another epoch, or once it has been
        taken from its owner.
        """
        ...

    async def waiting_executions(self) -> int:
        """How many executions wait for an owner that is there; what is put aside does not."""
        ...

    # Checkpoints -------------------------------------------------------------------------------

    async def create_checkpoint(
        self,
        checkpoint_id: str,
        execution_id: str,
        body: bytes,
        indexes: Sequence[IndexEntry],
        note: InboxEntry | None,
    ) -> Snapshot:
        """Copy an execution's fields and rows as of now, atomically, with a document about it.

        The document is kept as kind "checkpoint" and is read, listed and deleted like any other;
        deleting it drops the copy. The checkpoint holds the execution's outputs, and those of
        others that the execution holds. `note` goes into the execution's inbox unless it has ended.
        Repeating the call returns the first copy. Raises Missing if the execution does not exist,
        AlreadyExists if such a document was put without a copy.
        """
        ...

    async def take_checkpoint(self, checkpoint: OwnCheckpoint) -> None:
        """As `create_checkpoint`, by the owner, without a note; trims what owners took before.

        What is left of these goes with the execution when it expires. A repeat changes nothing.
        Raises StaleOwner under another epoch and once the execution has ended, Missing,
        AlreadyExists.
        """
        ...

    async def read_checkpoint(self, checkpoint_id: str) -> Snapshot | None:
        """The copy, as it was at the checkpoint."""
        ...

    # Rate limits -------------------------------------------------------------------------------

    async def take_tokens(
        self, bucket: str, *, tokens: int, rate_per_s: float, burst: int
    ) -> Grant:
        """Lease up to `tokens` tokens from a bucket that fills at `rate_per_s` up to `burst`.

        Grants as many as there are (at least one), or none with the wait until the next one.
        """
        ...
