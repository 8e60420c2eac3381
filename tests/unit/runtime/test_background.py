"""What goes on beside is kept until it ends, and no error in it is lost."""

from __future__ import annotations

import asyncio
import gc

from harmonia_actors.runtime.background import BackgroundTasks
from tests.support.scripted_actors import settle


async def test_what_nobody_holds_goes_on_to_its_end() -> None:
    errors: list[BaseException] = []
    background = BackgroundTasks(errors.append)
    done: list[str] = []

    async def wait_for_what_nobody_else_has() -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(end))

        def end() -> None:
            future.set_result(None)

        await future
        done.append("done")

    background.spawn(wait_for_what_nobody_else_has())
    await asyncio.sleep(0)
    gc.collect()
    await settle()
    assert (done, errors) == (["done"], [])


async def test_an_error_is_told_and_the_others_go_on() -> None:
    errors: list[BaseException] = []
    background = BackgroundTasks(errors.append)
    gate = asyncio.Event()
    done: list[str] = []

    async def fail() -> None:
        raise KeyError("unexpected")

    async def go_on() -> None:
        await gate.wait()
        done.append("done")

    background.spawn(fail())
    background.spawn(go_on())
    await settle()
    assert [repr(error) for error in errors] == ["KeyError('unexpected')"]
    gate.set()
    await settle()
    assert done == ["done"]
    assert len(errors) == 1


async def test_closing_ends_all_that_is_under_way_and_is_no_error() -> None:
    errors: list[BaseException] = []
    background = BackgroundTasks(errors.append)
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    background.spawn(wait())
    await settle()
    await background.close()
    assert (ended, errors) == (["ended"], [])
