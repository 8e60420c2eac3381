"""What scripts and commands answer, as the contract's plain data, and calls as flat arguments.

This module must not talk to a server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgpack

from persistence.errors import (
    AlreadyExists,
    DefinitionMissing,
    LimitReached,
    Missing,
    StaleOwner,
    VersionConflict,
)
from persistence.redis_client import Argument
from persistence.redis_keys import index_member
from persistence.store import (
    Commit,
    InboxEntry,
    IndexEntry,
    Loaded,
    NewExecution,
    OwnCheckpoint,
    Snapshot,
    StoredEvent,
)

__all__ = [
    "appended",
    "commit_arguments",
    "create_arguments",
    "events",
    "inbox",
    "info_fields",
    "loaded",
    "mapping",
    "no_execution",
    "packed",
    "packed_indexes",
    "refused_commit",
    "refused_create",
    "refused_take",
    "snapshot",
    "take_arguments",
]


def packed(value: Any) -> bytes:
    """Many arguments as one: names as UTF-8, bodies untouched, both what Lua calls a string."""
    return bytes(msgpack.packb(value, use_bin_type=False))


def packed_indexes(entry_id: str, indexes: Sequence[IndexEntry]) -> bytes:
    """Index entries of one id, as scripts take them."""
    return packed(_index_entries(entry_id, indexes))


def _pairs(mapping: Mapping[str, bytes], prefix: str = "") -> list[str | bytes]:
    """Names and bodies, one after the other."""
    flat: list[str | bytes] = []
    for name, body in mapping.items():
        flat.append(prefix + name)
        flat.append(body)
    return flat


def _index_entries(entry_id: str, indexes: Sequence[IndexEntry]) -> list[str | bytes]:
    """Index, score and member of each entry, one after the other."""
    flat: list[str | bytes] = []
    for entry in indexes:
        flat += (entry.index, repr(float(entry.score)), index_member(entry.text, entry_id))
    return flat


def create_arguments(
    new: NewExecution, owners_max: int, live_max: int, load_max: int
) -> list[Argument]:
    """A new execution as `create_execution.lua` takes it."""
    indexes = _index_entries(new.execution_id, new.indexes)
    rows = _pairs(new.rows)
    parts = (
        _pairs(new.fields, "."),
        rows,
        list(new.events),
        indexes,
        list(new.holds),
        new.sole,
        _pairs(new.constants, "."),
    )
    return [new.execution_id, new.definition, owners_max, live_max, load_max, packed(parts)]


def refused_create(new: NewExecution, live_max: int, reply: Sequence[bytes]) -> Exception:
    """The error that says why an execution was not created."""
    subject = f"execution {new.execution_id!r}"
    if reply[0] == b"not alone":
        return AlreadyExists(f"{subject}: {new.sole!r} has another one")
    if reply[0] == b"full":
        return LimitReached(f"{subject}: {live_max} executions are live, the most there may be")
    if reply[0] == b"not kept":
        return Missing(f"{subject}: outputs of {reply[1].decode()!r} are not kept any more")
    return DefinitionMissing(f"{subject}: definition {new.definition!r} is not stored")


def commit_arguments(commit: Commit) -> list[Argument]:
    """A commit as `commit.lua` takes it."""
    parts = (
        _pairs(commit.fields, "."),
        _pairs(commit.rows),
        _pairs(commit.outputs),
        list(commit.events),
        list(commit.inbox_done),
        commit.indexes is not None and _index_entries(commit.execution_id, commit.indexes),
    )
    return [
        commit.execution_id,
        commit.epoch,
        commit.version,
        commit.first_seq,
        1 if commit.release else 0,
        packed(parts),
    ]


def appended(execution_id: str, reply: Sequence[bytes]) -> str:
    """The owner whose inbox has the entry now. Raises what `Store.append_inbox` says."""
    reason, subject = reply[0], f"execution {execution_id!r}"
    if reason == b"missing":
        raise no_execution(execution_id)
    if reason == b"epoch":
        raise StaleOwner(f"{subject}: its epoch is {reply[1].decode()} now")
    if reason == b"ended":
        raise VersionConflict(f"{subject} has ended and takes nothing in")
    if reason == b"full":
        raise VersionConflict(f"{subject} has too many unread entries, and takes no more now")
    return reply[1].decode()


def refused_commit(commit: Commit, reply: Any) -> Exception | None:
    """None if the commit is written, else the error that says why not."""
    if reply == 0:
        return None
    if isinstance(reply, Exception):
        return reply
    reason, stored = reply[0], reply[1].decode()
    subject = f"execution {commit.execution_id!r}, commit {commit.version}"
    if reason == b"missing":
        return no_execution(commit.execution_id)
    stale = {
        b"epoch": f"made under epoch {commit.epoch}, now it is {stored}",
        b"owner": f"made by {commit.owner!r}, its owner is {stored!r}",
        b"ended": f"the execution ended with commit {stored}",
    }
    if reason in stale:
        return StaleOwner(f"{subject}: {stale[reason]}")
    first = f"its first event is {commit.first_seq}, the last stored is {stored}"
    other = f"the last one stored is {stored}"
    return VersionConflict(f"{subject}: {first if reason == b'seq' else other}")


def take_arguments(checkpoint: OwnCheckpoint) -> list[Argument]:
    """An owner's checkpoint as `take_checkpoint.lua` takes it."""
    return [
        checkpoint.checkpoint_id,
        checkpoint.execution_id,
        checkpoint.epoch,
        checkpoint.number,
        checkpoint.kept,
        checkpoint.body,
        packed_indexes(checkpoint.checkpoint_id, checkpoint.indexes),
    ]


def refused_take(checkpoint: OwnCheckpoint, reply: Sequence[bytes]) -> Exception:
    """The error that says why an owner's checkpoint was not taken."""
    reason, stored = reply[0], reply[1].decode()
    subject = f"checkpoint {checkpoint.checkpoint_id!r}"
    if reason == b"missing":
        return no_execution(checkpoint.execution_id)
    if reason == b"exists":
        return AlreadyExists(f"{subject} exists as a document without a copy")
    if reason == b"ended":
        return StaleOwner(f"{subject}: the execution ended with commit {stored}")
    return StaleOwner(f"{subject}: taken under epoch {checkpoint.epoch}, now it is {stored}")


def no_execution(execution_id: str) -> Missing:
    """The error for an id under which there is no execution."""
    return Missing(f"execution {execution_id!r} does not exist")


def mapping(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A hash, which travels as a flat list."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def snapshot(
    flat_head: Sequence[bytes], flat_rows: Sequence[bytes], flat_constants: Sequence[bytes]
) -> Snapshot | None:
    """A reading of an execution or a checkpoint; None if there is none."""
    if not flat_head:
        return None
    head = mapping(flat_head)
    return Snapshot(
        seq=int(head[b"s"]),
        version=int(head[b"v"]),
        epoch=int(head[b"e"]),
        owner=head[b"o"].decode(),
        definition=head[b"d"].decode(),
        fields=_fields(head, flat_constants),
        rows=_named(flat_rows),
    )


def loaded(reply: Sequence[Any]) -> Loaded:
    """What a claim script answers."""
    execution_id, flat_head, flat_rows, entries, flat_constants = reply
    head = mapping(flat_head)
    return Loaded(
        execution_id=execution_id.decode(),
        epoch=int(head[b"e"]),
        version=int(head[b"v"]),
        seq=int(head[b"s"]),
        definition=head[b"d"].decode(),
        fields=_fields(head, flat_constants),
        rows=_named(flat_rows),
        inbox=inbox(entries),
        crashes=int(head.get(b"c", 0)),
        crashes_lately=int(head.get(b"C", 0)),
    )


def inbox(entries: Sequence[Any]) -> list[InboxEntry]:
    """Inbox entries from a stream; each has its id and body as `i` and `b`."""
    return [InboxEntry(parts[1].decode(), parts[3]) for _, parts in entries]


def events(entries: Sequence[Any]) -> list[StoredEvent]:
    """Events from a stream; the entry's own id is the seq."""
    return [StoredEvent(int(entry_id.partition(b"-")[0]), parts[1]) for entry_id, parts in entries]


def _fields(head: Mapping[bytes, bytes], flat_constants: Sequence[bytes]) -> dict[str, bytes]:
    found = {**mapping(flat_constants), **head}
    return {name[1:].decode(): body for name, body in found.items() if name[:1] == b"."}


def _named(flat: Sequence[bytes]) -> dict[str, bytes]:
    return {name.decode(): body for name, body in mapping(flat).items()}


def info_fields(reply: bytes) -> dict[str, str]:
    """What INFO says, by name."""
    parts = (line.partition(":") for line in reply.decode().splitlines())
    return {name: value for name, _, value in parts if value}
