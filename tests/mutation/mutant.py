"""What a mutant is: a guard, an edit that switches it off, and the tests that must notice."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MEMORY", "REDIS", "Edit", "Mutant", "mutant"]

#: The contract's tests, through both stores.
MEMORY = "tests/contract/test_memory_store.py::TestMemoryStore"
REDIS = "tests/contract/test_redis_store.py::TestRedisStore"


@dataclass(frozen=True, slots=True)
class Edit:
    """A piece of text that is in its file exactly once, and what is put in its place."""

    path: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One guard, switched off."""

    name: str
    #: What it says, which does not hold any more.
    rule: str
    edits: tuple[Edit, ...]
    #: Node ids of pytest without parameters: each must fail, be it with some parameters only.
    tests: tuple[str, ...]


def mutant(name: str, rule: str, path: str, old: str, new: str, *tests: str) -> Mutant:
    """One that takes one edit."""
    return Mutant(name, rule, (Edit(path, old, new),), tests)
