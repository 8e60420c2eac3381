"""Checkpoints that executions take by themselves, as the store takes them.

The id follows from the execution and the place in its log where the checkpoint was decided on: an
owner that carries the decision out again, not knowing how far the last one came, takes the same
one. This module must not know when one is due.
"""

from __future__ import annotations

import hashlib

from harmonia_actors.core import jsontext
from harmonia_actors.core.commands import TakeCheckpoint
from harmonia_actors.core.records import Head, automatic_name
from harmonia_actors.runtime.derived_ids import derived_uuid
from harmonia_actors.runtime.indexing import checkpoint_indexes
from persistence.store import OwnCheckpoint

__all__ = ["automatic_checkpoint", "checkpoint_record"]

_DOMAIN = "harmonia automatic checkpoint 1"


def checkpoint_record(
    execution_id: str, workflow_id: str, *, name: str, description: str, created_ms: int
) -> dict[str, object]:
    """What is stored about any checkpoint, besides the copy."""
    return {
        "execution_id": execution_id,
        "workflow_id": workflow_id,
        "name": name,
        "description": description,
        "created_ms": created_ms,
    }


def automatic_checkpoint(
    head: Head, command: TakeCheckpoint, *, epoch: int, now_ms: int
) -> OwnCheckpoint:
    """The checkpoint that a command asks for."""
    named = jsontext.encode_canonical([_DOMAIN, head.execution_id, command.seq])
    record = checkpoint_record(
        head.execution_id,
        head.workflow_id,
        name=automatic_name(command.seq),
        description="",
        created_ms=now_ms,
    )
    return OwnCheckpoint(
        checkpoint_id=f"cp-{derived_uuid(hashlib.sha256(named).digest())}",
        execution_id=head.execution_id,
        epoch=epoch,
        number=command.seq,
        kept=command.kept,
        body=jsontext.encode({**record, "automatic": True}),
        indexes=checkpoint_indexes(head.execution_id, now_ms),
    )
