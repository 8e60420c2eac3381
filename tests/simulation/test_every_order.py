"""Every order and every subset of outcomes, of every graph of up to four tasks (five by hand).

`EVERY_ORDER_TASKS=5 python -m pytest tests/simulation/test_every_order.py` takes the graphs of five
tasks, too: that takes its time.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.every_order import Explorer, Moves, graphs

#: With outcomes only; with all else that may happen, too.
TASKS_MAX = int(os.environ.get("EVERY_ORDER_TASKS", "4"))
ALL_MOVES_TASKS_MAX = TASKS_MAX - 2

ALL_MOVES = Moves(cancel=True, restarts=1, pairs=True, retries=1)


def test_there_are_as_many_graphs_as_there_are_known_to_be() -> None:
    assert [len(graphs(count)) for count in range(1, 5)] == [1, 2, 6, 31]


@pytest.mark.parametrize("count", range(1, TASKS_MAX + 1))
def test_every_order_of_outcomes_ends_with_all_rules_kept(count: int) -> None:
    for parents in graphs(count):
        explorer = Explorer(parents, Moves())
        explorer.run()
        assert explorer.ends == {"completed", "failed"}


@pytest.mark.parametrize("count", range(1, ALL_MOVES_TASKS_MAX + 1))
def test_so_does_every_order_with_cancels_retries_restarts_and_batches(count: int) -> None:
    for parents in graphs(count):
        explorer = Explorer(parents, ALL_MOVES)
        explorer.run()
        assert explorer.ends == {"completed", "failed", "cancelled"}
