"""What Ray itself calls again after a call that has failed: what may be told twice, and no more."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from harmonia_actors.actors.broadcaster import Broadcaster
from harmonia_actors.actors.execution_actor import ExecutionActor
from harmonia_actors.actors.pool import TaskPool
from harmonia_actors.actors.supervisor import Supervisor
from harmonia_actors.actors.task_actor import SharedTaskActor, TaskActor


def called_again(actor: Any) -> dict[str, int]:
    """The methods of an actor's class that Ray calls again, and how often."""
    methods = inspect.getmembers(actor.__ray_metadata__.modified_class, inspect.isfunction)
    return {
        name: method.__ray_max_task_retries__
        for name, method in methods
        if hasattr(method, "__ray_max_task_retries__")
    }


def test_reports_are_told_again_as_long_as_their_owner_lives() -> None:
    assert called_again(ExecutionActor) == {"reported": -1}


@pytest.mark.parametrize("actor", [TaskActor, SharedTaskActor, TaskPool, Supervisor, Broadcaster])
def test_nothing_else_is(actor: Any) -> None:
    """An attempt would run twice under one number; all others are asked again by who calls."""
    assert called_again(actor) == {}
