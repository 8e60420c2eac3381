"""What every store refuses before it touches anything: arguments that no store could keep.

The same for all implementations, so that a test against one is a test against all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from persistence.store import Commit, IndexEntry, NewExecution, OwnCheckpoint

__all__ = [
    "check_bodies",
    "check_commit",
    "check_count",
    "check_indexes",
    "check_name",
    "check_new",
    "check_own",
    "check_put",
    "check_text",
    "check_tokens",
]

#: Largest whole number that a double holds exactly: scores and versions stay below it.
EXACT_MAX = 2**53


def check_text(*texts: str) -> None:
    """Raise ValueError for text that has no UTF-8 form (a lone surrogate)."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{text!r} cannot be stored: it is not valid Unicode") from error


def check_name(field: str, value: str) -> None:
    """Raise ValueError if a name that must say something is empty or not valid Unicode."""
    if not value:
        raise ValueError(f"{field}: must not be empty")
    check_text(value)


def check_count(field: str, value: int, least: int = 1) -> None:
    """Raise ValueError for a count below `least` or beyond what a double holds exactly."""
    if not least <= value < EXACT_MAX:
        raise ValueError(f"{field}: {value} is not a whole number from {least} to 2^53 - 1")


def check_bodies(field: str, bodies: Iterable[bytes]) -> None:
    """Raise TypeError for a body that is not bytes: stores keep bytes and nothing else."""
    for body in bodies:
        if not isinstance(body, bytes):
            raise TypeError(f"{field}: bodies are bytes, not {type(body).__name__}")


def check_indexes(indexes: Sequence[IndexEntry]) -> None:
    """Raise ValueError for a score that cannot be ordered, or a list that is named twice."""
    named = set()
    for entry in indexes:
        if not math.isfinite(entry.score):
            raise ValueError(f"indexes: the score {entry.score} in {entry.index!r} is not finite")
        if entry.index in named:
            raise ValueError(f"indexes: {entry.index!r} is named twice; one entry per list")
        named.add(entry.index)
        check_text(entry.index, entry.text)


def check_new(new: NewExecution) -> None:
    """Check everything that a create is given."""
    check_name("execution_id", new.execution_id)
    check_name("definition", new.definition)
    _check_mapping("fields", new.fields)
    _check_mapping("constants", new.constants)
    for name in new.constants.keys() & new.fields.keys():
        raise ValueError(f"constants: {name!r} is the name of one of the fields, too")
    _check_mapping("rows", new.rows)
    check_bodies("events", new.events)
    check_indexes(new.indexes)
    if new.sole and new.sole not in {entry.index for entry in new.indexes}:
        raise ValueError(f"sole: {new.sole!r} is none of the lists that it is entered in")
    _check_holds(new)


def check_put(
    kind: str,
    document_id: str,
    body: bytes,
    indexes: Sequence[IndexEntry],
    definition: str | None,
    expected_version: int | None,
) -> None:
    """Check everything that a put of a document is given."""
    check_name("kind", kind)
    check_name("document_id", document_id)
    check_bodies("body", (body,))
    check_indexes(indexes)
    if definition is not None:
        check_name("definition", definition)
    if expected_version is not None:
        check_count("expected_version", expected_version, 0)


def check_commit(commit: Commit) -> None:
    """Check everything that a commit is given."""
    check_name("execution_id", commit.execution_id)
    check_count("epoch", commit.epoch, 0)
    check_count("version", commit.version)
    check_count("first_seq", commit.first_seq, 0)
    _check_mapping("fields", commit.fields)
    _check_mapping("rows", commit.rows)
    _check_mapping("outputs", commit.outputs)
    check_bodies("events", commit.events)
    check_text(*commit.inbox_done)
    check_indexes(commit.indexes or ())


def check_own(checkpoint: OwnCheckpoint) -> None:
    """Check everything that an owner's checkpoint is given."""
    check_name("execution_id", checkpoint.execution_id)
    check_put(
        "checkpoint", checkpoint.checkpoint_id, checkpoint.body, checkpoint.indexes, None, None
    )
    check_count("epoch", checkpoint.epoch, 0)
    check_count("number", checkpoint.number, 0)
    check_count("kept", checkpoint.kept)


def check_tokens(tokens: int, rate_per_s: float, burst: int) -> None:
    """Check the arguments of a rate limit."""
    check_count("tokens", tokens)
    check_count("burst", burst)
    if not (math.isfinite(rate_per_s) and rate_per_s > 0):
        raise ValueError(f"rate_per_s: {rate_per_s} is not a positive number")


def _check_holds(new: NewExecution) -> None:
    """Raise ValueError for an id that is held twice, or by itself: it would never be let go."""
    for held in new.holds:
        check_name("holds", held)
    if len({new.execution_id, *new.holds}) != len(new.holds) + 1:
        raise ValueError(f"holds: {list(new.holds)} names an id twice, or the execution itself")


def _check_mapping(field: str, mapping: Mapping[str, bytes]) -> None:
    # One pass over all the names together: the common case is that nothing is wrong.
    check_text("".join(mapping))
    check_bodies(field, mapping.values())
