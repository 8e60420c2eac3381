"""The Ray process: which of Ray's own processes it does without."""

from __future__ import annotations

import inspect

import pytest
from ray._private.node import Node

from harmonia_serve.cli.installation.ray_process import UNUSED_STARTS


@pytest.mark.parametrize("start", UNUSED_STARTS)
def test_what_is_left_out_is_what_ray_would_start_on_a_head(start: str) -> None:
    """Under another name it would be started after all, and nobody would notice."""
    starting = (Node.start_head_processes, Node.start_ray_processes)
    assert any(f"self.{start}(" in inspect.getsource(part) for part in starting)


def test_nothing_that_is_left_out_is_asked_for_its_result() -> None:
    """A start that does nothing has none to give."""
    starting = (Node.start_head_processes, Node.start_ray_processes)
    lines = [line.strip() for part in starting for line in inspect.getsource(part).splitlines()]
    calls = [line for line in lines for start in UNUSED_STARTS if f"self.{start}(" in line]
    assert calls
    assert all(line.startswith("self.") for line in calls)
