"""What scripts and commands answer, as the contract's plain data, and calls as flat arguments.

This module must not talk to a server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from persistence.errors import Missing, StaleOwner, VersionConflict
from persistence.redis_client import Argument
from persistence.redis_keys import index_member
from persistence.store import Commit, InboxEntry, IndexEntry, Loaded, Snapshot, StoredEvent

__all__ = [
    "commit_arguments",
    "events",
    "inbox",
    "index_arguments",
    "loaded",
    "mapping",
    "no_execution",
    "pairs",
    "refused_commit",
    "snapshot",
]


def pairs(mapping: Mapping[str, bytes], prefix: str = "") -> list[bytes]:
    """Names and bodies, one after the other."""
    flat: list[bytes] = []
    for name, body in mapping.items():
        flat.append((prefix + name).encode())
        flat.append(body)
    return flat


def index_arguments(entry_id: str, indexes: Sequence[IndexEntry]) -> list[bytes]:
    """Index, score and member of each entry, one after the other."""
    flat: list[bytes] = []
    for entry in indexes:
        flat.append(entry.index.encode())
        flat.append(repr(float(entry.score)).encode())
        flat.append(index_member(entry.text, entry_id))
    return flat


def commit_arguments(commit: Commit) -> list[Argument]:
    """A commit as `commit.lua` takes it."""
    fields = pairs(commit.fields, ".")
    rows = pairs(commit.rows)
    outputs = pairs(commit.outputs)
    indexes = index_arguments(commit.execution_id, commit.indexes or ())
    return [
        commit.execution_id.encode(),
        commit.epoch,
        commit.version,
        commit.first_seq,
        1 if commit.release else 0,
        len(fields),
        len(rows),
        len(outputs),
        len(commit.events),
        len(commit.inbox_done),
        -1 if commit.indexes is None else len(indexes),
        *fields,
        *rows,
        *outputs,
        *commit.events,
        *(entry_id.encode() for entry_id in commit.inbox_done),
        *indexes,
    ]


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
    if reason in {b"epoch", b"ended"}:
        why = f"made under epoch {commit.epoch}, now it is {stored}"
        ended = f"the execution ended with commit {stored}"
        return StaleOwner(f"{subject}: {ended if reason == b'ended' else why}")
    first = f"its first event is {commit.first_seq}, the last stored is {stored}"
    other = f"the last one stored is {stored}"
    return VersionConflict(f"{subject}: {first if reason == b'seq' else other}")


def no_execution(execution_id: str) -> Missing:
    """The error for an id under which there is no execution."""
    return Missing(f"execution {execution_id!r} does not exist")


def mapping(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A hash, which travels as a flat list."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def snapshot(flat_head: Sequence[bytes], flat_rows: Sequence[bytes]) -> Snapshot | None:
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
        fields=_fields(head),
        rows=_named(flat_rows),
    )


def loaded(reply: Sequence[Any]) -> Loaded:
    """What a claim script answers."""
    execution_id, flat_head, flat_rows, entries = reply
    head = mapping(flat_head)
    return Loaded(
        execution_id=execution_id.decode(),
        epoch=int(head[b"e"]),
        version=int(head[b"v"]),
        seq=int(head[b"s"]),
        definition=head[b"d"].decode(),
        fields=_fields(head),
        rows=_named(flat_rows),
        inbox=inbox(entries),
    )


def inbox(entries: Sequence[Any]) -> list[InboxEntry]:
    """Inbox entries from a stream; each has its id and body as `i` and `b`."""
    return [InboxEntry(parts[1].decode(), parts[3]) for _, parts in entries]


def events(entries: Sequence[Any]) -> list[StoredEvent]:
    """Events from a stream; the entry's own id is the seq."""
    return [StoredEvent(int(entry_id.partition(b"-")[0]), parts[1]) for entry_id, parts in entries]


def _fields(head: Mapping[bytes, bytes]) -> dict[str, bytes]:
    return {name[1:].decode(): body for name, body in head.items() if name[:1] == b"."}


def _named(flat: Sequence[bytes]) -> dict[str, bytes]:
    return {name.decode(): body for name, body in mapping(flat).items()}
