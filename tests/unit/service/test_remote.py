"""Remote components in an installation: catalogue, checks of inputs, attempts of all kinds."""

from __future__ import annotations

import asyncio
import json
import pickle
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.components.registry import ComponentLoadError
from harmonia_actors.core.errors import ValidationFailed
from harmonia_actors.runtime.remote_components import (
    ask_services,
    load_registry,
    remote_components,
)
from harmonia_actors.runtime.service.schema_checks import ActionInput, SchemaChecks
from harmonia_actors.runtime.service.schema_process import CheckLimits
from harmonia_actors.settings import Settings
from tests.support.remote_service import (
    Act,
    RemoteServer,
    answering,
    ndjson,
    raw_server,
    serve_remote,
)
from tests.support.scripted_actors import until
from tests.unit.service.conftest import MakeWorld, World, problems

#: As a typed function's schema is written by pydantic: not plain, because of the reference.
RICH: dict[str, Any] = {
    "type": "object",
    "$defs": {"Unit": {"enum": ["mm", "inch"]}},
    "properties": {
        "length": {"type": "integer", "minimum": 0},
        "unit": {"anyOf": [{"$ref": "#/$defs/Unit"}, {"type": "null"}]},
    },
    "required": ["length"],
    "additionalProperties": False,
}
PLAIN: dict[str, Any] = {
    "type": "object",
    "properties": {"length": {"type": "integer", "minimum": 0}, "unit": {"enum": ["mm", "inch"]}},
    "required": ["length"],
    "additionalProperties": False,
}


def _doubling(depth: int) -> dict[str, Any]:
    """A schema of a few lines that takes twice as long to check for each step of depth."""
    defs: dict[str, Any] = {"d0": {"type": "integer"}}
    for step in range(1, depth):
        twice = {"$ref": f"#/$defs/d{step - 1}"}
        defs[f"d{step}"] = {"allOf": [{"anyOf": [twice, twice]}]}
    return {
        "type": "object",
        "$defs": defs,
        "properties": {"n": {"$ref": f"#/$defs/d{depth - 1}"}},
    }


COSTLY = _doubling(28)


@pytest.fixture
async def server() -> AsyncIterator[RemoteServer]:
    async with serve_remote() as found:
        found.action("echo", answering({"output": "echoed"}))
        found.action("plain", answering({"output": "measured"}), PLAIN)
        found.action("rich", answering({"output": "measured"}), RICH)
        yield found


async def world_of(server: RemoteServer, make_world: MakeWorld, **settings: Any) -> World:
    known = await ask_services(Settings(components=(server.url,), **settings))
    made: World = await make_world(components=remote_components(known), **settings)
    return made


def task(action: str, given: Any = None, **fields: Any) -> dict[str, Any]:
    return {"component": "far", "action": action, "input": given or {}, **fields}


# The catalogue -----------------------------------------------------------------------------------


async def test_what_is_asked_for_once_makes_the_same_components_everywhere(
    server: RemoteServer,
) -> None:
    settings = Settings(
        components=(f"{server.url}/", server.url), component_tokens={server.url: "canary"}
    )
    known = await ask_services(settings)
    assert [method for method, _, _ in server.asked] == ["GET"]
    assert server.asked[0][1]["authorization"] == "Bearer canary"
    packed = json.loads(json.dumps(known.component_catalogues))
    handed_on = Settings(**{**known.model_dump(), "component_catalogues": packed})
    catalogue = {each["name"]: each for each in load_registry(handed_on).catalogue()}
    far = catalogue["far"]
    assert (far["url"], far["description"]) == (server.url, "Far away")
    assert catalogue["ergon"]["url"] is None
    rich = next(action for action in far["actions"] if action["name"] == "rich")
    assert rich == {
        "name": "rich",
        "description": "Does rich",
        "input_schema": RICH,
        "is_async": True,
        "uses_files": False,
    }
    assert len(server.asked) == 1, "whoever knows the catalogue asks no more"
    assert "canary" not in f"{known!r} {known.for_display()}"


async def test_catalogues_that_are_too_much_to_carry_are_refused(server: RemoteServer) -> None:
    noise = random.Random(0)
    words = [f"{noise.getrandbits(400):x}" for _ in range(1_500)]
    noisy: dict[str, Any] = {word: {} for word in words}
    server.action("wordy", answering({}), {"type": "object", "properties": noisy})
    assert "at most 64000 are carried" in await refused(server.url)
    regular = {f"p{n}": {"type": "integer", "description": "A number"} for n in range(9_000)}
    server.action("wordy", answering({}), {"type": "object", "properties": regular})
    known = await ask_services(Settings(components=(server.url,)))
    assert len(pickle.dumps(known)) < 100_000, "Ray keeps it with the actor"


async def test_a_service_that_nobody_has_asked_is_named() -> None:
    with pytest.raises(ComponentLoadError, match=r"nobody has asked http://127\.0\.0\.1:9"):
        load_registry(Settings(components=("http://127.0.0.1:9",)))


async def test_a_token_for_no_service_is_refused() -> None:
    settings = Settings(
        components=("http://127.0.0.1:9",), component_tokens={"http://127.0.0.1:8": "canary"}
    )
    with pytest.raises(
        ComponentLoadError, match=r"token for http://127\.0\.0\.1:8, which"
    ) as caught:
        await ask_services(settings)
    assert "canary" not in str(caught.value)


async def refused(url: str, **settings: Any) -> str:
    with pytest.raises(ComponentLoadError) as caught:
        await ask_services(Settings(components=(url,), **settings))
    assert url in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (answering({}, 404), "404 Not Found"),
        (answering({}, 401), "HARMONIA_COMPONENT_TOKENS"),
        (answering({}, 302, location="/elsewhere"), "redirects are not followed"),
        (answering(b"<html>"), "not JSON"),
        (answering(b"x" * 2_000_000), "1000000 bytes"),
        (answering(b"x", **{"content-encoding": "gzip"}), "gzip"),
        (answering([]), "the whole must be a JSON object"),
        (answering({}), "the whole must be a JSON object that is not empty"),
        (answering({"components": {}}), "components must be a JSON object that is not empty"),
        (answering({"components": {"a/b": {}}}), "components has the name 'a/b'"),
        (answering({"components": {"..": {}}}), "components has the name '..'"),
        (answering({"components": {"a": {"actions": {}}}}), "components.a.actions must be"),
    ],
)
async def test_a_catalogue_that_cannot_be_had_or_used_says_why(
    server: RemoteServer, answer: Act, says: str
) -> None:
    server.catalogue = answer
    assert says in await refused(server.url)


@pytest.mark.parametrize(
    ("action", "says"),
    [
        ({"input_schema": {"type": "object"}, "uses_files": True}, "uses_files is not supported"),
        ({"input_schema": {"type": "object"}, "description": 5}, "description must be text"),
        ({}, "actions.do must be a JSON object that is not empty"),
        ({"description": "d"}, "input_schema must be a JSON object"),
        ({"input_schema": {}}, '"type": "object"'),
        ({"input_schema": {"type": "array"}}, '"type": "object"'),
        ({"input_schema": {"type": "object", "properties": 5}}, "schema that can be used"),
        (
            {"input_schema": {"type": "object", "properties": {"a": {"$ref": "http://x/y"}}}},
            "never fetched",
        ),
        (
            {
                "input_schema": {
                    "type": "object",
                    "properties": {"a": {"type": "string", "pattern": "(?:(?:a{999}){999}){999}"}},
                }
            },
            "schema that can be used",
        ),
    ],
)
async def test_an_action_that_cannot_be_offered_is_named(
    server: RemoteServer, action: dict[str, Any], says: str
) -> None:
    server.catalogue = answering({"components": {"c": {"actions": {"do": action}}}})
    told = await refused(server.url)
    assert says in told
    assert "components.c.actions.do" in told


@pytest.mark.parametrize(
    ("default", "says"),
    [
        (b"1e999", "1e999 is too large for a number"),
        (b"-1" + b"0" * 400 + b".5", "0000… is too large for a number"),
        (b"NaN", "NaN is not JSON"),
        (b"[" * 65 + b"]" * 65, "nested more than 64 deep"),
        (b"[" * 900 + b"]" * 900, "nested more than 64 deep"),
        (b"[" * 9_000 + b"]" * 9_000, "nested too deep"),
    ],
)
async def test_a_catalogue_that_no_process_could_be_handed_is_refused(
    server: RemoteServer, default: bytes, says: str
) -> None:
    schema = b'{"type":"object","default":' + default + b"}"
    body = b'{"components":{"c":{"actions":{"do":{"input_schema":' + schema + b"}}}}}"
    server.catalogue = answering(body)
    assert says in await refused(server.url)


@pytest.mark.parametrize("url", ["http://\u2025/", "http://xn--/", "http://a..b/x"])
async def test_a_host_that_cannot_be_looked_for_is_one_that_cannot_be_reached(url: str) -> None:
    assert "cannot be reached" in await refused(url.rstrip("/"))


async def test_a_service_that_is_away_or_silent_is_not_waited_for() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert "cannot be reached" in await refused(url)
    async with raw_server(then_wait=True) as silent:
        assert "within 0.2 s" in await refused(silent, remote_catalogue_s_max=0.2)


async def test_a_name_that_there_is_already_is_refused_with_both(server: RemoteServer) -> None:
    server.name = "ergon"
    told = await refused(server.url)
    assert "two components are called 'ergon'" in told
    assert "harmonia_actors.components.ergon" in told
    async with serve_remote() as other:
        server.name = other.name = "far"
        other.action("echo", answering({}))
        with pytest.raises(ComponentLoadError, match="called 'far'") as caught:
            await ask_services(Settings(components=(server.url, other.url)))
    assert server.url in str(caught.value)
    assert other.url in str(caught.value)


async def test_a_name_that_a_module_has_is_refused_where_modules_are_loaded(
    server: RemoteServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "near_and_far.py").write_text(
        "from harmonia_actors.components.contract import Component\n"
        "component = Component('far')\n"
        "@component.action\n"
        "def echo() -> None: ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    known = await ask_services(Settings(components=("near_and_far", server.url)))
    with pytest.raises(ComponentLoadError, match="called 'far'") as caught:
        load_registry(known)
    assert "near_and_far" in str(caught.value)
    assert server.url in str(caught.value)


# Inputs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["plain", "rich"])
async def test_inputs_are_checked_at_creation(
    server: RemoteServer, make_world: MakeWorld, action: str
) -> None:
    world = await world_of(server, make_world)
    tasks = {
        "a": task(action, {"length": -1, "unit": "ell"}),
        "b": task(action),
        "c": task(action, {"length": 1, "units": "mm"}),
        "d": task(action, {"length": "${workflow.input.n}", "unit": {"x": "${workflow.input.n}"}}),
        "e": task(action, {"unit": "${workflow.input.n}"}),
        "f": {"component": "gates", "action": "ecko"},
        "g": task("ecko"),
    }
    with pytest.raises(ValidationFailed) as caught:
        await world.workflow(tasks)
    found = problems(caught)
    assert [*found] == [
        "tasks.a.input.length",
        "tasks.a.input.unit",
        "tasks.b.input.length",
        "tasks.c.input.units",
        "tasks.e.input.length",
        "tasks.f.action",
        "tasks.g.action",
    ]
    assert "minimum" in found["tasks.a.input.length"]
    assert found["tasks.b.input.length"] == found["tasks.e.input.length"] == "is required"
    assert "did you mean 'unit'?" in found["tasks.c.input.units"]
    assert len(server.asked) == 1, "nothing was carried out"


@pytest.mark.parametrize("tasks", [None, [], {"a": None}, {"a": {"component": ["far"]}}])
async def test_what_is_no_task_is_refused_as_ever(
    server: RemoteServer, make_world: MakeWorld, tasks: Any
) -> None:
    world = await world_of(server, make_world)
    with pytest.raises(ValidationFailed):
        await world.gateway.create_workflow({"name": "w", "tasks": tasks})


async def test_the_inputs_of_a_whole_definition_have_the_bounds_of_one_check(
    server: RemoteServer, make_world: MakeWorld
) -> None:
    server.action("costly", answering({"output": 1}), COSTLY)
    world = await world_of(server, make_world, schema_check_cpu_s_max=0.3)
    with pytest.raises(ValidationFailed) as caught:
        await world.workflow(
            {
                "a": task("rich", {"length": -1}),
                "b": task("costly", {"n": "not a number"}),
                "c": task("costly", {"n": "not a number"}),
            }
        )
    found = problems(caught)
    assert [*found] == ["tasks.a.input.length", "tasks.b.input"]
    assert "0.3 s of processor time" in found["tasks.b.input"]


@pytest.mark.parametrize("action", ["plain", "rich"])
async def test_values_of_references_are_checked_before_anything_is_sent(
    server: RemoteServer, make_world: MakeWorld, action: str
) -> None:
    world = await world_of(server, make_world)
    tasks = {"a": task(action, {"length": "${workflow.input.n}"}, retry_policy={"max_retries": 3})}
    found = await world.run(tasks, {"n": "long"})
    error = found["task_status"]["a"]["error"]
    assert found["task_status"]["a"]["attempt"] == 1
    assert "input of action" in str(error)
    assert "length" in str(error)
    assert "INVALID_INPUT" in str(error)
    assert len(server.asked) == 1, "nothing was carried out"
    assert (await world.run(tasks, {"n": 3}))["status"] == "completed"
    assert server.asked[-1][2]["input"] == {"length": 3}


async def test_an_input_that_nobody_has_time_to_check_is_left_to_the_service(
    server: RemoteServer, make_world: MakeWorld
) -> None:
    world = await world_of(server, make_world)
    checks = SchemaChecks(CheckLimits(4.0, 1_000_000_000), turn_s=0.05)
    world.installation.runner.schemas = checks
    busy = [
        asyncio.ensure_future(checks.of_inputs([ActionInput(COSTLY, {"n": "x"})])) for _ in range(2)
    ]
    await asyncio.sleep(0)
    found = await world.run({"a": task("rich", {"length": "${workflow.input.n}"})}, {"n": "long"})
    assert not any(each.done() for each in busy)
    await asyncio.gather(*busy)
    assert found["status"] == "completed"
    assert server.asked[-1][2]["input"] == {"length": "long"}


# Attempts ----------------------------------------------------------------------------------------


async def test_tasks_near_and_far_work_together(
    server: RemoteServer, make_world: MakeWorld
) -> None:
    world = await world_of(server, make_world)
    server.action(
        "echo",
        ndjson({"progress": {"fraction": 0.25, "message": "a quarter"}}, {"output": {"n": [1, 2]}}),
    )
    tasks = {
        "a": {"input": {"value": {"deep": [7]}}},
        "b": task("echo", {"given": "${tasks.a.output.deep[0]}"}, depends_on=["a"]),
        "c": {"input": {"value": "${tasks.b.output.n[1]}"}, "depends_on": ["b"]},
    }
    execution_id = await world.start(tasks)
    found = await world.ended(execution_id)
    assert (found["status"], found["output"]) == ("completed", {"c": 2})
    body = server.asked[-1][2]
    assert body["input"] == {"given": 7}
    assert body["attempt"]["execution_id"] == execution_id
    assert body["attempt"]["attempt"] == 1
    told = [e for e in await world.events(execution_id) if e["type"] == "task_progress"]
    assert [event["data"]["message"] for event in told] == ["a quarter"]


async def test_what_may_be_over_is_tried_again_with_the_same_key(
    server: RemoteServer, make_world: MakeWorld
) -> None:
    world = await world_of(server, make_world)
    answers = [
        answering({}, 503),
        ndjson({"error": {"message": "not yet"}}),
        answering({"output": "third time"}),
    ]

    async def in_turn(request: Any) -> Any:
        return await answers.pop(0)(request)

    server.action("echo", in_turn)
    again = {"max_retries": 5, "retry_interval": 0.01}
    found = await world.run({"a": task("echo", retry_policy=again)})
    assert found["output"] == {"a": "third time"}
    attempts = [body["attempt"] for _, _, body in server.asked[1:]]
    assert [each["attempt"] for each in attempts] == [1, 2, 3]
    assert len({each["idempotency_key"] for each in attempts}) == 1


async def test_a_refusal_is_final_and_told_with_its_code(
    server: RemoteServer, make_world: MakeWorld
) -> None:
    world = await world_of(server, make_world)
    error = {"message": "no such table", "code": "NO_TABLE", "details": {"table": "t"}}
    server.action("echo", answering({"error": error}, 404))
    execution_id = await world.start({"a": task("echo", retry_policy={"max_retries": 5})})
    found = await world.ended(execution_id)
    assert (found["status"], found["task_status"]["a"]["attempt"]) == ("failed", 1)
    (failed,) = [e["data"] for e in await world.events(execution_id) if e["type"] == "task_failed"]
    assert failed["error"] == "no such table"
    assert failed["error_details"] == {"code": "NO_TABLE", "table": "t"}
    assert failed["will_retry"] is False


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_a_cancel_and_a_timeout_reach_the_service(
    server: RemoteServer, make_world: MakeWorld, how: str
) -> None:
    world = await world_of(server, make_world)
    server.action("echo", server.held({"progress": {"fraction": 0.5}}))
    limit = {"timeout": 2} if how == "timeout" else {}
    execution_id = await world.start({"a": task("echo", **limit)})
    await until(lambda: len(server.asked) == 2)
    if how == "cancel":
        await world.gateway.cancel_execution(execution_id)
    async with asyncio.timeout(10):
        await server.disconnected.wait()
    found = await world.ended(execution_id)
    assert found["status"] == ("cancelled" if how == "cancel" else "failed")


async def test_many_calls_share_one_process(server: RemoteServer, make_world: MakeWorld) -> None:
    world = await world_of(server, make_world)
    count = 60
    all_here = asyncio.Event()

    async def together(request: Any) -> Any:
        if len(server.asked) > count:
            all_here.set()
        await all_here.wait()
        return await answering({"output": 1})(request)

    server.action("echo", together)
    found = await world.run({f"t{n}": task("echo") for n in range(count)})
    assert found["status"] == "completed"


async def test_an_output_that_is_too_large_is_refused(
    server: RemoteServer, make_world: MakeWorld
) -> None:
    world = await world_of(server, make_world, output_bytes_max=1_000)
    for size in (5_000, 500_000):
        server.action("echo", answering({"output": "x" * size}))
        found = await world.run({"a": task("echo")})
        assert "OUTPUT_TOO_LARGE" in str(found["task_status"]["a"]["error"])
