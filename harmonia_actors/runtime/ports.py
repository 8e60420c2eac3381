"""What the runtime needs from outside, as protocols: a clock, attempts to be run, ears to tell.

The Ray implementations are in `harmonia_actors.actors`; tests and the simulation bring their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from harmonia_actors.core.commands import StopReason
from harmonia_actors.core.resources import ResourceRequest
from harmonia_actors.core.stimuli import Stimulus
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder, QueueKey, Report
from harmonia_actors.runtime.silence import Silent

__all__ = [
    "Attempts",
    "Clock",
    "EventSink",
    "Lease",
    "LeaseSource",
    "Nodes",
    "Reports",
    "TaskActorDied",
    "TaskActorPort",
    "TaskActorUnreachable",
    "Unplaceable",
]


_L = TypeVar("_L", bound="Lease")


class Clock(Protocol):
    """The time of day."""

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        ...

    def steady(self) -> Clock:
        """One that goes on from what this one says now, and that nobody sets."""
        ...


class Attempts(Protocol):
    """Runs attempts somewhere. Each start and each stop is answered by a stimulus in the end."""

    def start(self, orders: Sequence[AttemptOrder]) -> None:
        """Run these attempts as soon as their resources allow."""
        ...

    def stop(self, attempt: AttemptId, reason: StopReason) -> None:
        """Stop an attempt or take it back; an unknown one is answered as stopped."""
        ...

    def forget(self, execution_id: str) -> None:
        """The execution has another owner now: drop what has not been handed out."""
        ...


class EventSink(Protocol):
    """Tells subscribers. It may lose what it is told: the log in the store is the truth."""

    def publish(self, execution_id: str, first_seq: int, bodies: Sequence[bytes]) -> None:
        """Committed events of one execution, in order, without a gap."""
        ...


class TaskActorDied(Exception):
    """The task actor's process is gone, with all that ran in it."""


class TaskActorUnreachable(TaskActorDied, Silent):
    """A call has failed, and that is all. Whoever cannot wait for an answer takes it for dead."""


class Unplaceable(Exception):
    """No task actor can ever serve these attempts; the message says why."""


class TaskActorPort(Protocol):
    """One task actor, as the dispatcher sees it. Every method may raise TaskActorDied."""

    @property
    def name(self) -> str:
        """The actor's name; unique for ever."""
        ...

    @property
    def node_id(self) -> str:
        """The node it runs on."""
        ...

    async def run(self, orders: Sequence[AttemptOrder]) -> tuple[Sequence[Report], float]:
        """Run a batch.

        Returns, when all have ended, what was not reported before, and the seconds it took.
        """
        ...

    async def settled(self, attempts: Sequence[AttemptId]) -> Sequence[Report]:
        """Wait until these attempts, given by another owner, have ended; their outcomes."""
        ...

    async def stop(self, attempt: AttemptId, *, only_waiting: bool) -> bool:
        """Tell an attempt to stop. True if it is known there and had not started: it never will."""
        ...

    async def take_back(self) -> Sequence[AttemptId]:
        """Give back all attempts that have not started; they will not start here."""
        ...

    async def kill(self) -> None:
        """End the actor's process at once, with the child processes of its actions."""
        ...


class Lease(Protocol):
    """The right to use a task actor, alone unless the key is shared."""

    @property
    def actor(self) -> TaskActorPort: ...


class LeaseSource(Protocol[_L]):
    """Hands out task actors."""

    async def acquire(self, key: QueueKey, want: int) -> Sequence[_L]:
        """Wait until at least one actor can be had, return up to `want`.

        Raises Unplaceable if there can never be one. Whoever is cancelled while he waits holds
        nothing and wants nothing any more.
        """
        ...

    def release(self, leases: Sequence[_L]) -> None:
        """Give actors back."""
        ...

    def lost(self, lease: _L) -> None:
        """The actor has died."""
        ...


class Nodes(Protocol):
    """Chooses the one node on which all tasks of an execution run that use files.

    Nodes are named by their place, which outlives a restart of the cluster
    (`Capacity.place_of`).
    """

    def choose(self, execution_id: str, request: ResourceRequest) -> str | None:
        """A node that has what each of those tasks asks for; "" if any will do.

        None if there is no such node, but one may come: then it has to be waited for.
        """
        ...

    def now(self, place: str) -> str:
        """The id of the node that is at a place now; "" if any will do."""
        ...

    def is_gone(self, place: str) -> bool:
        """Whether no node is there any more, as far as is known."""
        ...

    async def wait_for(self, execution_id: str, request: ResourceRequest) -> str:
        """Wait for such a node. While somebody waits, one is known to be wanted."""
        ...


class Reports(Protocol):
    """Where stimuli about attempts go."""

    def __call__(self, execution_id: str, stimuli: Sequence[Stimulus]) -> None: ...
