"""The machine that task actors run on: an actor waits until the CPUs that it asks for are free."""

from __future__ import annotations

import random
from collections.abc import Callable

from harmonia_actors.runtime.orders import QueueKey
from tests.simulation.faults import Faults
from tests.simulation.network import Network
from tests.simulation.virtual_loop import Process

__all__ = ["CPUS", "Machine"]

CPUS = 3
_START_S = (0.05, 0.4)


class Machine:
    """Starts processes as soon as their CPUs are free, whoever can first in order of coming."""

    def __init__(self, network: Network, faults: Faults, seed: str) -> None:
        self._network = network
        self._faults = faults
        self._luck = random.Random(f"{seed}/machine")
        self._free = float(CPUS)
        self._waiting: list[tuple[Process, float, Callable[[], None]]] = []

    def place(self, process: Process, key: QueueKey, started: Callable[[], None]) -> None:
        """Call `started` once the process has begun to run; it may fail to."""
        light = key == QueueKey(shared=True)
        self._waiting.append((process, 0.0 if light else key.resources.num_cpus, started))
        self._start_next()

    def _start_next(self) -> None:
        waiting, self._waiting = self._waiting, []
        for process, cpus, started in waiting:
            if process.alive and cpus > self._free:
                self._waiting.append((process, cpus, started))
            elif process.alive:
                self._start(process, cpus, started)

    def _start(self, process: Process, cpus: float, started: Callable[[], None]) -> None:
        self._free -= cpus

        def give_back() -> None:
            self._free += cpus
            self._network.later(0.0, self._start_next)

        process.when_dead(give_back)
        delay_s = self._luck.uniform(*_START_S)
        fails = self._faults.strikes("task actor does not start")
        self._network.later(delay_s, process.kill if fails else started)
