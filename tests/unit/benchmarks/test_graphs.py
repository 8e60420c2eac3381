"""The graphs of the benchmarks and what is known of them beforehand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.actions import perform
from benchmarks.graphs import (
    Graph,
    Task,
    chain,
    critical_path,
    fan,
    levels,
    lower_bound,
    order_problems,
    single,
    stencil,
)
from benchmarks.jobs import Job, OfferLoad, RunGraph, RunMany, job_of, to_json
from benchmarks.workloads.w5_recorded import recorded

DIAMOND: Graph = (
    Task("a", "sleep", 1),
    Task("b", "sleep", 2, ("a",)),
    Task("c", "sleep", 5, ("a",)),
    Task("d", "sleep", 1, ("b", "c")),
)
SECONDS = {task.name: task.amount for task in DIAMOND}


def test_the_bound_is_the_longest_path_or_the_work_by_the_slots() -> None:
    assert critical_path(DIAMOND, SECONDS) == 7
    assert lower_bound(DIAMOND, SECONDS) == 7
    assert lower_bound(DIAMOND, SECONDS, slots=2) == 7
    assert lower_bound(DIAMOND, SECONDS, slots=1) == 9


def test_levels_come_after_all_that_they_need() -> None:
    assert [[task.name for task in level] for level in levels(DIAMOND)] == [
        ["a"],
        ["b", "c"],
        ["d"],
    ]


@pytest.mark.parametrize(
    "graph",
    [
        single("noop"),
        chain(7, "count", takes=True),
        fan(5, payload_bytes=9),
        stencil(3, 4, "work", 1),
    ],
)
def test_each_task_comes_after_those_it_depends_on(graph: Graph) -> None:
    known: set[str] = set()
    for task in graph:
        assert set(task.after) <= known
        known.add(task.name)
    assert len(known) == len(graph)


def test_a_stencil_has_its_neighbours() -> None:
    (task,) = (task for task in stencil(3, 2, "work", 1) if task.name == "s1p1")
    assert task.after == ("s0p0", "s0p1", "s0p2")


@pytest.mark.parametrize(
    "job",
    [
        RunGraph(chain(3, "count", takes=True), times=False),
        RunMany(single("sleep", 0.5), 4),
        OfferLoad(fan(2), 25, 3.0, accepted_only=True),
    ],
)
def test_a_job_is_the_same_on_the_other_side(job: Job) -> None:
    assert job_of(json.loads(json.dumps(to_json(job)))) == job


def test_order_is_checked_by_the_times_of_the_tasks() -> None:
    needed = {"b": ["a"], "c": ["a"]}
    times = {"a": (0, 10), "b": (10, 20), "c": (9, 30)}
    assert order_problems(needed, times) == ["c began before a had ended"]


def test_the_actions_make_what_the_workloads_check() -> None:
    value = None
    for task in chain(5, "count", takes=True):
        value = perform(task.action, task.amount, [value] if task.takes else [])["value"]
    assert value == 5
    payload = perform("payload", 100, [])["value"]
    assert perform("collect", 0, [payload, payload])["value"] == 200
    assert perform("fibonacci", 10, [])["value"] == 55


def test_a_recorded_workflow_is_put_in_order(tmp_path: Path) -> None:

    path = tmp_path / "recorded.json"
    specified = [
        {"id": "late.one", "parents": ["early"], "inputFiles": ["f"], "outputFiles": []},
        {"id": "early", "parents": [], "inputFiles": [], "outputFiles": ["f"]},
    ]
    ran = [{"id": "late.one", "runtimeInSeconds": 2}, {"id": "early", "runtimeInSeconds": 3}]
    workflow = {"specification": {"tasks": specified}, "execution": {"tasks": ran}}
    document = {"name": "recorded", "schemaVersion": "1.5", "workflow": workflow}
    path.write_text(json.dumps(document))
    graph = recorded(path)
    assert [task.name for task in graph] == ["early", "late.one"]
    assert critical_path(graph, {task.name: task.amount for task in graph}) == 5
