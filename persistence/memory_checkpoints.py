"""Checkpoints as the memory store keeps them: copies of executions, each with a document about it.

Those that owners took by themselves are listed by their execution: only its last ones stay, and
they go with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from persistence.errors import AlreadyExists
from persistence.memory_execution import StoredExecution
from persistence.memory_parts import Definitions, Documents
from persistence.memory_retention import Holdings
from persistence.store import IndexEntry, Snapshot

__all__ = ["Checkpoints"]

_KIND = "checkpoint"


class Checkpoints:
    """Copies by id, and the order of those that owners took."""

    def __init__(self, documents: Documents, definitions: Definitions, holdings: Holdings) -> None:
        self._documents = documents
        self._definitions = definitions
        self._holdings = holdings
        #: Copies without constants, with the executions that each holds: last the one it is of.
        self._copies: dict[str, tuple[Snapshot, tuple[str, ...]]] = {}
        #: Per execution the numbers of those that its owners took, by id.
        self._own: dict[str, dict[str, int]] = {}

    def find(self, checkpoint_id: str) -> Snapshot | None:
        """A copy that its reader may change without changing what is stored."""
        if checkpoint_id not in self._copies:
            return None
        stored, held = self._copies[checkpoint_id]
        constants = self._holdings.constants(held[-1])
        return replace(stored, fields={**constants, **stored.fields}, rows=dict(stored.rows))

    def add(
        self,
        checkpoint_id: str,
        execution: StoredExecution,
        body: bytes,
        indexes: Sequence[IndexEntry],
    ) -> None:
        """Copy an execution as it is now. Raises AlreadyExists for a document without a copy."""
        if self._documents.get(_KIND, checkpoint_id) is not None:
            raise AlreadyExists(f"checkpoint {checkpoint_id!r} exists as a document without a copy")
        held = (*execution.holds, execution.execution_id)
        copy = replace(execution.snapshot(rows=True), fields=dict(execution.fields))
        self._copies[checkpoint_id] = (copy, held)
        self._holdings.hold(held)
        self._definitions.refer(execution.definition, f"checkpoint {checkpoint_id!r}")
        self._documents.put(_KIND, checkpoint_id, body, indexes)

    def enter(self, checkpoint_id: str, execution_id: str, number: int) -> None:
        """List a copy among those that owners of its execution took."""
        self._own.setdefault(execution_id, {})[checkpoint_id] = number

    def trim(self, execution_id: str, kept: int) -> None:
        """Delete the oldest of those that owners of an execution took, until `kept` are left."""
        own = self._own.get(execution_id, {})
        in_order = sorted(own, key=lambda one: (own[one], one.encode()))
        for checkpoint_id in in_order[: max(0, len(in_order) - kept)]:
            if self._documents.delete(_KIND, checkpoint_id):
                self.forget(checkpoint_id)

    def forget(self, checkpoint_id: str) -> None:
        """Drop the copy, if there is one: its document is gone."""
        if checkpoint_id not in self._copies:
            return
        copy, held = self._copies.pop(checkpoint_id)
        self._definitions.drop_reference(copy.definition)
        self._holdings.let_go(held)
        own = self._own.get(held[-1], {})
        own.pop(checkpoint_id, None)
        if not own:
            self._own.pop(held[-1], None)
