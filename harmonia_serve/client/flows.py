"""What the client says to the service and what it makes of the answers, without any I/O.

A flow is a generator: it yields a `Call` to be sent or a `Pause` to be slept through, is sent the
`Reply` (or the ServiceUnreachable that happened instead), and returns its result. The two
transports only drive flows, so that there is one place for paths, retries and waiting.
"""

from __future__ import annotations

import json
import math
import re
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import quote

from harmonia_serve.client.errors import (
    ApiError,
    CannotBeSent,
    ServiceUnreachable,
    WaitTimedOut,
    api_error,
)
from harmonia_serve.client.outage import PATIENCE_S, Outage

__all__ = [
    "API",
    "ENDED",
    "Answer",
    "Call",
    "Flow",
    "JsonObject",
    "Pause",
    "Reply",
    "api_path",
    "content",
    "document",
    "execution_flow",
    "is_kept_apart",
    "once_key",
    "output_flow",
    "path_segment",
    "pause_before_retry",
    "run_flow",
    "wait_flow",
    "wait_timeout_s",
]

JsonObject = dict[str, Any]

API = "/api/harmonia"

#: Statuses that an execution never leaves.
ENDED = frozenset({"completed", "failed", "cancelled"})

#: A request is sent so often at most, and a retry waits so long at most.
_ATTEMPTS_MAX = 5
_PAUSE_S_MAX = 30.0
_FIRST_PAUSE_S = 0.1

#: What the service takes as an Idempotency-Key.
_KEY = re.compile(r"[!-~]{1,255}")

#: A request with "async": false is held by the service for so long; the client waits longer.
_SYNC_WAIT_S = 330.0

_WAIT_FIRST_S = 0.05
_WAIT_S_MAX = 1.0
#: However little time is left of a wait, a look at the execution may take this long.
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `repeatable`: sending it twice does what sending it once does."""

    method: str
    path: str
    query: Mapping[str, str | int] = field(default_factory=dict)
    body: JsonObject | None = None
    #: Seconds to wait for the answer; None: the client's own timeout.
    timeout_s: float | None = None
    #: Seconds that it may take at most, if that is less than the above; None: no less.
    most_s: float | None = None
    #: By which the service knows a POST that it gets again.
    idempotency_key: str | None = None

    @property
    def repeatable(self) -> bool:
        return self.method in ("GET", "PUT") or self.idempotency_key is not None


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so long before going on."""

    seconds: float


Answer = Reply | ServiceUnreachable | None
Clock = Callable[[], float]
_T = TypeVar("_T")
Flow = Generator[Call | Pause, Answer, _T]


def api_path(*segments: str) -> str:
    """A path below the API's root. Raises CannotBeSent."""
    return "/".join([API, *map(path_segment, segments)])


def path_segment(text: str) -> str:
    """A name as one segment of a path, escaped whole, a slash in it included.

    Raises CannotBeSent for one that would vanish on the way, so that something else is asked for.
    """
    if text not in ("", ".", ".."):
        with suppress(UnicodeEncodeError):
            return quote(text, safe="")
    raise CannotBeSent(f"{text!r} cannot be part of a path: neither an id nor a file is called so")


def once_key(given: str | None) -> str:
    """The caller's idempotency key, or one for this call alone. Raises ValueError."""
    if given is None:
        return str(uuid.uuid4())
    if _KEY.fullmatch(given) is None:
        raise ValueError(
            f"an idempotency key has from 1 to 255 visible ASCII characters, without spaces; "
            f"{given[:100]!r} has {len(given)}"
        )
    return given


def pause_before_retry(call: Call, answer: Answer, attempt: int) -> float | None:
    """Seconds to wait before sending `call` again after its `attempt`-th answer; None: do not.

    After 429 the request was refused whole: it is sent again if the answer says when (Retry-After).
    After 503, and after a connection that failed, it may have been carried out all the same: a
    POST is sent again only with an idempotency key. A 503 that does not say when is not ours, and
    neither are others without our envelope: they come from a proxy that has lost the service.
    """
    if attempt >= _ATTEMPTS_MAX:
        return None
    grown = min(_FIRST_PAUSE_S * 2.0 ** (attempt - 1), _PAUSE_S_MAX)
    if isinstance(answer, ServiceUnreachable):
        # A connection that was refused at once will be refused again: one more try is enough.
        tries = _ATTEMPTS_MAX if answer.sent else 2
        return grown if call.repeatable and attempt < tries else None
    if answer is None or not _is_refused(call, answer):
        return None
    default = "0" if answer.status != 429 and call.repeatable else ""
    try:
        asked = float(answer.headers.get("retry-after", default))
    except ValueError:
        return None
    return max(grown, asked) if 0 <= asked <= _PAUSE_S_MAX else None


def _is_refused(call: Call, answer: Reply) -> bool:
    """Whether an answer asks to come again, and coming again can do no harm."""
    if answer.status == 503:
        return call.repeatable or call.method != "POST"
    if answer.status < 400 or answer.status == 429:
        return answer.status == 429
    return call.repeatable and api_error(answer.status, answer.content).of_a_proxy


def _exchange(call: Call, left_s: Clock | None = None) -> Flow[Reply]:
    """Send a call, again if that is safe, and return the good answer or raise the bad one.

    With `left_s`, which tells the seconds that are left, it is done by then.
    """
    attempt = 0
    while True:
        attempt += 1
        if left_s is not None:
            call = replace(call, most_s=max(left_s(), _LOOK_S))
        answer = yield call
        pause = pause_before_retry(call, answer, attempt)
        if pause is None or (left_s is not None and left_s() <= pause):
            break
        yield Pause(pause)
    if isinstance(answer, ServiceUnreachable):
        raise answer
    if not isinstance(answer, Reply):
        raise TypeError(f"a transport answered a call with {answer!r}")
    if not 200 <= answer.status < 300:
        raise api_error(answer.status, answer.content, answer.headers.get("location", ""))
    return answer


def document(call: Call, left_s: Clock | None = None) -> Flow[JsonObject]:
    """Send a call whose answer is a JSON object."""
    reply = yield from _exchange(call, left_s)
    try:
        found = json.loads(reply.content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise api_error(reply.status, reply.content)
    return found


def content(call: Call) -> Flow[bytes]:
    """Send a call whose answer is bytes."""
    reply = yield from _exchange(call)
    return reply.content


def execution_flow(execution_id: str, *, outputs: bool) -> Flow[JsonObject]:
    """The state of an execution; without `outputs`, those of its tasks and its own are left out."""
    query: dict[str, str | int] = {} if outputs else {"outputs": "none"}
    return document(Call("GET", api_path("executions", execution_id), query))


def wait_timeout_s(options: Mapping[str, Any]) -> float | None:
    """How long a start with these options may take to answer; None: as long as any request."""
    return _SYNC_WAIT_S if options.get("async") is False else None


def is_kept_apart(output: Any) -> bool:
    """Whether this is what stands in for an output that is too large for an answer."""
    return (
        isinstance(output, dict)
        and output.keys() == {"$ref", "size", "preview"}
        and str(output["$ref"]).startswith("/executions/")
    )


def output_flow(final: JsonObject, clock: Clock = time.monotonic) -> Flow[Any]:
    """The whole output of an execution, given its final state, which may only refer to it.

    Outputs of tasks that the execution's output refers to stay references.
    """
    output = final.get("output")
    if not is_kept_apart(output):
        return output
    call = Call("GET", api_path("executions", str(final["execution_id"]), "output"))
    return json.loads((yield from _outlasting(lambda: content(call), None, clock)))


def run_flow(
    workflow: str | JsonObject,
    input_values: JsonObject,
    options: JsonObject,
    idempotency_key: str | None = None,
) -> Flow[JsonObject]:
    """Create the workflow (unless it is an id) and execute it. Returns the execution.

    The workflow is created under the key with `.workflow` after it.
    """
    key = once_key(idempotency_key)
    workflow_id = workflow
    if isinstance(workflow, dict):
        path, key_of_workflow = api_path("workflows"), once_key(f"{key}.workflow")
        call = Call("POST", path, body=workflow, idempotency_key=key_of_workflow)
        workflow_id = (yield from document(call))["workflow_id"]
    body = {"workflow_id": workflow_id, "input": input_values, "execution_options": options}
    call = Call(
        "POST",
        api_path("executions"),
        body=body,
        timeout_s=wait_timeout_s(options),
        idempotency_key=key,
    )
    return (yield from document(call))


def wait_flow(
    execution_id: str, timeout_s: float | None, clock: Clock = time.monotonic
) -> Flow[JsonObject]:
    """Ask until the execution has ended, ever less often; returns its final state, whole.

    Raises WaitTimedOut, also if it is the service that takes so long. A service that is away is
    asked again for as long; without a timeout, for two minutes. Then what it says, or that there
    is nobody, is raised.
    """
    if timeout_s is None:
        return (yield from _wait_for_end(execution_id, None, clock))
    deadline = clock() + timeout_s

    def left_s() -> float:
        return deadline - clock()

    try:
        return (yield from _wait_for_end(execution_id, left_s, clock))
    except _TimeIsUp:
        raise WaitTimedOut(execution_id, timeout_s) from None
    except ServiceUnreachable as error:
        if error.sent and left_s() <= _LOOK_S:
            raise WaitTimedOut(execution_id, timeout_s) from error
        raise


def _outlasting(ask: Callable[[], Flow[_T]], left_s: Clock | None, clock: Clock) -> Flow[_T]:
    """What a flow comes to once the service is there, if it is away now.

    Waits for as long as there is time left; without `left_s`, for as long as followers do.
    """
    outage = Outage(PATIENCE_S if left_s is None else math.inf)
    while True:
        begun_s = clock()
        try:
            return (yield from ask())
        except (ServiceUnreachable, ApiError) as error:
            pause_s = outage.pause_s(error, clock() - begun_s)
            if left_s is not None:
                pause_s = min(pause_s, left_s())
                if pause_s <= 0:
                    raise
        yield Pause(pause_s)


class _TimeIsUp(Exception):
    pass


def _wait_for_end(execution_id: str, left_s: Clock | None, clock: Clock) -> Flow[JsonObject]:
    path = api_path("executions", execution_id)
    look, whole = Call("GET", path, query={"outputs": "none"}), Call("GET", path)

    def ask(call: Call) -> Flow[JsonObject]:
        return _outlasting(lambda: document(call, left_s), left_s, clock)

    pause = _WAIT_FIRST_S
    while True:
        state = yield from ask(look)
        if state["status"] in ENDED:
            return (yield from ask(whole))
        if left_s is not None:
            left = left_s()
            if left <= 0:
                raise _TimeIsUp
            pause = min(pause, left)
        yield Pause(pause)
        pause = min(pause * 1.5, _WAIT_S_MAX)
