"""The nodes that task actors run on: an actor waits until one has free what it asks for.

There is one node; in some scenarios another one, with a board, is added when somebody waits for it,
as an autoscaler would.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from harmonia_actors.core.resources import Capacity, ResourceRequest
from harmonia_actors.runtime.orders import QueueKey
from tests.simulation.faults import Faults
from tests.simulation.network import Network
from tests.simulation.virtual_loop import Process

__all__ = ["CPUS", "Machine"]

CPUS = 3
_START_S = (0.05, 0.4)
_HOME, _WITH_BOARD = "node", "node with a board"
_RESOURCES = {
    _HOME: {"CPU": float(CPUS), "memory": 8e9},
    _WITH_BOARD: {"CPU": 2.0, "memory": 8e9, "board": 1.0},
}
_COMES_S = (0.5, 8.0)

Started = Callable[[str], None]
Waiting = tuple[Process, QueueKey, Started]


class Machine:
    """Starts processes as soon as their CPUs are free, whoever can first in order of coming."""

    def __init__(self, network: Network, faults: Faults, seed: str, *, grows: bool) -> None:
        self._network = network
        self._grows = grows
        self._faults = faults
        self._luck = random.Random(f"{seed}/machine")
        #: What is free of each node that is there.
        self._free = {_HOME: dict(_RESOURCES[_HOME])}
        self._waiting: list[Waiting] = []
        self._is_coming = False

    def capacity(self) -> Capacity:
        """What there is, and what may be added."""
        nodes = {name: _RESOURCES[name] for name in self._free}
        return Capacity(nodes, (_RESOURCES[_WITH_BOARD],) if self._grows else ())

    def place(self, process: Process, key: QueueKey, started: Started) -> None:
        """Call `started`, with the node, once the process has begun to run; it may fail to."""
        self._waiting.append((process, key, started))
        self._start_next()

    def _start_next(self) -> None:
        waiting, self._waiting = self._waiting, []
        for process, key, started in waiting:
            if not process.alive:
                continue
            node = self._node_for(key)
            if node is None:
                self._waiting.append((process, key, started))
            else:
                self._start(process, node, key, started)
        if self._is_wanted() and not self._is_coming:
            self._is_coming = True
            self._network.later(self._luck.uniform(*_COMES_S), self._come)

    def _node_for(self, key: QueueKey) -> str | None:
        for node, free in self._free.items():
            fits = all(free.get(name, 0.0) >= amount for name, amount in _demand(key).items())
            if fits and key.node_id in ("", node):
                return node
        return None

    def _is_wanted(self) -> bool:
        is_there = _WITH_BOARD in self._free
        return not is_there and any("board" in _demand(key) for _, key, _ in self._waiting)

    def _come(self) -> None:
        """The node is there, unless nobody waits for it any more."""
        self._is_coming = False
        self._waiting = [each for each in self._waiting if each[0].alive]
        if self._is_wanted():
            self._free[_WITH_BOARD] = dict(_RESOURCES[_WITH_BOARD])
        self._start_next()

    def _start(self, process: Process, node: str, key: QueueKey, started: Started) -> None:
        free = self._free[node]
        for name, amount in _demand(key).items():
            free[name] -= amount

        def give_back() -> None:
            for name, amount in _demand(key).items():
                free[name] += amount
            self._network.later(0.0, self._start_next)

        process.when_dead(give_back)
        delay_s = self._luck.uniform(*_START_S)
        fails = self._faults.strikes("task actor does not start")
        self._network.later(delay_s, process.kill if fails else lambda: started(node))


def _demand(key: QueueKey) -> dict[str, float]:
    is_light = key.shared and key.resources == ResourceRequest.DEFAULT
    return {} if is_light else key.resources.demand()
