"""The parts of the memory store that know nothing of executions.

Sorted lists, counted definitions, versioned documents, the roster of owners, token buckets.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from persistence.errors import AlreadyExists, DefinitionMissing, Missing, VersionConflict
from persistence.store import Document, Grant, IndexEntry, OwnerLoad, Page

__all__ = ["Definitions", "Documents", "Indexes", "Roster", "TokenBuckets"]

#: How long a definition to which nothing has referred yet is kept.
UNREFERENCED_MS = 86_400_000

Place = tuple[float, bytes, bytes]


class Indexes:
    """Sorted lists of ids. Texts and ids are ordered by their UTF-8 bytes."""

    def __init__(self) -> None:
        self._places: dict[str, list[Place]] = {}

    def replace(self, entry_id: str, old: Sequence[IndexEntry], new: Sequence[IndexEntry]) -> None:
        """Take an id's old entries out of their lists and put its new ones in."""
        for entry in old:
            places = self._places.get(entry.index, [])
            place = _place(entry, entry_id)
            at = bisect.bisect_left(places, place)
            if places[at : at + 1] == [place]:
                del places[at]
        for entry in new:
            places = self._places.setdefault(entry.index, [])
            place = _place(entry, entry_id)
            at = bisect.bisect_left(places, place)
            if places[at : at + 1] != [place]:
                places.insert(at, place)

    def page(self, index: str, offset: int, limit: int, *, descending: bool) -> Page:
        """One page of a list."""
        places = self._places.get(index, [])
        first = len(places) - offset - limit if descending else offset
        part = places[max(first, 0) : max(first + limit, 0)]
        ids = [place[2].decode() for place in (reversed(part) if descending else part)]
        return Page(tuple(ids), len(places))


def _place(entry: IndexEntry, entry_id: str) -> Place:
    return (float(entry.score), entry.text.encode(), entry_id.encode())


@dataclass(slots=True)
class _Definition:
    body: bytes
    expires_ms: int
    references: int = 0


class Definitions:
    """Definitions with the number of references to each."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._stored: dict[str, _Definition] = {}

    def put(self, digest: str, body: bytes) -> None:
        """Keep a body under its digest, for a day at least."""
        stored = self._live(digest)
        if stored is None:
            stored = self._stored[digest] = _Definition(body, 0)
        stored.expires_ms = self._now_ms() + UNREFERENCED_MS

    def get(self, digest: str) -> bytes | None:
        """The body under a digest."""
        stored = self._live(digest)
        return None if stored is None else stored.body

    def require(self, digest: str, subject: str) -> None:
        """Raise DefinitionMissing, naming who refers to it, if there is none."""
        if self._live(digest) is None:
            raise DefinitionMissing(f"{subject}: definition {digest!r} is not stored")

    def refer(self, digest: str, subject: str) -> None:
        """Count one more reference; raises DefinitionMissing."""
        self.require(digest, subject)
        self._stored[digest].references += 1

    def drop_reference(self, digest: str) -> None:
        """Count one reference less; the last takes the definition with it."""
        stored = self._stored[digest]
        stored.references -= 1
        if stored.references == 0:
            del self._stored[digest]

    def _live(self, digest: str) -> _Definition | None:
        stored = self._stored.get(digest)
        if stored and not stored.references and stored.expires_ms <= self._now_ms():
            del self._stored[digest]
            return None
        return stored


@dataclass(frozen=True, slots=True)
class _Document:
    document: Document
    definition: str | None
    indexes: tuple[IndexEntry, ...]


class Documents:
    """Versioned documents by kind and id."""

    def __init__(self, definitions: Definitions, indexes: Indexes) -> None:
        self._definitions = definitions
        self._indexes = indexes
        self._stored: dict[tuple[str, str], _Document] = {}

    def put(
        self,
        kind: str,
        document_id: str,
        body: bytes,
        indexes: Sequence[IndexEntry],
        *,
        definition: str | None = None,
        expected: int | None = None,
    ) -> int:
        """See `Store.put_document`."""
        subject = f"{kind} {document_id!r}"
        former = self._stored.get((kind, document_id))
        version = former.document.version if former else 0
        if expected is not None and expected != version:
            if former and version == expected + 1 and former.document.body == body:
                return version
            raise _refusal(subject, expected, version)
        if definition is not None:
            self._definitions.refer(definition, subject)
        if former and former.definition is not None:
            self._definitions.drop_reference(former.definition)
        self._indexes.replace(document_id, former.indexes if former else (), indexes)
        self._stored[kind, document_id] = _Document(
            Document(document_id, body, version + 1), definition, tuple(indexes)
        )
        return version + 1

    def get(self, kind: str, document_id: str) -> Document | None:
        """The document with this id."""
        stored = self._stored.get((kind, document_id))
        return stored.document if stored else None

    def delete(self, kind: str, document_id: str) -> bool:
        """Remove a document, its index entries and its reference."""
        stored = self._stored.pop((kind, document_id), None)
        if stored is None:
            return False
        self._indexes.replace(document_id, stored.indexes, ())
        if stored.definition is not None:
            self._definitions.drop_reference(stored.definition)
        return True


def _refusal(subject: str, expected: int, version: int) -> Exception:
    if expected == 0:
        return AlreadyExists(f"{subject} exists, with version {version}")
    if version == 0:
        return Missing(f"{subject} does not exist")
    return VersionConflict(f"{subject} has version {version}, not the expected {expected}")


@dataclass(slots=True)
class _Owner:
    #: When the lease runs out.
    lease_ms: int = 0
    #: Being emptied after its death: gets nothing new and cannot renew.
    emptying: bool = False
    executions: set[str] = field(default_factory=set)
    #: A suspect, beside which it gets nothing.
    isolates: str = ""


class Roster:
    """Owners, their leases and what each has."""

    def __init__(self, now_ms: Callable[[], int], changed: Callable[[], None]) -> None:
        """`changed` is called when an owner has come or gone."""
        self._now_ms = now_ms
        self._changed = changed
        self._owners: dict[str, _Owner] = {}

    def renew(self, owner: str, lease_ms: int, *, known: bool, by_ms: int | None) -> bool:
        """Register an owner or renew its lease: see `Store.renew_owner`."""
        now = self._now_ms()
        if owner not in self._owners:
            if known or (by_ms is not None and now > by_ms):
                return False
            self._owners[owner] = _Owner()
            self._changed()
        if self._owners[owner].emptying:
            return False
        self._owners[owner].lease_ms = now + lease_ms
        return True

    def has(self, owner: str) -> bool:
        """Whether it is an owner: it has registered, and has not been found dead since."""
        entry = self._owners.get(owner)
        return entry is not None and not entry.emptying

    def retire(self, owner: str) -> bool:
        """Take an owner that has nothing off the roster."""
        entry = self._owners.get(owner)
        if entry and entry.executions:
            return False
        if self._owners.pop(owner, None):
            self._changed()
        return True

    def start_emptying(self, owner: str) -> None:
        """Give an owner nothing any more."""
        if owner in self._owners:
            self._owners[owner].emptying = True
            self._owners[owner].isolates = ""

    def loads(self, lease_ms: int | None) -> list[OwnerLoad]:
        """All owners, by name; see `Store.owners`."""
        latest = float("inf") if lease_ms is None else self._now_ms() + lease_ms
        live = {name for name, entry in self._live() if entry.lease_ms <= latest}
        return [
            OwnerLoad(name, len(entry.executions), name not in live)
            for name, entry in sorted(self._owners.items())
        ]

    def owned(self, owner: str) -> set[str]:
        """What an owner has."""
        entry = self._owners.get(owner)
        return set(entry.executions) if entry else set()

    def give(self, owner: str, execution_id: str) -> None:
        """Add to what an owner has."""
        self._owners[owner].executions.add(execution_id)

    def take(self, owner: str, execution_id: str) -> None:
        """Take from what an owner has."""
        entry = self._owners[owner]
        entry.executions.discard(execution_id)
        if entry.isolates == execution_id:
            entry.isolates = ""

    def isolate(self, owner: str, execution_id: str) -> None:
        """Give an owner nothing else as long as it has this one."""
        self._owners[owner].isolates = execution_id

    def isolates(self, owner: str, execution_id: str) -> bool:
        """Whether an owner gets nothing else because it has this one."""
        entry = self._owners.get(owner)
        return entry is not None and entry.isolates == execution_id

    def release(self, owner: str, execution_id: str) -> None:
        """End an isolation, if there is one of this execution."""
        if self.isolates(owner, execution_id):
            self._owners[owner].isolates = ""

    def choose(self, owners_max: int, load_max: int | None, *, suspects: bool) -> str:
        """The owner that a new execution gets, or ""; `suspects`: whether some wait."""
        live = self._live()
        reserved = suspects or self._is_reserve(owners_max)
        free = [
            (len(entry.executions), name.encode(), name)
            for name, entry in live
            if not entry.isolates and (entry.executions or not reserved)
        ]
        if not free:
            return ""
        load, _, name = min(free)
        has_room = load_max is None or load < load_max
        return name if not load or (has_room and len(live) >= owners_max) else ""

    def may_take(self, owner: str, owners_max: int) -> bool:
        """Whether an owner may have another execution."""
        entry = self._owners.get(owner)
        if entry is None or entry.emptying or entry.isolates:
            return False
        if not entry.executions:
            return not self._is_reserve(owners_max)
        return len(self._live()) >= owners_max

    def may_take_a_suspect(self, owner: str) -> bool:
        """Whether an owner may have an execution that nothing else is to be beside."""
        entry = self._owners.get(owner)
        return entry is not None and not entry.emptying and not entry.executions

    def _is_reserve(self, owners_max: int) -> bool:
        """Whether empty owners are kept for suspects: see `Store.claim_next`."""
        isolating = sum(bool(entry.isolates) for entry in self._owners.values())
        beyond = len(self._live()) - isolating - owners_max
        return 0 < beyond >= sum(not entry.executions for entry in self._owners.values())

    def _live(self) -> list[tuple[str, _Owner]]:
        now = self._now_ms()
        return [
            (name, entry)
            for name, entry in self._owners.items()
            if entry.lease_ms > now and not entry.emptying
        ]


class TokenBuckets:
    """Rate limits: what is kept of a bucket is the time at which it will be full again."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._full_at_us: dict[str, float] = {}

    def take(self, bucket: str, tokens: int, rate_per_s: float, burst: int) -> Grant:
        """See `Store.take_tokens`."""
        each = 1_000_000 / rate_per_s
        now = self._now_ms() * 1000
        # A debt beyond the whole bucket can only come from a clock that was set back.
        debt = min(max(self._full_at_us.get(bucket, 0.0) - now, 0.0), burst * each)
        # One microsecond of grace, because the sums are rounded.
        granted = min(tokens, math.floor((burst * each - debt + 1) / each))
        if granted < 1:
            return Grant(0, max(1, math.ceil((debt - (burst - 1) * each) / 1000)))
        self._full_at_us[bucket] = now + debt + granted * each
        return Grant(granted, 0)
