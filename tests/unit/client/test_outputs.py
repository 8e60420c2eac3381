"""Outputs that are too large for an answer, from the real service."""

from __future__ import annotations

from typing import Any

import pytest

from harmonia_serve.client import AsyncHarmoniaClient, HarmoniaClient
from harmonia_serve.client.flows import is_kept_apart
from tests.support.local_service import LocalService

LARGE = "x" * 100_000
ECHO = {
    "name": "echo",
    "tasks": {"say": {"component": "harmonia", "action": "echo", "input": {"value": LARGE}}},
}
SAID = {**ECHO, "output": {"said": "${tasks.say.output.value}"}}


def test_a_large_output_is_fetched_whole(service: LocalService) -> None:
    with HarmoniaClient(service.url, service.api_key) as client:
        execution = client.run(SAID)
        assert execution.result(timeout=30) == {"said": LARGE}
        assert is_kept_apart(execution.document["output"]), "or this test shows nothing"


async def test_the_async_client_fetches_it_too(service: LocalService) -> None:
    async with AsyncHarmoniaClient(service.url, service.api_key) as client:
        execution = await client.run(SAID)
        assert await execution.result(timeout=30) == {"said": LARGE}


def test_a_part_that_is_kept_apart_is_a_reference(service: LocalService) -> None:
    with HarmoniaClient(service.url, service.api_key) as client:
        execution = client.run(ECHO)
        result = execution.result(timeout=30)
        assert [is_kept_apart(part) for part in result.values()] == [True]
        assert LARGE.encode() in execution.task_output("say")


@pytest.mark.parametrize(
    "value",
    [
        None,
        "x",
        [],
        {"$ref": "/executions/exec-1/output"},
        {"$ref": "#/definitions/a", "size": 1, "preview": ""},
        {"$ref": 1, "size": 1, "preview": ""},
        {"$ref": "/executions/exec-1/output", "size": 1, "preview": "", "more": 1},
    ],
)
def test_what_an_action_has_made_is_no_reference(value: Any) -> None:
    assert not is_kept_apart(value)
