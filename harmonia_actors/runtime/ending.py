"""What an owner remembers of a small execution, for those who wait for its end.

Whoever waits is to see what a reader of the store would see, without reading it: all that was
committed, put together. It is kept only while it is small, and only by who wrote all of it.
This module must not know Ray.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from persistence.store import Commit, Snapshot

__all__ = ["Ending", "LatelyEnded", "Written"]

#: Bytes of heads, rows and outputs beyond which an execution is read from the store.
_BYTES_MAX = 8_000
#: Ends that an owner remembers.
_ENDED_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class Ending:
    """An execution as its last commit left it."""

    seq: int
    version: int
    epoch: int
    head: bytes
    rows: Mapping[str, bytes]
    #: All that its tasks and the execution itself have returned, but for blobs.
    outputs: Mapping[str, bytes]

    def snapshot(self, definition: str, fields: Mapping[str, bytes]) -> Snapshot:
        """As the store would give it; `fields` are those that it was created with."""
        fields = {**fields, "head": self.head}
        return Snapshot(self.seq, self.version, self.epoch, "", definition, fields, self.rows)


class Written:
    """All that one owner has committed of an execution."""

    def __init__(self, *, is_all: bool) -> None:
        """`is_all`: nobody has written anything before, not even who created it, but its head."""
        self._is_kept = is_all
        self._rows: dict[str, bytes] = {}
        self._outputs: dict[str, bytes] = {}
        self._bytes = 0
        #: Set by the commit with which the execution has ended.
        self.ending: Ending | None = None

    def add(self, commit: Commit) -> None:
        """The store has taken this."""
        if not self._is_kept:
            return
        bodies = (*commit.rows.values(), *commit.outputs.values())
        self._bytes += sum(map(len, bodies))
        head = commit.fields["head"]
        if self._bytes + len(head) > _BYTES_MAX:
            self._is_kept = False
            self._rows, self._outputs = {}, {}
            return
        self._rows.update(commit.rows)
        self._outputs.update(commit.outputs)
        if commit.release:
            seq = commit.first_seq + len(commit.events) - 1
            self.ending = Ending(seq, commit.version, commit.epoch, head, self._rows, self._outputs)


class LatelyEnded:
    """Executions that ended here lately, for those who begin to wait only then."""

    def __init__(self) -> None:
        self._endings: OrderedDict[str, Ending | None] = OrderedDict()

    def __contains__(self, execution_id: str) -> bool:
        """Whether it is remembered."""
        return execution_id in self._endings

    def add(self, execution_id: str, ending: Ending | None) -> None:
        """One has ended; the oldest is forgotten when there are too many."""
        self._endings[execution_id] = ending
        while len(self._endings) > _ENDED_KEPT:
            self._endings.popitem(last=False)

    def ending_of(self, execution_id: str) -> Ending | None:
        """How it has ended, if that is remembered."""
        return self._endings.get(execution_id)
