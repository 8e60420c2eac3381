"""Whether the outputs that are stored are those that the log tells of. Part of the auditor."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from harmonia_actors.core.events import output_descriptor
from harmonia_actors.core.records import OutputReference

__all__ = ["ToldOutput", "digest_of", "reference_problem", "told_output"]

#: The last member of an event's data; no text in front of it can contain these quotes.
_OUTPUT = b',"output":'


def digest_of(body: bytes) -> bytes:
    """What stands for an output, which may be too large to be kept."""
    return hashlib.sha256(body).digest()


@dataclass(frozen=True, slots=True)
class ToldOutput:
    """What an event has told of an output: its JSON, or what stands for one in a blob."""

    size: int
    digest: bytes
    #: The object that stands for it, if it can be one.
    descriptor: dict[str, Any] | None


def told_output(body: bytes, shown: Any) -> ToldOutput:
    """The output in the body of an event; `shown` is what it was read as."""
    _, _, rest = body.partition(_OUTPUT)
    text = rest[:-2]
    is_descriptor = isinstance(shown, dict) and shown.keys() == {"$ref", "size", "preview"}
    return ToldOutput(len(text), digest_of(text), shown if is_descriptor else None)


def reference_problem(
    reference: OutputReference, told: ToldOutput, execution_id: str, task: str | None, key: str
) -> str:
    """What a stored reference says otherwise than the log; empty if nothing.

    The log does not tell where blobs are kept, but their names are known.
    """
    if (reference.execution_id, reference.key) != (execution_id, key):
        return f"its output is kept as '{reference.key}' under '{reference.execution_id}'"
    if reference.url is None:
        if (reference.size, reference.preview) != (told.size, ""):
            return f"its output is stored with {reference.size} bytes, but told with {told.size}"
        return ""
    if told.descriptor != output_descriptor(execution_id, task, reference.size, reference.preview):
        return "its output is stored as a blob that is not the one told of"
    if not reference.url.endswith(f"{execution_id}/{key.replace(':', '-')}.json"):
        return f"its output is kept in '{reference.url[:200]}', which is not its blob"
    return ""
