"""The store as a process sees it over the network: a real memory store behind wires that fail.

A request that is lost was never made; a reply that is lost leaves the write in place; a request
that comes late is made after its sender has given it up, perhaps after he has repeated it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from persistence.errors import StoreError, StoreUnavailable
from persistence.memory_store import MemoryStore
from tests.simulation.faults import Faults
from tests.simulation.network import Network
from tests.simulation.virtual_loop import Process, VirtualLoop

__all__ = ["DistantStore", "StoreServer", "at_once"]

_GIVEN_UP_S = 1.0
_LATE_S = 4.0
_SLOW_S = 4.0

#: Tells who asked for what, how it was answered: (process, method, arguments, answer).
Witness = Callable[[Process, str, tuple[Any, ...], dict[str, Any], Any], None]


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a call to the memory store, which never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the memory store has waited for something")


class StoreServer:
    """The one server, which may be away."""

    def __init__(
        self, loop: VirtualLoop, network: Network, faults: Faults, now_ms: Callable[[], int]
    ) -> None:
        self.loop = loop
        self.network = network
        self.faults = faults
        self.memory = MemoryStore(now_ms)
        self.away = False
        #: Until then requests take long.
        self.slow_until_s = 0.0
        #: Processes that cannot reach the server.
        self.cut_off: set[str] = set()
        self.witness: Witness = lambda *_: None
        #: A process was stopped: somebody has to wake it again.
        self.when_stopped: Callable[[Process], None] = lambda _: None

    def ask(self, process: Process, name: str, arguments: Any, named: Any) -> Any:
        """Carry a request out, now."""
        try:
            answer = at_once(getattr(self.memory, name)(*arguments, **named))
        except StoreError as error:
            answer = error
        self.witness(process, name, arguments, named, answer)
        return answer


class DistantStore:
    """Implements the protocol Store for one process, by asking the server over the network."""

    def __init__(self, server: StoreServer, process: Process) -> None:
        self._server = server
        self._process = process

    def __getattr__(self, name: str) -> Any:
        async def ask(*arguments: Any, **named: Any) -> Any:
            return await self._ask(name, arguments, named)

        setattr(self, name, ask)
        return ask

    async def _ask(self, name: str, arguments: Any, named: Any) -> Any:
        server, process = self._server, self._process
        network, faults = server.network, server.faults
        network.check_open()
        answer: asyncio.Future[Any] = server.loop.create_future()
        if name == "commit" and faults.strikes("owner dies with a decision"):
            process.kill()
        if not process.alive:
            return await answer
        if process.name in server.cut_off or faults.strikes("store request is lost"):
            self._reply(answer, name, StoreUnavailable("the request was lost"))
        elif faults.strikes("store request comes late") or (
            name == "commit" and faults.strikes("commit comes late")
        ):
            given_up_s = faults.between(0.01, _GIVEN_UP_S)
            network.later(given_up_s, self._reply, answer, name, StoreUnavailable("no answer"))
            late_s = given_up_s + faults.between(0, _LATE_S)
            network.later(late_s, self._arrive, None, name, arguments, named)
        else:
            delay_s = network.delay_s()
            if server.loop.time() < server.slow_until_s:
                delay_s += faults.between(0, _SLOW_S)
            network.later(delay_s, self._arrive, answer, name, arguments, named)
        return await answer

    def _arrive(
        self, answer: asyncio.Future[Any] | None, name: str, arguments: Any, named: Any
    ) -> None:
        server, faults = self._server, self._server.faults
        if server.network.closed:
            return
        if server.away:
            result: Any = StoreUnavailable("the server is away")
        else:
            result = server.ask(self._process, name, arguments, named)
            if name == "commit" and result is None and faults.strikes("owner dies with a commit"):
                self._process.kill()
            if answer is not None and faults.strikes("store reply is lost"):
                result = StoreUnavailable("the reply was lost")
        if answer is not None:
            self._reply(answer, name, result)

    def _reply(self, answer: asyncio.Future[Any], name: str, result: Any) -> None:
        network = self._server.network
        if self._process.name in self._server.cut_off:
            result = StoreUnavailable("the connection was lost")
        self._server.loop.call_later(
            network.delay_s(), self._settle, answer, name, result, context=self._process.context()
        )

    def _settle(self, answer: asyncio.Future[Any], name: str, result: Any) -> None:
        if answer.done():
            return
        if isinstance(result, Exception):
            answer.set_exception(result)
            return
        faults = self._server.faults
        if name == "commit" and faults.strikes("owner dies before it performs"):
            self._process.kill()
        if name == "commit" and faults.strikes("owner stops before it performs"):
            self._process.stop()
            self._server.when_stopped(self._process)
        answer.set_result(result)
