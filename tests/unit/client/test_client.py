"""Both clients against the real HTTP surfaces over a gateway in memory."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harmonia_actors.core.errors import RateLimitExceeded as Limit
from harmonia_serve.client import (
    AsyncHarmoniaClient,
    AuthenticationFailed,
    ComponentFailed,
    Conflict,
    Event,
    Execution,
    ExecutionEndedBadly,
    ExecutionNotFound,
    HarmoniaClient,
    NotFound,
    PermissionDenied,
    RateLimitExceeded,
    ServiceUnreachable,
    ValidationFailed,
    WaitTimedOut,
)
from tests.unit.service_thread import SMALL_WORKFLOW, Service, running_service


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    with running_service() as service:
        yield service


@pytest.fixture
def service(shared: Service) -> Iterator[Service]:
    yield shared
    shared.gateway.failure = None
    shared.gateway.requests_max = None


@pytest.fixture
def client(service: Service) -> Iterator[HarmoniaClient]:
    with HarmoniaClient(service.url, service.key) as found:
        yield found


def test_workflows_through_their_whole_life(client: HarmoniaClient) -> None:
    created = client.create_workflow(SMALL_WORKFLOW)
    workflow_id = created["workflow_id"]
    assert client.get_workflow(workflow_id)["tasks"] == SMALL_WORKFLOW["tasks"]
    replaced = client.replace_workflow(workflow_id, {**SMALL_WORKFLOW, "version": "2.0.0"})
    assert replaced["version"] == "2.0.0"
    page = client.list_workflows(limit=100, sort_by="name", sort_order="asc")
    assert workflow_id in [item["workflow_id"] for item in page["items"]]
    assert client.delete_workflow(workflow_id)["success"] is True
    with pytest.raises(NotFound) as caught:
        client.get_workflow(workflow_id)
    assert caught.value.details == {"requested_id": workflow_id}


def test_executions_templates_checkpoints_components_and_keys(
    service: Service, client: HarmoniaClient
) -> None:
    execution = client.run(SMALL_WORKFLOW, {"a": 1})
    workflow_id = execution.document["workflow_id"]
    assert client.get_execution(execution.id, outputs=False)["outputs"] is False
    assert client.list_executions(workflow_id=workflow_id, status="pending")["total"] == 1
    assert client.list_tasks(execution.id)["total"] == 2
    service.gateway.outputs[execution.id, "first"] = b'{"x": 1}'
    assert execution.task_output("first") == b'{"x": 1}'
    assert execution.audit()["violations"] == []

    checkpoint = execution.checkpoint("before", description="d")
    checkpoint_id = checkpoint["checkpoint_id"]
    assert client.get_checkpoint(checkpoint_id)["name"] == "before"
    assert client.list_checkpoints(execution_id=execution.id)["total"] == 1
    assert client.restore(checkpoint_id, {"timeout": 5})["checkpoint_id"] == checkpoint_id
    edited = client.restore(
        checkpoint_id, input_values={"a": 2}, task_inputs={"second": {"command": "false"}}
    )
    assert edited["edits"] == {
        "input": {"a": 2},
        "task_inputs": {"second": {"command": "false"}},
    }
    client.delete_checkpoint(checkpoint_id)

    template = client.create_template("t", parameters={"a": {}}, workflow_id=workflow_id)
    template_id = template["template_id"]
    assert client.get_template(template_id)["name"] == "t"
    assert client.list_templates()["total"] >= 1
    assert client.instantiate_template(template_id, "i", {"a": 2})["template_id"] == template_id
    client.delete_template(template_id)

    assert client.list_components()["items"]
    key = client.create_key("ci", ["read"], rate_limit_per_s=5)
    assert key["key_id"] in [item["key_id"] for item in client.list_keys(limit=100)["items"]]
    client.revoke_key(key["key_id"])
    assert (client.health()["status"], client.health()["durability"]["promise"]) == ("ok", "none")
    with HarmoniaClient(service.url, "") as nobody:
        assert nobody.health() == {"status": "ok"}
    assert client.ready()["status"] == "ready"
    assert client.service()

    assert execution.cancel()["status"] == "cancelling"


def test_errors_are_typed(service: Service, client: HarmoniaClient) -> None:
    with pytest.raises(ExecutionNotFound):
        client.execution(f"exec-{'0' * 8}-0000-4000-8000-{'0' * 12}")
    with pytest.raises(ValidationFailed) as invalid:
        client.create_workflow({"name": "x", "tasks": {}})
    assert invalid.value.details["errors"][0]["field"] == "tasks"
    workflow = client.create_workflow(SMALL_WORKFLOW)
    with pytest.raises(ComponentFailed) as failed:
        client.execute(workflow["workflow_id"], {"fail": True}, {"async": False})
    assert failed.value.status == 500
    execution = client.run(workflow["workflow_id"])
    service.gateway.executions[execution.id]["status"] = "completed"
    with pytest.raises(Conflict):
        execution.cancel()
    with HarmoniaClient(service.url, "hk_wrong") as wrong, pytest.raises(AuthenticationFailed):
        wrong.list_workflows()
    reader_key = service.gateway.add_key("read")
    with HarmoniaClient(service.url, reader_key) as reader, pytest.raises(PermissionDenied):
        reader.create_workflow(SMALL_WORKFLOW)


def test_a_rate_limit_with_a_short_wait_is_waited_out(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [Limit("too many", 0)]

    async def admit(_: object) -> None:
        if refusals:
            raise refusals.pop()

    monkeypatch.setattr(service.gateway, "admit", admit)
    with HarmoniaClient(service.url, service.key) as client:
        assert client.list_workflows()["page"] == 1
    assert refusals == []


def test_a_rate_limit_that_lasts_is_raised(service: Service) -> None:
    service.gateway.failure = Limit("much later", 3600)
    with (
        HarmoniaClient(service.url, service.key) as client,
        pytest.raises(RateLimitExceeded) as caught,
    ):
        client.list_workflows()
    assert caught.value.details["retry_after_seconds"] == 3600


def test_nothing_listening_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with (
            HarmoniaClient(f"http://127.0.0.1:{port}", "k") as client,
            pytest.raises(ServiceUnreachable) as caught,
        ):
            client.list_workflows()
    assert caught.value.sent is False


def test_events_come_with_history_then_live_and_end(
    service: Service, client: HarmoniaClient
) -> None:
    execution = client.run(SMALL_WORKFLOW)
    service.emit(execution.id, "execution_started", workflow_name="small")
    events = execution.events()
    assert next(events)["type"] == "execution_started"
    service.emit(execution.id, "task_started", task_name="first")
    assert next(events)["data"] == {"task_name": "first"}
    service.finish(execution.id)
    assert [event["seq"] for event in events] == [3]
    assert list(execution.events(after=3)) == []
    assert [event["seq"] for event in execution.events(after=1)] == [2, 3]


def test_events_end_with_the_one_that_was_named(service: Service, client: HarmoniaClient) -> None:
    execution = client.run(SMALL_WORKFLOW)
    for _ in range(3):
        service.emit(execution.id, "task_progress", task_name="first")
    assert client.get_execution(execution.id)["last_seq"] == 3
    assert [event["seq"] for event in client.events(execution.id, until=2)] == [1, 2]
    assert [event["seq"] for event in client.events(execution.id, after=1, until=3)] == [2, 3]
    for until in (0, 1, 2):
        assert list(client.events(execution.id, after=2, until=until)) == []


def write(service: Service, execution_id: str, task: str, *texts: str, dropped: int = 0) -> None:
    lines = [
        {"stream": "log", "level": "info", "text": text, "timestamp_ms": 1_736_942_400_000}
        for text in texts
    ]
    service.emit(execution_id, "task_log", task_name=task, attempt=1, lines=lines, dropped=dropped)


def places(events: Iterable[Event]) -> list[tuple[int, int]]:
    return [(event["seq"], event.get("part", 0)) for event in events]


def test_log_lines_come_to_those_who_ask(service: Service, client: HarmoniaClient) -> None:
    execution = client.run(SMALL_WORKFLOW)
    service.emit(execution.id, "task_started", task_name="first")
    write(service, execution.id, "first", "one", "two")
    service.emit(execution.id, "task_progress", task_name="first")
    write(service, execution.id, "second", "three", dropped=7)
    write(service, execution.id, "second", dropped=1)
    now = list(client.logs(execution.id, follow=False))
    assert [(each["task_name"], each["stream"], each["text"]) for each in now] == [
        ("first", "log", "one"),
        ("first", "log", "two"),
        ("second", "dropped", "7 lines are left out"),
        ("second", "log", "three"),
        ("second", "dropped", "1 line is left out"),
    ]
    assert [each.get("dropped") for each in now] == [None, None, 7, None, 1]
    assert [each["text"] for each in execution.logs("first", follow=False)] == ["one", "two"]
    state = client.get_execution(execution.id)
    assert (state["last_seq"], state["last_id"]) == (2, "2-2")
    assert places(client.events(execution.id, until=2)) == [(1, 0), (2, 0)]
    so_far = [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    assert places(client.events(execution.id, until="2-2", logs=True)) == so_far
    assert places(client.events(execution.id, after="1-1", until="2-1", logs=True)) == so_far[2:4]
    following = execution.logs("first")
    assert next(following)["text"] == "one"
    write(service, execution.id, "first", "four")
    service.finish(execution.id)
    assert [each["text"] for each in following] == ["two", "four"]
    assert places(execution.events()) == [(1, 0), (2, 0), (3, 0)]
    assert places(execution.events(logs=True)) == [*so_far, (2, 3), (3, 0)]
    assert places(execution.events(types=["task_log"], task="second")) == [(2, 1), (2, 2)]


async def test_the_async_client_has_log_lines_too(service: Service) -> None:
    async with AsyncHarmoniaClient(service.url, service.key) as client:
        execution = await client.run(SMALL_WORKFLOW)
        await asyncio.to_thread(write, service, execution.id, "first", "one")
        assert [line["text"] async for line in execution.logs(follow=False)] == ["one"]
        await asyncio.to_thread(service.finish, execution.id)
        assert [line["text"] async for line in execution.logs("first")] == ["one"]
        assert [line async for line in execution.logs("second")] == []


def test_a_stream_that_breaks_is_resumed_after_the_last_event(service: Service) -> None:
    with HarmoniaClient(service.url, service.key) as client:
        execution = client.run(SMALL_WORKFLOW)
        for number in range(3):
            service.emit(execution.id, "task_progress", task_name="first", progress=number / 3)
    with (
        cutting_proxy(service.url, bytes_each=[700, 700]) as (url, connections),
        HarmoniaClient(url, service.key) as client,
    ):
        seen = []
        for event in client.events(execution.id):
            seen.append(event["seq"])
            if event["seq"] == 3:
                service.finish(execution.id)
        assert seen == [1, 2, 3, 4]
    assert len(connections) >= 3


def test_a_post_whose_answer_is_lost_is_sent_again_and_made_once(service: Service) -> None:
    before = len(service.gateway.workflows)
    with (
        cutting_proxy(service.url, bytes_each=[1, 1]) as (url, connections),
        HarmoniaClient(url, service.key) as client,
    ):
        made = client.create_workflow(SMALL_WORKFLOW)
    assert len(connections) == 3
    assert made["workflow_id"] in service.gateway.workflows
    assert len(service.gateway.workflows) == before + 1


def test_a_key_is_never_made_twice(service: Service) -> None:
    before = len(service.gateway.keys)
    with (
        cutting_proxy(service.url, bytes_each=[1]) as (url, connections),
        HarmoniaClient(url, service.key) as client,
        pytest.raises(ServiceUnreachable) as caught,
    ):
        client.create_key("ci", ["read"])
    assert caught.value.sent is True
    assert len(connections) == 1
    assert len(service.gateway.keys) == before + 1


def test_a_key_of_ones_own_holds_for_calls(service: Service, client: HarmoniaClient) -> None:
    first = client.run(SMALL_WORKFLOW, {"a": 1}, idempotency_key="run-1")
    with HarmoniaClient(service.url, service.key) as another:
        assert another.run(SMALL_WORKFLOW, {"a": 1}, idempotency_key="run-1").id == first.id
    with pytest.raises(Conflict, match="'run-1'"):
        client.run(SMALL_WORKFLOW, {"a": 2}, idempotency_key="run-1")
    assert client.run(SMALL_WORKFLOW, {"a": 1}).id != first.id
    kept = [first.checkpoint("c", idempotency_key="keep-1") for _ in range(2)]
    assert kept[0] == kept[1]


def test_result_gives_the_output_or_says_why_there_is_none(
    service: Service, client: HarmoniaClient
) -> None:
    good = client.run(SMALL_WORKFLOW)
    service.finish(good.id, output={"answer": 42})
    assert good.result(timeout=10) == {"answer": 42}
    assert good.status == "completed"
    bad = client.run(SMALL_WORKFLOW)
    service.finish(bad.id, "failed", error={"code": "timeout", "message": "too slow"})
    with pytest.raises(ExecutionEndedBadly, match="too slow") as caught:
        bad.result(timeout=10)
    assert caught.value.document["status"] == "failed"


def test_a_refresh_is_what_the_execution_says_of_itself(
    service: Service, client: HarmoniaClient
) -> None:
    execution = client.run(SMALL_WORKFLOW)
    assert execution.status == "pending"
    service.gateway.executions[execution.id]["status"] = "running"
    assert execution.refresh(outputs=False)["status"] == "running"
    assert execution.status == "running"


def test_a_wait_ends_in_time_if_the_service_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with HarmoniaClient(f"http://127.0.0.1:{port}", "k") as client:
            execution = Execution(client, {"execution_id": "exec-1", "status": "running"})
            with pytest.raises(WaitTimedOut):
                execution.wait(timeout=0.1)


def test_files_are_listed_read_and_streamed_to_disk(
    service: Service, client: HarmoniaClient, tmp_path: Path
) -> None:
    execution = client.run(SMALL_WORKFLOW)
    content = bytes(range(256)) * 100
    service.gateway.files[execution.id, "out/report.pdf"] = content
    assert [item["path"] for item in execution.files()["items"]] == ["out/report.pdf"]
    assert execution.read_file("out/report.pdf") == content
    saved = execution.download("out/report.pdf", tmp_path)
    assert saved == tmp_path / "report.pdf"
    assert saved.read_bytes() == content
    with pytest.raises(NotFound):
        execution.download("missing.pdf", tmp_path / "missing.pdf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.pdf"]


def test_a_definition_can_come_from_a_file(client: HarmoniaClient, tmp_path: Path) -> None:
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(SMALL_WORKFLOW))
    assert client.run(path).document["status"] == "pending"
    assert client.run(str(path)).document["status"] == "pending"
    path.write_text("[")
    with pytest.raises(ValueError, match="workflow"):
        client.run(path)


async def test_the_async_client_does_the_same(service: Service, tmp_path: Path) -> None:
    async with AsyncHarmoniaClient(service.url, service.key) as client:
        execution = await client.run(SMALL_WORKFLOW, {"a": 1}, idempotency_key="async-1")
        again = await client.run(SMALL_WORKFLOW, {"a": 1}, idempotency_key="async-1")
        assert again.id == execution.id
        service.gateway.executions[execution.id]["status"] = "running"
        assert (await execution.refresh())["input"] == {"a": 1}
        assert execution.status == "running"
        service.gateway.files[execution.id, "a.txt"] = b"text"
        await asyncio.to_thread(service.emit, execution.id, "execution_started")
        seen = []
        async for event in execution.events():
            seen.append(event["seq"])
            if event["seq"] == 1:
                await asyncio.to_thread(service.finish, execution.id, output={"x": 1})
        assert seen == [1, 2]
        assert await execution.result(timeout=10) == {"x": 1}
        assert (await execution.audit())["complete"] is True
        assert await execution.read_file("a.txt") == b"text"
        assert (await execution.download("a.txt", tmp_path)).read_bytes() == b"text"
        again = await client.execution(execution.id)
        assert again.status == "completed"
        with pytest.raises(ExecutionNotFound):
            await client.cancel_execution(f"exec-{'0' * 8}-0000-4000-8000-{'0' * 12}")


def test_the_async_client_has_every_method_of_the_sync_one() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(HarmoniaClient) == public(AsyncHarmoniaClient)


class cutting_proxy:  # noqa: N801 - used as a context
    """A TCP proxy that cuts its first connections after so many bytes of the answer each."""

    def __init__(self, target: str, *, bytes_each: list[int]) -> None:
        host, _, port = target.removeprefix("http://").partition(":")
        self._target = (host, int(port))
        self._limits = bytes_each
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[int] = []
        self._threads: list[threading.Thread] = []
        self._outgoing: list[socket.socket] = []

    def __enter__(self) -> tuple[str, list[int]]:
        accepting = threading.Thread(target=self._accept)
        accepting.start()
        self._threads.append(accepting)
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}", self._connections

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for outgoing in self._outgoing:
            # A connection that is kept alive would keep its thread until the server gives it up.
            with suppress(OSError):
                outgoing.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                incoming, _ = self._listener.accept()
            except OSError:
                return
            number = len(self._connections)
            self._connections.append(number)
            limit = self._limits[number] if number < len(self._limits) else 10**9
            thread = threading.Thread(target=self._relay, args=(incoming, limit))
            thread.start()
            self._threads.append(thread)

    def _relay(self, incoming: socket.socket, left: int) -> None:
        with incoming, socket.create_connection(self._target) as outgoing:
            self._outgoing.append(outgoing)
            asking = threading.Thread(target=self._pass_on, args=(incoming, outgoing))
            asking.start()
            while left > 0 and (chunk := outgoing.recv(65_536)):
                incoming.sendall(chunk[:left])
                left -= len(chunk)
            with suppress(OSError):
                incoming.shutdown(socket.SHUT_RDWR)
            asking.join(10)

    @staticmethod
    def _pass_on(incoming: socket.socket, outgoing: socket.socket) -> None:
        with suppress(OSError):
            while chunk := incoming.recv(65_536):
                outgoing.sendall(chunk)
