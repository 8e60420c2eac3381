"""What the client says to the service, without a network."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator

import pytest

from harmonia_serve.client import (
    ApiError,
    CannotBeSent,
    ClientError,
    ServiceUnreachable,
    ValidationFailed,
    WaitTimedOut,
    WorkflowNotFound,
)
from harmonia_serve.client.errors import api_error
from harmonia_serve.client.events import EventCursor
from harmonia_serve.client.flows import (
    Answer,
    Call,
    Flow,
    Pause,
    Reply,
    api_path,
    content,
    document,
    once_key,
    output_flow,
    pause_before_retry,
    run_flow,
    wait_flow,
)
from harmonia_serve.client.wire import request_options
from tests.unit.client.test_once import SAID

GET = Call("GET", "/x")
POST = Call("POST", "/x", body={})
ONCE = Call("POST", "/x", body={}, idempotency_key="k")
DELETE = Call("DELETE", "/x")
#: Deeper than Python's own recursion goes.
DEEP: object = functools.reduce(lambda inner, _: [inner], range(100_000), 0)


def reply(status: int, body: bytes = b"{}", **headers: str) -> Reply:
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


class Clock:
    """Time that goes by only where it is told to."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def drive(
    flow: Flow, answers: Iterable[Answer], clock: Clock | None = None
) -> tuple[object, list[Call | Pause]]:
    """Answer the flow's calls in turn; its result and all that it yielded."""
    clock = clock or Clock()
    steps: list[Call | Pause] = []
    left = iter(answers)
    answer: Answer = None
    try:
        while True:
            step = flow.send(answer)
            steps.append(step)
            if isinstance(step, Pause):
                clock.now_s += step.seconds
            answer = None if isinstance(step, Pause) else next(left)
    except StopIteration as stop:
        return stop.value, steps


def test_a_path_segment_is_escaped_whole() -> None:
    path = api_path("executions", "exec-1", "tasks", "a/b c", "output")
    assert path == "/api/harmonia/executions/exec-1/tasks/a%2Fb%20c/output"


@pytest.mark.parametrize("segment", ["", ".", "..", "\ud800"])
def test_a_path_segment_that_leads_elsewhere_is_refused(segment: str) -> None:
    """A dot would be resolved on its way, and name something else than what was asked for."""
    with pytest.raises(ValueError, match="cannot be part of a path") as caught:
        api_path("executions", segment)
    assert isinstance(caught.value, CannotBeSent)
    with pytest.raises(CannotBeSent):
        SAID.get_task_output("exec-1", segment)
    with pytest.raises(CannotBeSent):
        SAID.read_file("exec-1", f"a/{segment}/b")
    with pytest.raises(CannotBeSent):
        EventCursor(segment, 0).path  # noqa: B018 - what it raises is what is asked


def test_dots_within_a_segment_stay() -> None:
    assert SAID.read_file("exec-1", "a.b/..c/...").path.endswith("/files/a.b/..c/...")


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, float("nan"), [float("inf")], DEEP])
def test_what_json_cannot_say_is_refused_before_it_is_sent(value: object) -> None:
    with pytest.raises(CannotBeSent, match="JSON"):
        request_options(SAID.execute("wf-1", {"v": value}), 30.0)


def test_a_query_that_is_no_text_is_refused() -> None:
    with pytest.raises(CannotBeSent):
        request_options(SAID.list_executions(status="\udcff"), 30.0)


def test_a_good_answer_is_returned_after_one_call() -> None:
    result, steps = drive(document(GET), [reply(200, b'{"a": 1}')])
    assert result == {"a": 1}
    assert steps == [GET]


def test_bytes_are_returned_as_they_are() -> None:
    result, _ = drive(content(GET), [reply(200, b"\x00\xff")])
    assert result == b"\x00\xff"


def test_a_refusal_with_retry_after_is_tried_again_even_for_a_post() -> None:
    result, steps = drive(document(POST), [reply(429, retry_after="3"), reply(201, b'{"id": 1}')])
    assert result == {"id": 1}
    assert steps == [POST, Pause(3.0), POST]


def test_a_refusal_without_retry_after_is_not_tried_again() -> None:
    with pytest.raises(ApiError):
        drive(document(GET), [reply(429)])


def test_after_503_only_what_does_no_harm_is_sent_again() -> None:
    away = reply(503, retry_after="3")
    for call in (GET, DELETE, ONCE):
        result, steps = drive(document(call), [away, reply(200)])
        assert (result, steps) == ({}, [call, Pause(3.0), call])
    with pytest.raises(ApiError) as caught:
        drive(document(POST), [away])
    assert caught.value.status == 503


def test_a_503_from_something_in_between_does_not_say_when() -> None:
    for call in (GET, ONCE):
        _, steps = drive(document(call), [reply(503), reply(503), reply(200)])
        assert steps == [call, Pause(0.1), call, Pause(0.2), call]
    for call in (POST, DELETE):
        assert pause_before_retry(call, reply(503), 1) is None


@pytest.mark.parametrize("status", [404, 500, 502, 504])
def test_what_a_proxy_says_that_lost_the_service_is_no_answer(status: int) -> None:
    for call in (GET, ONCE):
        _, steps = drive(document(call), [reply(status, b"Internal Server Error"), reply(200)])
        assert steps == [call, Pause(0.1), call]
    ours = b'{"error": {"code": "internal_error", "message": "unexpected", "details": {}}}'
    assert pause_before_retry(GET, reply(status, ours), 1) is None
    for call in (POST, DELETE):
        assert pause_before_retry(call, reply(status, b""), 1) is None


def test_a_refusal_that_asks_for_too_long_a_wait_is_not_tried_again() -> None:
    assert pause_before_retry(GET, reply(429, retry_after="86400"), 1) is None
    assert pause_before_retry(GET, reply(429, retry_after="Wed, 21 Oct 2015"), 1) is None


def test_a_broken_connection_repeats_a_post_only_with_its_key() -> None:
    broken = ServiceUnreachable("http://x", "reset", sent=True)
    for call in (GET, ONCE):
        result, steps = drive(document(call), [broken, reply(200)])
        assert result == {}
        assert [step for step in steps if isinstance(step, Call)] == [call, call]
    with pytest.raises(ServiceUnreachable):
        drive(document(POST), [broken])


def test_retries_are_bounded() -> None:
    refusals: list[Answer] = [reply(429, retry_after="0")] * 100
    with pytest.raises(ApiError) as caught:
        drive(document(GET), refusals)
    assert caught.value.status == 429
    broken = ServiceUnreachable("http://x", "reset", sent=True)
    for answer in (refusals[0], broken, reply(503)):
        pauses = [pause_before_retry(ONCE, answer, attempt) for attempt in range(1, 10)]
        assert pauses == [0.1, 0.2, 0.4, 0.8, *[None] * 5]


def test_a_refused_connection_is_given_up_soon() -> None:
    refused = ServiceUnreachable("http://x", "refused", sent=False)
    assert pause_before_retry(GET, refused, 1) is not None
    assert pause_before_retry(GET, refused, 2) is None


def test_errors_have_the_class_of_their_code() -> None:
    body = b'{"error": {"code": "workflow_not_found", "message": "no", "details": {"a": 1}}}'
    error = api_error(404, body)
    assert isinstance(error, WorkflowNotFound)
    assert (error.error_code, error.message, error.details, error.status) == (
        "workflow_not_found",
        "no",
        {"a": 1},
        404,
    )


@pytest.mark.parametrize("body", [b"<html>bad gateway</html>", b"", b"[]", b'{"error": 3}'])
def test_an_answer_that_is_no_envelope_is_still_an_error(body: bytes) -> None:
    error = api_error(502, body)
    assert error.error_code == "http_error"
    assert "502" in error.message


@pytest.mark.parametrize("status", [199, 301, 302, 304, 308, 399])
@pytest.mark.parametrize("flow", [document, content])
def test_only_2xx_is_a_success(status: int, flow: Callable[[Call], Flow]) -> None:
    with pytest.raises(ApiError, match=str(status)) as caught:
        drive(flow(DELETE), [reply(status, b'{"a": 1}')])
    assert caught.value.status == status


def test_an_answer_that_leads_elsewhere_says_where() -> None:
    with pytest.raises(ApiError, match="https://elsewhere/x") as caught:
        drive(content(GET), [reply(301, b"", location="https://elsewhere/x")])
    assert caught.value.error_code == "http_error"


def test_an_answer_that_is_no_object_is_an_error() -> None:
    with pytest.raises(ApiError):
        drive(document(GET), [reply(200, b"[1]")])


def test_errors_survive_pickling() -> None:
    import pickle

    for error in (
        ValidationFailed("validation_error", "bad", {"errors": []}, 422),
        ServiceUnreachable("http://x", "refused", sent=False),
        WaitTimedOut("exec-1", 3.0),
    ):
        copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        assert type(copied) is type(error)
        assert isinstance(copied, ClientError)
        assert str(copied) == str(error)


def test_run_creates_a_definition_and_executes_it() -> None:
    flow = run_flow({"name": "x", "tasks": {}}, {"a": 1}, {"timeout": 3})
    result, steps = drive(
        flow, [reply(201, b'{"workflow_id": "wf-1"}'), reply(202, b'{"execution_id": "exec-1"}')]
    )
    assert result == {"execution_id": "exec-1"}
    create, execute = steps
    assert isinstance(create, Call)
    assert isinstance(execute, Call)
    assert create.path == "/api/harmonia/workflows"
    assert execute.body == {
        "workflow_id": "wf-1",
        "input": {"a": 1},
        "execution_options": {"timeout": 3},
    }


def keys_of_run(workflow: str | dict[str, object], key: str | None = None) -> list[str | None]:
    """The idempotency keys that a run sends."""
    answers = [reply(201, b'{"workflow_id": "wf-1"}'), reply(202)]
    _, steps = drive(run_flow(workflow, {}, {}, key), answers if workflow == {} else answers[1:])
    return [step.idempotency_key for step in steps if isinstance(step, Call)]


def test_run_has_keys_for_both_of_its_posts() -> None:
    assert keys_of_run({}, "monthly") == ["monthly.workflow", "monthly"]
    assert keys_of_run("wf-1", "monthly") == ["monthly"]
    own = [*keys_of_run({}), *keys_of_run("wf-1")]
    assert None not in own
    assert len(set(own)) == 3, "each call is another one"


@pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 256, "a\n"])
def test_a_key_that_the_service_would_not_take_is_not_sent(key: str) -> None:
    with pytest.raises(ValueError, match="from 1 to 255 visible ASCII characters"):
        once_key(key)
    with pytest.raises(ValueError, match="idempotency key"):
        keys_of_run("wf-1", key)


def test_waiting_asks_ever_less_often_and_returns_the_final_state() -> None:
    running = reply(200, b'{"status": "running"}')
    done = reply(200, b'{"status": "completed", "output": 1}')
    result, steps = drive(wait_flow("exec-1", None), [*[running] * 20, done, done])
    assert result == {"status": "completed", "output": 1}
    pauses = [step.seconds for step in steps if isinstance(step, Pause)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 1.0
    first, last = steps[0], steps[-1]
    assert isinstance(first, Call)
    assert isinstance(last, Call)
    assert (first.query, last.query) == ({"outputs": "none"}, {})


RUNNING = reply(200, b'{"status": "running"}')
HANGS = ServiceUnreachable("http://x", "timed out", sent=True)


def test_waiting_gives_up_in_time() -> None:
    clock = Clock()
    with pytest.raises(WaitTimedOut) as caught:
        drive(wait_flow("exec-1", 2.0, clock), [RUNNING] * 100, clock)
    assert caught.value.execution_id == "exec-1"
    assert clock.now_s == 1_002.0


def test_waiting_once_looks_once() -> None:
    for answers in ([RUNNING], [HANGS]):
        with pytest.raises(WaitTimedOut):
            drive(wait_flow("exec-1", 0.0, Clock()), answers)


@pytest.mark.parametrize("answers", [[], [RUNNING] * 5, [HANGS], [reply(503)] * 3])
def test_no_look_takes_longer_than_the_time_that_is_left(answers: list[Answer]) -> None:
    """Whether the service hangs at once or later, or is away before it hangs."""
    clock, asked = Clock(), [0.0]

    def given() -> Iterator[Answer]:
        yield from answers
        while True:
            clock.now_s += asked[-1]
            yield HANGS

    with pytest.raises(WaitTimedOut):
        drive(noting(wait_flow("exec-1", 20.0, clock), asked), given(), clock)
    assert 1_020.0 <= clock.now_s <= 1_021.0
    assert max(asked) <= 20.0


def noting(flow: Flow, asked: list[float]) -> Flow:
    """A flow, with the most that each of its calls may take."""
    answer: Answer = None
    while True:
        try:
            step = flow.send(answer)
        except StopIteration as stop:
            return stop.value
        if isinstance(step, Call):
            assert step.most_s is not None
            asked.append(step.most_s)
        answer = yield step


REFUSED = ServiceUnreachable("http://x", "refused", sent=False)
LOST = b"Path '/api' not found"
AWAY: list[Answer] = [REFUSED, reply(503, retry_after="1"), reply(404, LOST), reply(502), HANGS]
DONE = reply(200, b'{"status": "completed", "execution_id": "exec-1"}')


def until(clock: Clock, end_s: float, first: Answer, then: Answer) -> Iterator[Answer]:
    """One answer before some time, another one from then on."""
    while clock.now_s < end_s:
        yield first
    while True:
        yield then


@pytest.mark.parametrize("away", AWAY)
@pytest.mark.parametrize(("timeout_s", "outage_s"), [(None, 100.0), (300.0, 290.0)])
def test_waiting_outlasts_an_outage(away: Answer, timeout_s: float | None, outage_s: float) -> None:
    clock = Clock()
    flow = wait_flow("exec-1", timeout_s, clock)
    state, _ = drive(flow, until(clock, clock.now_s + outage_s, away, DONE), clock)
    assert state == {"status": "completed", "execution_id": "exec-1"}
    assert clock.now_s <= 1_000.0 + outage_s + 5


@pytest.mark.parametrize("away", AWAY)
def test_a_service_that_is_gone_is_not_waited_for_longer_than_that(away: Answer) -> None:
    for timeout_s, least, most in ((None, 120.0, 135.0), (60.0, 60.0, 61.0)):
        clock = Clock()
        with pytest.raises((ServiceUnreachable, ApiError, WaitTimedOut)):
            drive(wait_flow("exec-1", timeout_s, clock), itertools.repeat(away), clock)
        assert least <= clock.now_s - 1_000.0 <= most


def test_what_stood_in_the_way_of_a_wait_is_told() -> None:
    for away, kind in ((REFUSED, ServiceUnreachable), (reply(503), ApiError)):
        clock = Clock()
        with pytest.raises(kind):
            drive(wait_flow("exec-1", 60.0, clock), itertools.repeat(away), clock)


@pytest.mark.parametrize("code", ["execution_not_found", "authentication_failed"])
def test_a_wait_for_what_is_refused_ends_at_once(code: str) -> None:
    status = 404 if code == "execution_not_found" else 401
    body = b'{"error": {"code": "%s", "message": "no", "details": {}}}' % code.encode()
    clock = Clock()
    with pytest.raises(ApiError):
        drive(wait_flow("exec-1", 60.0, clock), [reply(status, body)], clock)
    assert clock.now_s == 1_000.0


def test_a_large_output_is_fetched_in_spite_of_an_outage() -> None:
    final = {
        "execution_id": "exec-1",
        "output": {"$ref": "/executions/exec-1/output", "size": 9, "preview": ""},
    }
    clock = Clock()
    answers = until(clock, clock.now_s + 60, REFUSED, reply(200, b'{"a": 1}'))
    assert drive(output_flow(final, clock), answers, clock)[0] == {"a": 1}


def test_waiting_for_ever_leaves_each_look_the_usual_time() -> None:
    done = reply(200, b'{"status": "completed"}')
    _, steps = drive(wait_flow("exec-1", None), [RUNNING, done, done])
    assert {step.most_s for step in steps if isinstance(step, Call)} == {None}


@pytest.mark.parametrize(
    ("timeout_s", "most_s", "expected"),
    [(None, None, 30), (330, None, 330), (None, 4, 4), (None, 90, 30), (330, 90, 90)],
)
def test_a_call_takes_at_most_the_least_of_its_times(
    timeout_s: float | None, most_s: float | None, expected: float
) -> None:
    call = Call("GET", "/x", timeout_s=timeout_s, most_s=most_s)
    found = request_options(call, 30.0)["timeout"]
    assert (found.read, found.write, found.pool) == (expected, expected, expected)
    assert found.connect == min(expected, 5.0)
