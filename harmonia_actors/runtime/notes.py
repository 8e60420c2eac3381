"""Notes that others leave in an execution's inbox, and the stimuli that they stand for.

Whoever accepts a request writes the note, and a task actor that goes on with the next task writes
what came of the last one; the owner reads them. This module must not know where they are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from persistence.store import InboxEntry

__all__ = ["decode_note", "encode_note", "encode_outcome", "outcomes_in"]


def encode_note(kind: str, at_ms: int, **fields: str) -> bytes:
    """A note for the owner: `cancel`, or `checkpoint` with checkpoint_id and name."""
    return jsontext.encode({"kind": kind, "at_ms": at_ms, **fields})


def encode_outcome(started_ms: int, outcome: st.AttemptSucceeded) -> bytes:
    """The note of a task actor that an attempt, begun at `started_ms`, has succeeded."""
    output = outcome.output
    return jsontext.encode(
        {
            "kind": "outcome",
            "task": outcome.task,
            "attempt": outcome.attempt,
            "started_ms": started_ms,
            "at_ms": outcome.at_ms,
            "size": output.size,
            "inline": None if output.inline is None else output.inline.decode(),
            "url": output.url,
            "preview": output.preview,
        }
    )


def decode_note(body: bytes) -> Sequence[st.Stimulus]:
    """The stimuli that a note stands for, in order; none for one that this version cannot read."""
    try:
        raw = jsontext.decode(body)
        match raw["kind"]:
            case "cancel":
                return [st.CancelRequested(int(raw["at_ms"]))]
            case "checkpoint":
                name, checkpoint_id = str(raw["name"]), str(raw["checkpoint_id"])
                return [st.CheckpointTaken(int(raw["at_ms"]), checkpoint_id, name)]
            case "outcome":
                return _outcome(raw)
    except (ValueError, TypeError, KeyError):
        return []
    return []


def outcomes_in(entries: Iterable[InboxEntry]) -> dict[str, Sequence[st.AttemptStimulus]]:
    """What task actors have noted, by entry, in order."""
    found: dict[str, Sequence[st.AttemptStimulus]] = {}
    for entry in entries:
        stimuli = decode_note(entry.body)
        reports = [each for each in stimuli if isinstance(each, st.AttemptStimulus)]
        if reports:
            found[entry.entry_id] = reports
    return found


def _outcome(raw: Mapping[str, Any]) -> Sequence[st.AttemptStimulus]:
    task, attempt = int(raw["task"]), int(raw["attempt"])
    inline = None if raw["inline"] is None else str(raw["inline"]).encode()
    url = None if raw["url"] is None else str(raw["url"])
    output = st.Output(int(raw["size"]), inline, url, str(raw["preview"]))
    return [
        st.AttemptStarted(task, attempt, int(raw["started_ms"])),
        st.AttemptSucceeded(task, attempt, int(raw["at_ms"]), output),
    ]
