"""Notes that others leave in an execution's inbox, and the stimuli that they stand for.

Whoever accepts a request writes the note, the owner reads it. This module must not know the store.
"""

from __future__ import annotations

from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st

__all__ = ["decode_note", "encode_note"]


def encode_note(kind: str, at_ms: int, **fields: str) -> bytes:
    """A note for the owner: `cancel`, or `checkpoint` with checkpoint_id and name."""
    return jsontext.encode({"kind": kind, "at_ms": at_ms, **fields})


def decode_note(body: bytes) -> st.Stimulus | None:
    """The stimulus that a note stands for; None for one that this version cannot read."""
    try:
        raw = jsontext.decode(body)
        match raw["kind"]:
            case "cancel":
                return st.CancelRequested(int(raw["at_ms"]))
            case "checkpoint":
                name, checkpoint_id = str(raw["name"]), str(raw["checkpoint_id"])
                return st.CheckpointTaken(int(raw["at_ms"]), checkpoint_id, name)
    except (ValueError, TypeError, KeyError):
        return None
    return None
