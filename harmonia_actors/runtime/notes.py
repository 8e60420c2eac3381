"""Notes that others leave in an execution's inbox, and the stimuli that they stand for.

Whoever accepts a request writes the note, and a task actor that goes on with the next task writes
what came of the last one; the owner reads them. This module must not know where they are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.log_lines import LogLine
from persistence.store import InboxEntry

__all__ = ["decode_note", "encode_note", "encode_outcome", "outcomes_in"]


def encode_note(kind: str, at_ms: int, **fields: str) -> bytes:
    """A note for the owner: `cancel`, or `checkpoint` with checkpoint_id and name."""
    return jsontext.encode({"kind": kind, "at_ms": at_ms, **fields})


def encode_outcome(reports: Sequence[st.AttemptStimulus]) -> bytes:
    """The note of a task actor that an attempt has succeeded, with all that it has to tell of it.

    The first report is its start, the last one its outcome; lines and progress are between them.
    """
    first = reports[0]
    told = [_encoded(report) for report in reports]
    return jsontext.encode(
        {"kind": "outcome", "task": first.task, "attempt": first.attempt, "reports": told}
    )


def _encoded(report: st.AttemptStimulus) -> dict[str, Any]:
    match report:
        case st.AttemptStarted(at_ms=at_ms):
            return {"is": "started", "at_ms": at_ms}
        case st.LinesReported(at_ms=at_ms, first=first, lines=lines, last=last):
            written = [[line.stream, line.text, line.at_ms, line.level] for line in lines]
            return {"is": "lines", "at_ms": at_ms, "first": first, "lines": written, "last": last}
        case st.ProgressReported(at_ms=at_ms, fraction=fraction, message=message):
            return {"is": "progress", "at_ms": at_ms, "fraction": fraction, "message": message}
        case st.AttemptSucceeded(at_ms=at_ms, output=output):
            inline = None if output.inline is None else output.inline.decode()
            kept = {"size": output.size, "url": output.url, "preview": output.preview}
            return {"is": "succeeded", "at_ms": at_ms, "inline": inline, **kept}
    raise TypeError(f"{type(report).__name__} is no part of a success")


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
    return [_decoded(task, attempt, told) for told in raw["reports"]]


def _decoded(task: int, attempt: int, told: Mapping[str, Any]) -> st.AttemptStimulus:
    at_ms = int(told["at_ms"])
    match told["is"]:
        case "started":
            return st.AttemptStarted(task, attempt, at_ms)
        case "lines":
            lines = tuple(
                LogLine(str(stream), str(text), int(line_ms), str(level))
                for stream, text, line_ms, level in told["lines"]
            )
            return st.LinesReported(
                task, attempt, at_ms, int(told["first"]), lines, last=bool(told["last"])
            )
        case "progress":
            fraction, message = float(told["fraction"]), str(told["message"])
            return st.ProgressReported(task, attempt, at_ms, fraction, message)
        case "succeeded":
            inline = None if told["inline"] is None else str(told["inline"]).encode()
            url = None if told["url"] is None else str(told["url"])
            output = st.Output(int(told["size"]), inline, url, str(told["preview"]))
            return st.AttemptSucceeded(task, attempt, at_ms, output)
    raise ValueError(f"an outcome has a part {told['is']!r}")
