"""The shape of workflows: order, ancestors, sinks and cycles, against plain definitions of each."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as some

from harmonia_actors.core.graph import Graph, find_cycle

few = settings(max_examples=40, deadline=None)


@some.composite
def acyclic(draw: some.DrawFn) -> list[list[int]]:
    count = draw(some.integers(1, 12))
    order = draw(some.permutations(range(count)))
    parents: list[list[int]] = [[] for _ in range(count)]
    for place, task in enumerate(order):
        if place:
            parents[task] = draw(some.lists(some.sampled_from(order[:place]), max_size=4))
    return parents


@some.composite
def any_shape(draw: some.DrawFn) -> list[list[int]]:
    count = draw(some.integers(1, 8))
    one = some.lists(some.integers(0, count - 1), max_size=3)
    return draw(some.lists(one, min_size=count, max_size=count))


def ancestors(parents: list[list[int]], task: int) -> set[int]:
    found: set[int] = set()
    left = list(parents[task])
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += parents[one]
    return found


@few
@given(acyclic())
def test_order_is_topological_and_complete(parents: list[list[int]]) -> None:
    order = Graph.build(parents).order()
    assert sorted(order) == list(range(len(parents)))
    place = {task: index for index, task in enumerate(order)}
    assert all(place[p] < place[task] for task, of in enumerate(parents) for p in of)


@few
@given(acyclic())
def test_ancestors_are_those_that_must_come_before(parents: list[list[int]]) -> None:
    graph = Graph.build(parents)
    for task in range(len(parents)):
        expected = ancestors(parents, task)
        assert {i for i in range(len(parents)) if graph.is_ancestor(i, task)} == expected


@few
@given(acyclic())
def test_children_mirror_parents_and_sinks_have_none(parents: list[list[int]]) -> None:
    graph = Graph.build(parents)
    pairs = {(p, task) for task, of in enumerate(graph.parents) for p in of}
    assert pairs == {(task, c) for task, of in enumerate(graph.children) for c in of}
    assert pairs == {(p, task) for task, of in enumerate(parents) for p in of}
    assert graph.sinks() == [t for t in range(len(graph)) if all(p != t for p, _ in pairs)]


@few
@given(any_shape())
def test_a_cycle_is_found_exactly_if_there_is_one(parents: list[list[int]]) -> None:
    cycle = find_cycle(parents)
    has_one = any(task in ancestors(parents, task) for task in range(len(parents)))
    assert (cycle is not None) == has_one
    if cycle is not None:
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1
        assert all(after in parents[before] for before, after in pairwise(cycle))


def test_among_free_tasks_the_order_of_definition_decides() -> None:
    assert Graph.build([[], [], [0], []]).order() == [0, 1, 2, 3]
    assert Graph.build([[3], [], [], []]).order() == [1, 2, 3, 0]
