"""A follower that wants to be left alone once nothing more happens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from harmonia_actors.settings import Settings
from harmonia_serve.client import AsyncHarmoniaClient, HarmoniaClient
from harmonia_serve.gateway import StreamEvent
from tests.unit.service_thread import SMALL_WORKFLOW, Service, running_service

DEADLINE_S = 20.0
#: Several signs of life come within the time that the follower waits for an event.
BEAT_S, IDLE_S = 0.02, 0.2


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running_service(Settings(stream_heartbeat_s=BEAT_S)) as found:
        yield found


@pytest.fixture
def execution_id(service: Service) -> str:
    with HarmoniaClient(service.url, service.key) as client:
        execution = client.run(SMALL_WORKFLOW)
    service.emit(execution.id, "execution_started")
    return execution.id


def seen(service: Service, execution_id: str, **options: Any) -> list[int]:
    """What a follower sees until it is left alone."""
    with HarmoniaClient(service.url, service.key) as client:
        return [event["seq"] for event in client.events(execution_id, **options)]


@contextmanager
def in_time(service: Service, execution_id: str, **options: Any) -> Iterator[Future[list[int]]]:
    """A follower in another thread, which ends with the execution if nothing else ends it."""
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(seen, service, execution_id, **options)
        finally:
            service.finish(execution_id)


def let_time_pass(service: Service) -> None:
    """As much as another follower takes to be left alone, and more."""
    with HarmoniaClient(service.url, service.key) as client:
        other = client.run(SMALL_WORKFLOW)
    assert seen(service, other.id, idle_s=2 * IDLE_S) == []


@pytest.mark.parametrize(("after", "expected"), [(0, [1]), (1, [])])
def test_signs_of_life_are_no_events(
    service: Service, execution_id: str, after: int, expected: list[int]
) -> None:
    with in_time(service, execution_id, idle_s=IDLE_S, after=after) as following:
        assert following.result(DEADLINE_S) == expected


async def test_the_async_client_is_left_alone_too(service: Service, execution_id: str) -> None:
    async with AsyncHarmoniaClient(service.url, service.key) as client, asyncio.timeout(DEADLINE_S):
        events = client.events(execution_id, idle_s=IDLE_S)
        assert [event["seq"] async for event in events] == [1]
        events = client.events(execution_id, until=1)
        assert [event["seq"] async for event in events] == [1]


def test_time_that_the_follower_takes_does_not_count(service: Service, execution_id: str) -> None:
    with HarmoniaClient(service.url, service.key) as client:
        found = []
        for event in client.events(execution_id, idle_s=IDLE_S):
            found.append(event["seq"])
            if event["seq"] == 1:
                let_time_pass(service)
                service.emit(execution_id, "task_started", task_name="first")
                service.finish(execution_id)
    assert found == [1, 2, 3]


def test_a_service_that_takes_its_time_to_answer_is_not_idle(
    service: Service, execution_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = service.gateway.events
    asked, answer = threading.Event(), asyncio.Event()

    async def slow(wanted: str, *, after: int, part: int) -> AsyncIterator[Sequence[StreamEvent]]:
        if wanted == execution_id:
            asked.set()
            await answer.wait()
        async for batch in original(wanted, after=after, part=part):
            yield batch

    monkeypatch.setattr(service.gateway, "events", slow)
    with in_time(service, execution_id, idle_s=IDLE_S) as following:
        assert asked.wait(DEADLINE_S)
        let_time_pass(service)
        service.loop.call_soon_threadsafe(answer.set)
        assert following.result(DEADLINE_S) == [1]
