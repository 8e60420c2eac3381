"""Fails a stored execution by its head alone, without making anything of its tasks."""

from __future__ import annotations

from typing import Any

from harmonia_actors.core.quarantine import fail_head
from harmonia_actors.core.records import decode_head, encode_head
from harmonia_actors.runtime.indexing import execution_indexes
from harmonia_actors.runtime.patience import patiently
from harmonia_actors.runtime.ports import EventSink
from persistence.store import Commit, Loaded, Store

__all__ = ["fail_by_head"]


async def fail_by_head(
    store: Store, sink: EventSink, owner: str, loaded: Loaded, at_ms: int, error: dict[str, Any]
) -> None:
    """Write and publish the end of an execution that was claimed. Raises UnknownSchema."""
    head = decode_head(loaded.fields["head"])
    failed = fail_head(head, loaded.seq, at_ms, error)
    body = failed.encoded(loaded.execution_id)
    commit = Commit(
        execution_id=loaded.execution_id,
        owner=owner,
        epoch=loaded.epoch,
        version=loaded.version + 1,
        first_seq=failed.index,
        fields={"head": encode_head(head)},
        events=[body],
        indexes=execution_indexes(head),
        release=True,
    )
    await patiently(lambda: store.commit(commit))
    sink.publish(loaded.execution_id, failed.index, [body])
