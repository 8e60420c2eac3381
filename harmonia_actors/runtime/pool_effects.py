"""What the pool of task actors wants done: decided by the slot pool, performed by its host."""

from __future__ import annotations

from dataclasses import dataclass

from harmonia_actors.runtime.orders import QueueKey

__all__ = ["CreateActor", "Effect", "Grant", "KillActor", "Recall", "Refuse"]


@dataclass(frozen=True, slots=True)
class CreateActor:
    """Start a task actor under this name."""

    name: str
    key: QueueKey


@dataclass(frozen=True, slots=True)
class KillActor:
    """End a task actor."""

    name: str


@dataclass(frozen=True, slots=True)
class Grant:
    """Answer a request with these actors."""

    ticket: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a request: there can never be such an actor."""

    ticket: int
    reason: str


@dataclass(frozen=True, slots=True)
class Recall:
    """Ask a holder to give actors of a class back when they are idle."""

    holder: str
    key: QueueKey
    count: int


Effect = CreateActor | KillActor | Grant | Refuse | Recall
