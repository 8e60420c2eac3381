"""A replica and an execution actor: what takes a call. A fake handle stands for the actor."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from harmonia_actors.actors.launcher import RayLauncher
from harmonia_actors.actors.ray_ports import ActorRef
from harmonia_actors.settings import Settings
from tests.support.scripted_actors import settle, until


class Owner:
    """Notes its calls; each returns when it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.returns = asyncio.Event()
        self.forgotten = 0

    def __getattr__(self, method: str) -> Any:
        owner = self

        class Method:
            def remote(self, *arguments: Any) -> asyncio.Future[None]:
                owner.calls.append((method, *arguments))
                return asyncio.ensure_future(owner._return())

        return Method()

    async def _return(self) -> None:
        await self.returns.wait()
        if not self.calls:
            raise ValueError("there is no such actor")

    async def get(self) -> Owner:
        return self

    def forget(self) -> None:
        self.forgotten += 1


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def launcher(owner: Owner) -> RayLauncher:
    made = RayLauncher(Settings())
    made._owners["o"] = cast(ActorRef, owner)
    return made


async def started_and_awaited(launcher: RayLauncher) -> None:
    await launcher.start("o", "e", "d", {"head": b"1"})
    await launcher.wait_ended("o", "e")


async def test_whoever_waits_for_what_he_has_just_started_makes_one_call(
    launcher: RayLauncher, owner: Owner
) -> None:
    waits = [asyncio.ensure_future(started_and_awaited(launcher))]
    await settle()
    assert owner.calls == [("start", "e", "d", {"head": b"1"}, True)]
    # Whoever comes later asks for himself.
    waits.append(asyncio.ensure_future(launcher.wait_ended("o", "e")))
    await settle()
    assert owner.calls[1:] == [("wait_ended", "e")]
    assert not any(wait.done() for wait in waits)
    owner.returns.set()
    await asyncio.gather(*waits)


async def test_a_start_that_nobody_waits_for_returns_when_it_is_heard(
    launcher: RayLauncher, owner: Owner
) -> None:
    await launcher.start("o", "e", "d", {})
    await settle()
    assert owner.calls == [("start", "e", "d", {}, False)]


async def test_who_waits_no_longer_takes_nothing_from_others(
    launcher: RayLauncher, owner: Owner
) -> None:
    wait = asyncio.ensure_future(started_and_awaited(launcher))
    await settle()
    wait.cancel()
    await settle()
    assert wait.cancelled()
    again = asyncio.ensure_future(launcher.wait_ended("o", "e"))
    await settle()
    assert [call[0] for call in owner.calls] == ["start", "wait_ended"]
    owner.returns.set()
    await again
    await until(lambda: not launcher._background)


async def test_the_death_of_an_owner_ends_the_wait(launcher: RayLauncher, owner: Owner) -> None:
    wait = asyncio.ensure_future(started_and_awaited(launcher))
    await settle()
    owner.calls.clear()
    owner.returns.set()
    await wait
    await until(lambda: owner.forgotten == 1)
