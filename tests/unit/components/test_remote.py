"""Remote actions against a real service: what is sent, and what becomes of whatever comes back."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.components.contract import ActionError
from harmonia_actors.components.registry import ComponentLoadError
from harmonia_actors.components.remote.actions import LOG_LINES_MAX, make_action
from harmonia_actors.components.remote.exchange import parsed, read
from harmonia_actors.components.remote.service import RemoteLimits, RemoteService, service_url
from tests.support.holding_up import Blocking, counting_turns
from tests.support.remote_service import (
    Act,
    RemoteServer,
    answering,
    ndjson,
    raw_server,
    serve_remote,
)
from tests.unit.components.context import RecordingContext, context_in
from tests.unit.serve.conftest import serve_app

LIMITS = RemoteLimits(connect_s_max=5, silence_s_max=30, answer_bytes_max=100_000)
OPEN = {"type": "object"}


@pytest.fixture
async def server() -> AsyncIterator[RemoteServer]:
    async with serve_remote() as found:
        yield found


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    return context_in(tmp_path)


async def called(
    server: RemoteServer,
    act: Act,
    context: RecordingContext,
    *,
    given: Any = None,
    token: str = "",
    limits: RemoteLimits = LIMITS,
) -> Any:
    """What an action gives that does `act` in the service."""
    server.action("do", act)
    action = make_action(RemoteService(server.url, token, limits), "far", "do", "", OPEN)
    return await action.function(**action.parse(given or {}), context=context)


async def failed(server: RemoteServer, act: Act, context: RecordingContext, **options: Any) -> Any:
    with pytest.raises(ActionError) as caught:
        await called(server, act, context, **options)
    return caught.value


async def test_an_attempt_is_a_request_with_its_input_and_who_it_is(
    server: RemoteServer, context: RecordingContext
) -> None:
    context.task_name = "Käse/1"
    context.attempt = 3
    output = await called(
        server, answering({"output": {"n": [1, None]}}), context, given={"a": "ß"}
    )
    assert output == {"n": [1, None]}
    ((path, headers, body),) = server.asked
    assert path == "/parts/far/do"
    assert body == {
        "input": {"a": "ß"},
        "attempt": {
            "execution_id": "exec-1",
            "workflow_id": "wf-1",
            "task": "Käse/1",
            "attempt": 3,
            "idempotency_key": "exec-1/Käse/1",
        },
    }
    assert headers["idempotency-key"] == "exec-1/K%C3%A4se/1"
    assert headers["content-type"] == "application/json"
    assert headers["accept-encoding"] == "identity"
    assert "authorization" not in headers


async def test_a_token_goes_to_its_service_and_into_nothing_that_is_shown(
    server: RemoteServer, context: RecordingContext
) -> None:
    error = await failed(server, answering({}, 401), context, token="canary")
    assert server.asked[0][1]["authorization"] == "Bearer canary"
    assert "canary" not in f"{error} {error.details} {RemoteService(server.url, 'canary')!r}"


async def test_no_proxy_is_taken_from_the_environment(
    server: RemoteServer, context: RecordingContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert await called(server, answering({"output": 1}), context) == 1


async def test_a_stream_tells_progress_and_lines_until_it_has_an_output(
    server: RemoteServer, context: RecordingContext
) -> None:
    act = ndjson(
        {"progress": {"fraction": 0, "message": "begun"}},
        b"\n",
        {"log": "one\nharmonia: two\x1b[31m"},
        b'{"progress": {"frac',
        b'tion": 0.5}}\r\n{"progress": {"fraction": 1.0, "message": null}}\n',
        {"output": "done"},
        b"what follows is not looked at\n",
    )
    assert await called(server, act, context) == "done"
    assert context.reports == [(0.0, "begun"), (0.5, ""), (1.0, "")]
    assert context.lines == ["one harmonia: two [31m"]


async def test_the_last_line_needs_no_end(server: RemoteServer, context: RecordingContext) -> None:
    assert await called(server, ndjson(b'{"output": [1]}'), context) == [1]


async def test_what_an_attempt_may_log_is_bounded(
    server: RemoteServer, context: RecordingContext
) -> None:
    lines = [{"log": "x" * 5_000}] * (LOG_LINES_MAX + 50)
    assert await called(server, ndjson(*lines, {"output": None}), context) is None
    assert len(context.lines) == LOG_LINES_MAX + 1
    assert max(map(len, context.lines)) == 2_000
    assert "left out" in context.lines[-1]


RAISED = {"message": "no", "code": "NO_SUCH_TABLE", "details": {"t": 1}, "retriable": False}


@pytest.mark.parametrize("status", [200, 422, 503, None])
async def test_an_error_is_raised_as_the_service_has_raised_it(
    server: RemoteServer, context: RecordingContext, status: int | None
) -> None:
    content = {"error": RAISED}
    act = ndjson(content) if status is None else answering(content, status)
    error = await failed(server, act, context)
    assert (error.message, error.code) == ("no", "NO_SUCH_TABLE")
    assert (error.details, error.retriable) == ({"t": 1}, False)


@pytest.mark.parametrize(
    ("status", "own", "retriable"),
    [
        (200, None, True),
        (422, None, False),
        (422, True, True),
        (429, None, True),
        (408, None, True),
        (500, None, True),
        (503, False, False),
    ],
)
async def test_whether_an_error_is_retried_is_its_own_word_else_its_status(
    server: RemoteServer,
    context: RecordingContext,
    status: int,
    own: bool | None,
    retriable: bool,
) -> None:
    error = await failed(
        server, answering({"error": {"message": "m", "retriable": own}}, status), context
    )
    assert (error.code, error.retriable, error.details) == ("ACTION_FAILED", retriable, {})


@pytest.mark.parametrize(
    ("status", "retriable"),
    [(400, False), (404, False), (429, True), (500, True), (502, True), (504, True)],
)
async def test_a_status_without_a_word_in_the_contracts_form_is_an_error_too(
    server: RemoteServer, context: RecordingContext, status: int, retriable: bool
) -> None:
    for content in (b"<h1>not so</h1>", {"detail": "not so"}, {"error": {"message": 1}}):
        error = await failed(server, answering(content, status), context)
        assert (error.code, error.retriable) == ("REMOTE_HTTP_ERROR", retriable)
        assert error.details == {"status": status}
        assert f"answered {status}" in error.message
        assert "far.do" in error.message
        assert server.url in error.message


async def test_an_endless_error_page_is_read_no_further_than_is_shown(
    server: RemoteServer, context: RecordingContext
) -> None:
    error = await failed(server, answering(b"x" * 5_000_000, 500), context)
    assert error.code == "REMOTE_HTTP_ERROR"
    assert len(error.message) < 500


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (answering(b"{", **{"content-type": "application/json"}), "not JSON"),
        (answering(b'{"output": NaN}', **{"content-type": "application/json"}), "NaN is not JSON"),
        (answering(b'{"output": 1e999}', **{"content-type": "application/json"}), "1e999 is too"),
        (answering(b'{"output": "\xff"}', **{"content-type": "application/json"}), "not JSON"),
        (answering(b"[" * 200_000 + b"]", **{"content-type": "application/json"}), "too"),
        (answering([1]), "must be a JSON object, not list"),
        (answering({}), r'must hold "output" or "error"'),
        (answering({"output": 1, "error": RAISED}), r"\['error', 'output'\]"),
        (answering({"result": 1}), r"\['result'\]"),
        (answering({"error": "no"}), "an error must be"),
        (answering({"error": {"message": "m", "code": 5}}), "an error must be"),
        (answering(b"hello", **{"content-type": "text/html"}), "Content-Type is 'text/html'"),
        (answering({"output": 1}, 201), "its status is 201"),
        (ndjson({"progress": 0.5}), "progress must be"),
        (ndjson({"progress": {"fraction": 1.5}}), "progress must be"),
        (ndjson({"progress": {"fraction": True}}), "progress must be"),
        (ndjson({"progress": {"fraction": 0.5, "message": 1}}), "progress must be"),
        (ndjson({"log": 5}), r"\['log'\]"),
        (ndjson({"note": "?"}), r"\['note'\]"),
        (ndjson({"log": "a", "output": 1}), "one thing"),
        (ndjson(b"nonsense\n"), "not JSON"),
        (ndjson([1]), "must be a JSON object"),
    ],
)
async def test_nonsense_is_told_as_such_and_not_tried_again(
    server: RemoteServer, context: RecordingContext, act: Act, says: str
) -> None:
    limits = RemoteLimits(answer_bytes_max=1_000_000)
    error = await failed(server, act, context, limits=limits)
    assert (error.code, error.retriable) == ("REMOTE_INVALID_ANSWER", False)
    with pytest.raises(ActionError, match=says):
        raise error
    assert server.url in error.message


class SlowBody(bytes):
    """A body that takes long to read."""

    reading = Blocking()

    def decode(self, *how: Any) -> str:
        self.reading.wait()
        return super().decode(*how)


async def test_reading_a_large_answer_does_not_hold_up_the_loop() -> None:
    reading = asyncio.ensure_future(read(SlowBody(b"[" + b"1," * 50_000 + b"2]")))
    await SlowBody.reading.let_end()
    assert await reading == [1] * 50_000 + [2]


def test_other_threads_have_turns_while_a_large_answer_is_read() -> None:
    body = b"[" + b'{"id":5},1.5,' * 100_000 + b"2]"
    with counting_turns() as turns:
        before = turns()
        parsed(body)
        assert turns() - before > 20


async def test_a_packed_answer_is_not_unpacked(
    server: RemoteServer, context: RecordingContext
) -> None:
    act = answering(gzip.compress(b'{"output": 1}'), **{"content-encoding": "gzip"})
    error = await failed(server, act, context)
    assert error.code == "REMOTE_INVALID_ANSWER"
    assert "gzip" in error.message


async def test_a_redirect_is_not_followed(server: RemoteServer, context: RecordingContext) -> None:
    server.action("elsewhere", answering({"output": "taken"}))
    location = f"{server.url}/far/elsewhere"
    error = await failed(server, answering({}, 307, location=location), context, token="canary")
    assert (error.code, error.retriable) == ("REMOTE_INVALID_ANSWER", False)
    assert "307" in error.message
    assert "redirects are not followed" in error.message
    assert [path for path, _, _ in server.asked] == ["/parts/far/do"]


@pytest.mark.parametrize(
    "act",
    [
        answering({"output": "x" * 200_000}),
        ndjson({"output": "x" * 200_000}),
        ndjson(b"x" * 200_000),
        ndjson(*[b"x" * 10_000] * 20),
    ],
)
async def test_an_answer_that_is_too_large_is_cut_off(
    server: RemoteServer, context: RecordingContext, act: Act
) -> None:
    error = await failed(server, act, context)
    assert (error.code, error.retriable) == ("OUTPUT_TOO_LARGE", False)
    assert "165536 bytes" in error.message


async def test_a_long_stream_of_short_lines_is_not_too_large(
    server: RemoteServer, context: RecordingContext
) -> None:
    lines = [{"progress": {"fraction": 0.5, "message": "m" * 500}}] * 1_000
    assert await called(server, ndjson(*lines, {"output": 1}), context) == 1


async def test_a_service_that_is_not_there_may_be_back_the_next_time(
    context: RecordingContext,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    action = make_action(RemoteService(f"http://127.0.0.1:{port}"), "far", "do", "", OPEN)
    with pytest.raises(ActionError, match="cannot be reached") as caught:
        await action.function({}, context=context)
    assert (caught.value.code, caught.value.retriable) == ("REMOTE_UNREACHABLE", True)


async def test_a_host_that_cannot_be_looked_for_may_not_be_reached_either(
    context: RecordingContext,
) -> None:
    action = make_action(RemoteService("http://xn--"), "far", "do", "", OPEN)
    with pytest.raises(ActionError, match="cannot be reached") as caught:
        await action.function({}, context=context)
    assert caught.value.code == "REMOTE_UNREACHABLE"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ((), "broke off"),
        ((b"SSH-2.0-OpenSSH\r\n\r\n",), "broke off"),
        ((HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b'8\r\n{"progre',), "broke off"),
        ((HEAD + b"Content-Length: 500\r\n\r\n{",), "broke off"),
        ((HEAD + b'\r\n{"progress": {"fraction": 0.1}}\n',), "ended without an output"),
        ((HEAD + b"X: " + b"x" * 300_000 + b"\r\n\r\n",), "broke off"),
    ],
)
async def test_a_connection_that_breaks_off_may_hold_the_next_time(
    context: RecordingContext, pieces: tuple[bytes, ...], says: str
) -> None:
    async with raw_server(*pieces) as url:
        action = make_action(RemoteService(url, limits=LIMITS), "far", "do", "", OPEN)
        with pytest.raises(ActionError, match=says) as caught:
            await action.function({}, context=context)
    assert (caught.value.code, caught.value.retriable) == ("REMOTE_BROKE_OFF", True)


@pytest.mark.parametrize("pieces", [(), (b"HTTP/1.1 200 OK\r\nX: ",), (HEAD + b"\r\n\n",)])
async def test_silence_is_borne_for_so_long(
    context: RecordingContext, pieces: tuple[bytes, ...]
) -> None:
    limits = RemoteLimits(silence_s_max=0.2)
    async with raw_server(*pieces, then_wait=True) as url:
        action = make_action(RemoteService(url, limits=limits), "far", "do", "", OPEN)
        with pytest.raises(ActionError, match=r"said nothing for 0\.2 s") as caught:
            await action.function({}, context=context)
    assert (caught.value.code, caught.value.retriable) == ("REMOTE_SILENT", True)


async def test_a_cancel_closes_the_connection_at_once(
    server: RemoteServer, context: RecordingContext
) -> None:
    act = server.held({"progress": {"fraction": 0.5}})
    calling = asyncio.ensure_future(called(server, act, context))
    async with asyncio.timeout(10):
        while not context.reports:  # noqa: ASYNC110 - whatever thread it comes from
            await asyncio.sleep(0.005)
        calling.cancel()
        await server.disconnected.wait()
    with pytest.raises(asyncio.CancelledError):
        await calling


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
async def test_a_certificate_must_be_one_that_the_machine_trusts(tmp_path: Path) -> None:
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    named = "-subj /CN=here -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    await asyncio.to_thread(
        subprocess.run,
        ["openssl", *request.split(), *named.split()],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    server = RemoteServer()
    server.action("do", answering({"output": 1}))
    script = (
        "import asyncio, sys\n"
        "from harmonia_actors.components.remote.catalogue import fetch_catalogue\n"
        "from harmonia_actors.components.remote.service import RemoteService\n"
        "print([*asyncio.run(fetch_catalogue(RemoteService(sys.argv[1])))])"
    )

    async def fetched(url: str, **environ: str) -> str:
        kept = {name: value for name, value in os.environ.items() if name != "SSL_CERT_FILE"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", script, url),
            env={**kept, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        return out.decode()

    async with serve_app(server.app(), ssl_certfile=certificate, ssl_keyfile=key) as served:
        url = f"https://{served.host}/parts"
        assert "CERTIFICATE_VERIFY_FAILED" in await fetched(url)
        assert server.asked == []
        assert await fetched(url, SSL_CERT_FILE=str(certificate)) == "['components']\n"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://user:canary@host/", "HARMONIA_COMPONENT_TOKENS"),
        ("http://user:ca/nary@host/", "HARMONIA_COMPONENT_TOKENS"),
        ("http://host/path?key=canary", "without what follows"),
        ("http://host/#canary", "without what follows"),
        ("ftp://host/", "http://host"),
        ("http://", "http://host"),
        ("http://host:99999", "http://host"),
        ("http://ho st/", "http://host"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_secret(url: str, says: str) -> None:
    with pytest.raises(ComponentLoadError, match=says) as caught:
        RemoteService(url)
    assert "canary" not in str(caught.value)
    assert "nary" not in str(caught.value)


def test_a_url_has_one_form() -> None:
    assert service_url("https://host:1/a/") == service_url("https://host:1/a") == "https://host:1/a"


def test_a_token_that_no_header_can_carry_is_refused_untold() -> None:
    with pytest.raises(ComponentLoadError, match="visible ASCII") as caught:
        RemoteService("http://host", "canary\r\nX: y")
    assert "canary" not in str(caught.value)


def test_an_input_goes_as_it_is() -> None:
    action = make_action(RemoteService("http://host"), "far", "do", "", {**OPEN, "title": "t"})
    assert json.dumps(action.input_schema) == '{"type": "object", "title": "t"}'
    assert (action.is_async, action.uses_files) == (True, False)
