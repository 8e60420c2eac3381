"""Whoever calls a task actor does not ask which of the two kinds it is."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from harmonia_actors.actors.task_actor import SharedTaskActor, TaskActor

CALLED = ("ready", "watch", "run", "settled", "stop", "take_back", "census", "end")


def parameters(actor: Any, method: str) -> list[str]:
    found = getattr(actor.__ray_metadata__.modified_class, method)
    return list(inspect.signature(found).parameters)


@pytest.mark.parametrize("method", CALLED)
def test_both_kinds_take_the_same_calls(method: str) -> None:
    assert parameters(TaskActor, method) == parameters(SharedTaskActor, method)
