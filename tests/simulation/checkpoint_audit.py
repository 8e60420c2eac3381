"""Judges automatic checkpoints by what reaches the store, as `audit` judges executions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core.records import Head
from persistence.errors import StaleOwner
from persistence.memory_store import MemoryStore
from persistence.store import OwnCheckpoint, Snapshot
from tests.simulation.store import at_once

__all__ = ["CheckpointAuditor"]

_LISTED_MAX = 1_000


class CheckpointAuditor:
    """What is wrong with each that is taken, and with what is told of them."""

    def __init__(self, memory: MemoryStore) -> None:
        self._memory = memory
        #: Those that were ever stored, by id: of which execution each is.
        self.taken: dict[str, str] = {}
        self._numbers: dict[str, set[int]] = {}

    def asked(self, checkpoint: OwnCheckpoint, head: Head, now: Snapshot, answer: Any) -> list[str]:
        """The store has carried a request out; `now` is how the execution stands."""
        name, execution_id = checkpoint.checkpoint_id, checkpoint.execution_id
        copy = at_once(self._memory.read_checkpoint(name))
        if answer is not None:
            # Whatever may be wrong with it, it must not have been taken by this request.
            is_expected = isinstance(answer, StaleOwner) and (
                checkpoint.epoch != now.epoch or head.status.is_final
            )
            return [] if is_expected else [f"checkpoint {name} was refused: {answer!r}"]
        found = list(self._kept(execution_id, checkpoint.kept))
        if checkpoint.epoch != now.epoch:
            found.append(f"checkpoint {name} was taken by a former owner")
        if copy is None or name in self.taken:
            return found
        self.taken[name] = execution_id
        numbers = self._numbers.setdefault(execution_id, set())
        if checkpoint.number in numbers:
            found.append(f"checkpoint {checkpoint.number} has two ids")
        numbers.add(checkpoint.number)
        if (copy.seq, copy.version, dict(copy.rows)) != (now.seq, now.version, dict(now.rows)):
            found.append(f"checkpoint {name} is not the execution as it was then")
        if not checkpoint.number <= copy.seq:
            found.append(f"checkpoint {name} of {checkpoint.number} was cut at {copy.seq}")
        if head.status.is_final:
            found.append(f"checkpoint {name} was taken after the end")
        return found

    def told(self, checkpoint_id: str, name: str, execution_id: str) -> list[str]:
        """An event says that one was taken."""
        if name.startswith("auto-") and self.taken.get(checkpoint_id) != execution_id:
            return [f"checkpoint {checkpoint_id} is told of, but was never taken"]
        return []

    def _kept(self, execution_id: str, kept: int) -> Iterator[str]:
        page = at_once(
            self._memory.page(
                f"checkpoints:{execution_id}", offset=0, limit=_LISTED_MAX, descending=False
            )
        )
        bodies = at_once(self._memory.get_documents("checkpoint", page.ids))
        records = [jsontext.decode(body.body) for body in bodies]
        automatic = [one for one in records if one.get("automatic")]
        if len(automatic) > kept:
            yield f"{len(automatic)} automatic checkpoints are kept, {kept} are wanted"
