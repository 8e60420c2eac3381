"""What task actors are made of. Only a process that is one is to load it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import psutil

from harmonia_actors.actors import parts
from harmonia_actors.actors.names import find_actor
from harmonia_actors.actors.outcomes import OutcomeKeeper
from harmonia_actors.actors.output_limits import ordering_limits
from harmonia_actors.actors.schema_parts import make_schema_checks
from harmonia_actors.actors.stale import StaleTeller
from harmonia_actors.actors.task_limits import task_host_limits
from harmonia_actors.runtime.attempt_runner import AttemptRunner
from harmonia_actors.runtime.clock import SystemClock
from harmonia_actors.runtime.orders import Report
from harmonia_actors.runtime.shared_task_host import SharedTaskHost
from harmonia_actors.runtime.task_host import TaskHost
from harmonia_actors.settings import Settings

__all__ = ["end_process", "make_runner", "make_shared_task_host", "make_task_host"]


class _Mailbox:
    """Tells reports to execution actors by name; handles are looked up once."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._handles: dict[str, Any] = {}

    def send(self, owner: str, reports: Sequence[Report]) -> None:
        handle = self._handles.get(owner)
        if handle is None:
            handle = self._handles[owner] = find_actor(owner, self._namespace)
            while len(self._handles) > 1_000:
                self._handles.pop(next(iter(self._handles)))
        handle.reported.remote(list(reports))


def make_runner(settings: Settings, node_id: str) -> AttemptRunner:
    """What runs an attempt on a node."""
    return AttemptRunner(
        registry=parts.make_registry(settings),
        blobs=parts.make_blobs(settings),
        clock=SystemClock(),
        limits=ordering_limits(settings),
        workspace_of=parts.make_files(settings, node_id).workspace,
        schemas=make_schema_checks(settings),
    )


def make_task_host(runner: AttemptRunner, settings: Settings) -> TaskHost:
    """The host of an actor for `def` actions."""
    # Loaded now, before anybody waits for it.
    from harmonia_actors.actors.store_parts import connect_store

    keep = OutcomeKeeper(lambda: connect_store(settings), settings.stretch_store_ms)
    return TaskHost(
        runner,
        task_host_limits(settings),
        _Mailbox(settings.namespace).send,
        keep=keep,
        note_stale=StaleTeller(settings.namespace),
    )


def make_shared_task_host(runner: AttemptRunner, settings: Settings) -> SharedTaskHost:
    """The host of an actor for `async` actions; to be made where a loop runs."""
    return SharedTaskHost(
        runner,
        task_host_limits(settings),
        _Mailbox(settings.namespace).send,
        note_stale=StaleTeller(settings.namespace),
    )


def end_process() -> None:
    """End this process and all children of it, at once: an action did not stop when told."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    os._exit(1)
