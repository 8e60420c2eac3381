"""A call that stops an attempt may overtake the one that brings it, or the end of its process."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.runtime.test_task_host import Bench, order, shown


def test_a_stop_that_overtakes_its_batch_is_followed(bench: Bench) -> None:
    host = bench.host()
    assert host.stop(order(1).id, only_waiting=False)
    run = bench.start(host, *(order(i) for i in range(3)))
    reports, _ = run.result(10)
    assert [shown(report) for report in reports if "Succeeded" in shown(report)] == [
        "Succeeded 0",
        "Succeeded 2",
    ]
    assert [name for name, _ in bench.gates.began] == ["exec-1/t0", "exec-1/t2"]
    assert not host.stop(order(0).id, only_waiting=False), "it has been here"
    again = bench.start(host, order(1))
    assert "Succeeded 1" in [shown(report) for report in again.result(10)[0]]


def test_a_stop_that_overtakes_what_comes_once_more_is_followed(bench: Bench) -> None:
    host = bench.host()
    run = bench.start(host, order(0, "hold"), order(1))
    bench.wait(bench.began("t0"))
    assert host.take_back() == [order(1).id]
    bench.gates.open("t0")
    run.result(10)
    assert host.stop(order(1).id, only_waiting=False)
    reports, _ = bench.start(host, order(1)).result(10)
    assert reports == []


def test_a_stop_of_a_follower_that_overtakes_it_ends_the_stretch(bench: Bench) -> None:
    host = bench.host()
    assert host.stop(order(1).id, only_waiting=True)
    followers = (order(1), order(2))
    reports, _ = bench.start(host, replace(order(0), then=followers)).result(10)
    assert [shown(report) for report in reports] == ["Returned 2", "Started 0", "Succeeded 0"]


def test_what_a_former_owner_stopped_early_is_not_held_against_the_next(bench: Bench) -> None:
    host = bench.host()
    assert host.stop(order(1).id, only_waiting=True)
    assert host.census("exec-1", 2, "heir") == ([], [])
    reports, _ = bench.start(host, order(1, epoch=2)).result(10)
    assert "Succeeded 1" in [shown(report) for report in reports]


def test_what_was_told_to_stop_before_its_process_ends_is_not_lost(bench: Bench) -> None:
    host = bench.host()
    run = bench.start(host, order(0, "hold"))
    bench.wait(bench.began("t0"))
    host.stop(order(0).id, only_waiting=False)
    host.cancel_all()
    reports, _ = run.result(10)
    assert [shown(report) for report in reports] == ["Started 0", "Stopped 0"]
