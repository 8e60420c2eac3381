"""What a task actor is inside: batches, reports in time, refusals, the census, and its bounds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.components.contract import ActionError, Component, TaskContext
from harmonia_actors.components.registry import Registry
from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from harmonia_actors.runtime.attempt_context import LiveAttempt
from harmonia_actors.runtime.attempt_runner import AttemptRunner
from harmonia_actors.runtime.clock import SystemClock
from harmonia_actors.runtime.files import WorkspaceFiles
from harmonia_actors.runtime.ordering import OrderingLimits
from harmonia_actors.runtime.orders import AttemptOrder, Report
from harmonia_actors.runtime.task_host import HeldOutcomes, TaskHost, TaskHostLimits
from persistence.blobs import FileBlobs
from persistence.errors import Missing
from tests.support.gates import Gates
from tests.support.scripted_actors import order as plain_order

SLOW = TaskHostLimits(start_report_ms=60_000, outcome_report_ms=60_000, progress_interval_ms=0)


class Bench:
    """A task host in its thread, and what it told to whom."""

    def __init__(self, directory: Path) -> None:
        self.gates = Gates()
        self.component = Component("bench")
        self.directory = directory
        self.sent: list[tuple[str, Report]] = []
        self.changed = threading.Condition()
        self.threads = ThreadPoolExecutor(4)
        self.hosts: list[TaskHost] = []
        self.stale: list[tuple[Any, ...]] = []

    def close(self) -> None:
        self.threads.shutdown()
        for host in self.hosts:
            host.close()

    def runner(self, **limits: Any) -> AttemptRunner:
        return AttemptRunner(
            Registry([self.component, self.gates.component]),
            FileBlobs(self.directory / "blobs"),
            SystemClock(),
            OrderingLimits(**limits),
            WorkspaceFiles(self.directory / "workspaces").workspace,
        )

    def host(self, limits: TaskHostLimits = SLOW) -> TaskHost:
        note = lambda *what: self.stale.append(what)  # noqa: E731
        self.hosts.append(TaskHost(self.runner(), limits, self.send, note_stale=note))
        return self.hosts[-1]

    def send(self, owner: str, reports: Sequence[Report]) -> None:
        with self.changed:
            self.sent += [(owner, report) for report in reports]
            self.changed.notify_all()

    def wait(self, condition: Callable[[], object]) -> None:
        """Until something holds about what was sent or what began."""
        with self.changed:
            for _ in range(2_000):
                if condition():
                    return
                self.changed.wait(0.01)
        raise AssertionError("it did not come")

    def began(self, *names: str) -> Callable[[], bool]:
        return lambda: {f"exec-1/{name}" for name in names} <= {n for n, _ in self.gates.began}

    def start(self, host: TaskHost, *orders: AttemptOrder) -> Future[tuple[list[Report], float]]:
        return self.threads.submit(host.run, "me", orders)

    def told(self) -> list[tuple[str, str]]:
        return [(owner, shown(report)) for owner, report in self.sent]


def shown(report: Report) -> str:
    """As `Started 1`: what happened to which task."""
    kind = type(report.stimulus).__name__.removeprefix("Attempt")
    return f"{kind} {report.stimulus.task}"


def order(task: int, action: str = "echo", *, epoch: int = 1, value: Any = None) -> AttemptOrder:
    body = jsontext.encode({} if action == "crash" else {"value": value})
    made = plain_order(task)
    return replace(made, component="gates", action=action, input=body, epoch=epoch)


# One after the other -----------------------------------------------------------------------------


def test_a_batch_runs_in_order_and_tells_all_at_its_end(bench: Bench) -> None:
    reports, seconds = bench.start(bench.host(), *(order(i, value=i) for i in range(3))).result(10)
    assert [shown(report) for report in reports] == [
        "Started 0",
        "Succeeded 0",
        "Started 1",
        "Succeeded 1",
        "Started 2",
        "Succeeded 2",
    ]
    assert bench.sent == []
    assert seconds > 0
    assert [name for name, _ in bench.gates.began] == ["exec-1/t0", "exec-1/t1", "exec-1/t2"]


def test_the_start_of_a_long_attempt_is_told_while_it_runs(bench: Bench) -> None:
    host = bench.host(TaskHostLimits(start_report_ms=1))
    run = bench.start(host, order(0), order(1, "hold"))
    bench.wait(lambda: ("me", "Started 1") in bench.told())
    assert ("me", "Succeeded 0") in bench.told()
    bench.gates.open("t1")
    reports, _ = run.result(10)
    assert shown(reports[-1]) == "Succeeded 1"


def test_what_waits_can_be_taken_back_or_stopped_but_not_what_runs(bench: Bench) -> None:
    host = bench.host()
    run = bench.start(host, *(order(i, "hold") for i in range(4)))
    bench.wait(bench.began("t0"))
    assert host.stop(("exec-1", 2, 1), only_waiting=True)
    assert not host.stop(("exec-1", 0, 1), only_waiting=True)
    assert host.take_back() == [("exec-1", 1, 1), ("exec-1", 3, 1)]
    bench.gates.open("t0")
    reports, _ = run.result(10)
    assert [shown(report) for report in reports] == ["Started 0", "Succeeded 0"]


def test_who_did_not_hear_what_was_stopped_or_taken_back_hears_it_again(bench: Bench) -> None:
    host = bench.host()
    run = bench.start(host, *(order(i, "hold") for i in range(3)))
    bench.wait(bench.began("t0"))
    assert host.stop(("exec-1", 2, 1), only_waiting=False)
    assert host.take_back() == [("exec-1", 1, 1)]
    assert host.stop(("exec-1", 2, 1), only_waiting=False)
    assert host.take_back() == [("exec-1", 1, 1)]
    bench.gates.open("t0")
    run.result(10)
    again = bench.start(host, order(1, "hold"))
    bench.wait(bench.began("t1"))
    assert host.take_back() == []
    assert not host.stop(("exec-1", 1, 1), only_waiting=True)
    bench.gates.open("t1")
    again.result(10)


def test_what_runs_is_told_to_stop_and_says_so(bench: Bench) -> None:
    host = bench.host()
    run = bench.start(host, order(0, "hold"))
    bench.wait(bench.began("t0"))
    assert not host.stop(("exec-1", 0, 1), only_waiting=False)
    reports, _ = run.result(10)
    assert [shown(report) for report in reports] == ["Started 0", "Stopped 0"]


def test_before_its_end_a_process_stops_what_runs_and_drops_what_waits(bench: Bench) -> None:
    host = bench.host()
    run = bench.start(host, order(0, "hold"), order(1, "hold"))
    bench.wait(bench.began("t0"))
    host.cancel_all()
    reports, _ = run.result(10)
    assert [shown(report) for report in reports] == ["Started 0", "Lost 0"]


def test_orders_of_an_owner_that_was_superseded_are_refused(bench: Bench) -> None:
    host = bench.host()
    host.census("exec-1", 5, "heir")
    reports, _ = bench.start(host, order(0, epoch=4), order(1, epoch=5)).result(10)
    assert {r.stimulus.task for r in reports} == {1}
    assert [name for name, _ in bench.gates.began] == ["exec-1/t1"]
    assert bench.stale == [("orders_refused", 1)]


def test_the_census_tells_what_runs_and_what_has_ended(bench: Bench) -> None:
    host = bench.host()
    run = bench.start(host, order(0), order(1, "hold"), order(2, "hold"))
    bench.wait(bench.began("t1"))
    running, ended = host.census("exec-1", 2, "heir")
    assert running == [("exec-1", 1, 1)]
    assert "Succeeded 0" in [shown(report) for report in ended]
    assert host.census("exec-2", 2, "heir") == ([], [])
    assert host.census("exec-1", 1, "late") == ([], []), "an epoch that is over"
    bench.gates.open("t1")
    run.result(10)
    assert ("heir", "Succeeded 1") in bench.told(), "the successor hears of the end"
    assert bench.gates.began == [("exec-1/t0", 1), ("exec-1/t1", 1)], "what waited was dropped"


def test_a_census_that_finds_nothing_leaves_nothing(bench: Bench) -> None:
    host = bench.host()
    host.census("exec-1", 2, "heir")
    reports, _ = bench.start(host, order(0, epoch=2)).result(10)
    assert [shown(report) for report in reports] == ["Started 0", "Succeeded 0"]
    assert bench.sent == [], "it was told a second time"


def test_an_outcome_can_be_asked_for_again(bench: Bench) -> None:
    host = bench.host()
    bench.start(host, order(0), order(1)).result(10)
    found = host.settled([("exec-1", 1, 1), ("exec-9", 1, 1)])
    assert "Succeeded 1" in [shown(report) for report in found]
    assert "Succeeded 0" not in [shown(report) for report in found]


def test_an_outcome_that_is_asked_for_comes_with_its_last_progress(bench: Bench) -> None:
    @bench.component.action
    def steps(value: Any = None, *, context: TaskContext) -> None:
        context.progress(0.5, "half")
        context.progress(0.9, "nearly")

    host = bench.host()
    bench.start(host, replace(order(0), component="bench", action="steps")).result(10)
    expected = ["Started 0", "ProgressReported 0", "Succeeded 0"]
    for found in (host.settled([("exec-1", 0, 1)]), host.census("exec-1", 2, "heir")[1]):
        assert [shown(report) for report in found] == expected
        assert fractions(found) == [0.9]


def test_outcomes_are_held_within_bounds() -> None:
    def ended(task: int, size: int) -> tuple[Report, Report]:
        result = st.Output(size, b"x" * size)
        return (
            Report("exec-1", st.AttemptStarted(task, 1, 1)),
            Report("exec-1", st.AttemptSucceeded(task, 1, 1, result)),
        )

    few = HeldOutcomes(3, 10**9)
    small = HeldOutcomes(10**9, 5_000)
    for task in range(10):
        few.keep(("exec-1", task, 1), ended(task, 10))
        small.keep(("exec-1", task, 1), ended(task, 1_000))
    assert {report.stimulus.task for report in few.of("exec-1")} == {7, 8, 9}
    assert {report.stimulus.task for report in small.of("exec-1")} <= {6, 7, 8, 9}
    for _ in range(50):
        small.keep(("exec-1", 9, 1), ended(9, 1_000))
    assert len({report.stimulus.task for report in small.of("exec-1")}) > 1, "one counts once"


# Progress ----------------------------------------------------------------------------------------


def live(told: list[Report], interval_ms: int) -> LiveAttempt:
    return LiveAttempt(
        order(0),
        workspace=lambda *_: pytest.fail("nobody asked for a workspace"),
        allowed_commands=None,
        report=told.append,
        progress_interval_ms=interval_ms,
        clock=SystemClock(),
    )


def fractions(told: list[Report]) -> list[float]:
    return [r.stimulus.fraction for r in told if isinstance(r.stimulus, st.ProgressReported)]


def test_progress_that_comes_too_fast_is_held_back_and_the_latest_wins() -> None:
    told: list[Report] = []
    attempt = live(told, 3_600_000)
    for step in range(100):
        attempt.progress(step / 100)
    assert fractions(told) == [0.0]
    left_s = attempt.flush()
    assert left_s is not None
    assert 0 < left_s <= 3_600
    assert fractions(told) == [0.0], "its time has not come"
    attempt._interval_s = 0.0
    assert attempt.flush() is None
    assert attempt.flush() is None
    assert fractions(told) == [0.0, 0.99]


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), "half", None])
def test_progress_is_a_share(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"from 0\.0 to 1\.0"):
        live([], 0).progress(bad)


def test_messages_are_bounded_and_can_be_stored() -> None:
    told: list[Report] = []
    live(told, 0).progress(0.5, "\ud800" + "x" * 5_000)
    stimulus = told[0].stimulus
    assert isinstance(stimulus, st.ProgressReported)
    assert len(stimulus.message) == 1_000
    stimulus.message.encode()


def test_callbacks_for_a_stop_run_once_and_late_ones_at_once() -> None:
    attempt = live([], 0)
    called: list[str] = []

    def fails() -> None:
        called.append("fails")
        raise RuntimeError("a bad callback")

    attempt.on_cancel(fails)
    attempt.on_cancel(lambda: called.append("good"))
    attempt.cancel()
    attempt.cancel()
    attempt.on_cancel(lambda: called.append("late"))
    assert called == ["fails", "good", "late"]
    assert attempt.cancelled


def test_progress_comes_behind_the_start(bench: Bench) -> None:
    @bench.component.action
    def halfway(value: Any = None, *, context: TaskContext) -> None:
        context.progress(0.5, "half")

    bench.start(bench.host(), replace(order(0), component="bench", action="halfway")).result(10)
    assert bench.told() == [("me", "Started 0"), ("me", "ProgressReported 0")]


# Whatever an action does -------------------------------------------------------------------------


def outcome(bench: Bench, function: Callable[..., Any], **limits: Any) -> st.AttemptStimulus:
    bench.component.action(function)
    host = TaskHost(bench.runner(**limits), SLOW, bench.send)
    made = replace(order(0), component="bench", action=function.__name__, input=b"{}")
    reports, _ = bench.start(host, made).result(10)
    return reports[-1].stimulus


def failure_of(stimulus: st.AttemptStimulus) -> st.Failure:
    assert isinstance(stimulus, st.AttemptFailed)
    return stimulus.failure


def test_what_an_action_says_of_its_failure_is_kept(bench: Bench) -> None:
    def fails() -> None:
        raise ActionError("no file", code="FILE_NOT_FOUND", details={"file": "x"}, retriable=False)

    failure = failure_of(outcome(bench, fails))
    assert failure == st.Failure("no file", "FILE_NOT_FOUND", {"file": "x"}, "component", False)


def test_any_exception_is_a_failure_of_the_component(bench: Bench) -> None:
    def crashes() -> None:
        raise KeyError("gone")

    failure = failure_of(outcome(bench, crashes))
    assert (failure.code, failure.message, failure.origin, failure.retriable) == (
        "EXCEPTION",
        "KeyError: 'gone'",
        "component",
        True,
    )


def test_an_action_cannot_end_its_process(bench: Bench) -> None:
    def leaves() -> None:
        raise SystemExit(3)

    assert failure_of(outcome(bench, leaves)).details == {"exception": "SystemExit"}


@pytest.mark.parametrize(
    ("result", "words"),
    [({1, 2}, "not JSON"), (float("nan"), "not JSON"), ("\ud800", "not JSON"), (b"x", "not JSON")],
)
def test_what_is_not_json_is_no_output(bench: Bench, result: Any, words: str) -> None:
    def returns() -> Any:
        return result

    failure = failure_of(outcome(bench, returns))
    assert failure.code == "INVALID_OUTPUT"
    assert words in failure.message
    assert not failure.retriable


def test_an_output_has_a_ceiling(bench: Bench) -> None:
    def returns() -> str:
        return "x" * 1_000

    failure = failure_of(outcome(bench, returns, output_bytes_max=500))
    assert (failure.code, failure.retriable) == ("OUTPUT_TOO_LARGE", False)
    assert "1002 bytes; at most 500" in failure.message


def test_a_large_output_is_written_before_it_is_told(bench: Bench) -> None:
    def returns() -> str:
        return "€" * 400

    found = outcome(bench, returns, inline_output_bytes_max=500)
    assert isinstance(found, st.AttemptSucceeded)
    assert (found.output.inline, found.output.size) == (None, 1_202)
    assert found.output.preview == '"' + "€" * 199
    assert found.output.url is not None
    assert bench.runner().blobs.get(found.output.url) == jsontext.encode("€" * 400)


def test_what_a_former_attempt_has_left_is_removed_by_the_one_that_counts(bench: Bench) -> None:
    host, blobs = bench.host(), bench.runner().blobs
    left = [blobs.put(f"exec-1/0-{attempt}.json", b"left") for attempt in (1, 2)]
    others = [blobs.put(f"exec-1/{name}.json", b"kept") for name in ("0-4", "1-1", "execution")]
    reports, _ = bench.start(host, replace(order(0), attempt=3)).result(10)
    assert [shown(report) for report in reports] == ["Started 0", "Succeeded 0"]
    for url in left:
        with pytest.raises(Missing):
            blobs.get(url)
    assert [blobs.get(url) for url in others] == [b"kept"] * 3


def test_details_that_cannot_be_stored_are_left_out(bench: Bench) -> None:
    def fails() -> None:
        raise ActionError("\ud800 x" * 3_000, details={"bad": {1, 2}})

    failure = failure_of(outcome(bench, fails))
    assert failure.details == {"note": "the details were not JSON and were left out"}
    assert len(failure.message) <= 4_000 * 6
    failure.message.encode()


@pytest.mark.parametrize(
    ("code", "kept"), [("DISK_FULL", "DISK_FULL"), ("WORKER_LOST", "ACTION_FAILED"), (507, "507")]
)
def test_no_action_can_pass_its_failure_off_as_a_lost_process(
    bench: Bench, code: Any, kept: str
) -> None:
    def fails() -> None:
        raise ActionError("broke", code=code)

    assert failure_of(outcome(bench, fails)).code == kept


def test_an_unknown_action_is_said_to_be_unknown(bench: Bench) -> None:
    reports, _ = bench.start(bench.host(), replace(order(0), action="ecko")).result(10)
    failure = failure_of(reports[-1].stimulus)
    assert (failure.code, failure.retriable) == ("UNKNOWN_ACTION", False)
    assert "echo" in failure.message


def test_an_input_that_does_not_fit_is_refused_before_the_action_runs(bench: Bench) -> None:
    made = replace(order(0), action="fail_until", input=b'{"attempt":"many"}')
    reports, _ = bench.start(bench.host(), made).result(10)
    assert failure_of(reports[-1].stimulus).code == "INVALID_INPUT"
    assert bench.gates.began == []


def test_references_to_blobs_are_filled_in_where_the_action_runs(bench: Bench) -> None:
    url = bench.runner().blobs.put("x.json", b'{"deep":[1,2,"${tasks.a.output}"]}')
    written = {"value": {"a": "${tasks.a.output.deep}", "n": "<${workflow.input.n}>"}}
    made = replace(
        order(0),
        input=jsontext.encode(written),
        values={"": b'{"n":7}', "a": url},
        tasks=("a",),
    )
    reports, _ = bench.start(bench.host(), made).result(10)
    found = reports[-1].stimulus
    assert isinstance(found, st.AttemptSucceeded)
    expected = {"a": [1, 2, "${tasks.a.output}"], "n": "<7>"}
    assert jsontext.decode(found.output.inline or b"") == expected


def test_a_blob_that_is_gone_is_nobodys_fault(bench: Bench) -> None:
    url = bench.runner().blobs.put("x.json", b"1")
    made = replace(
        order(0),
        input=b'{"value":"${tasks.a.output}"}',
        values={"": b"{}", "a": url.replace("x.json", "y.json")},
        tasks=("a",),
    )
    reports, _ = bench.start(bench.host(), made).result(10)
    failure = failure_of(reports[-1].stimulus)
    assert (failure.code, failure.origin) == ("BLOB_STORE", "engine")


async def test_a_host_that_is_closed_leaves_no_thread(bench: Bench) -> None:
    before = set(threading.enumerate())
    host = bench.host()
    host.run("me", [order(1, "give")])
    begun = set(threading.enumerate()) - before
    assert len(begun) == 1
    host.close()
    for thread in begun:
        thread.join(timeout=10)
        assert not thread.is_alive()
