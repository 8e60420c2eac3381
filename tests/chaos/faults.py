"""What goes wrong with real processes: each kind of fault, and whether it has landed."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import psutil

from harmonia_serve.cli.installation.processes import runs
from harmonia_serve.cli.installation.records import read_running
from tests.support.running import RunningService, start_up, until, wait_ready

__all__ = ["HEAVY", "LIGHT", "Faults"]

#: A stop that outlives an execution actor's lease three times, at the default of 10 s.
_STOP_S = 32.0
#: How long such a one may still take to notice, once it goes on.
_OWNER_END_S = 30.0
#: After so long an execution actor has registered, however busy the machine.
_SERVES_S = 10.0
_STORE_STOP_S_MAX = 5.0
_OUTAGE_S = 60.0


class Faults:
    """Lets faults land on a service, counts them, and mends what does not mend itself."""

    def __init__(self, service: RunningService, random: Random, settings: dict[str, str]) -> None:
        self.service = service
        self.landed: Counter[str] = Counter()
        #: When the last signal was sent that killed or stopped anything.
        self.landed_s = 0.0
        #: Execution actors that were stopped past their lease, since when: each must end itself.
        self.stopped_owners: dict[psutil.Process, float] = {}
        #: Those of them that woke, and so could have done harm; others went with all of Ray.
        self.woken: list[psutil.Process] = []
        #: From when until when the store stood still for long.
        self._store_away: list[tuple[float, float]] = []
        self._random = random
        self._settings = settings
        self._timers: list[threading.Timer] = []
        #: Execution actors, since when each was seen.
        self._owners_since_s: dict[psutil.Process, float] = {}
        self._stopped: list[psutil.Process] = []

    def land(self, kind: str) -> bool:
        """Let one land; False if there is nothing that it could hit just now."""
        self._serving_owners()
        has_landed = {**LIGHT, **HEAVY}[kind](self)
        self.landed[kind] += has_landed
        return has_landed

    def over(self) -> None:
        """Nothing stands still any more, and who was stopped past its lease has ended itself."""
        for timer in self._timers:
            timer.join()
        for owner, since_s in self.stopped_owners.items():
            if self._could_be_succeeded(since_s):
                until(lambda owner=owner: not runs(owner), _OWNER_END_S, f"the end of {owner}")

    def _could_be_succeeded(self, since_s: float) -> bool:
        """Whether the store was there while an owner slept: else it may be one still."""
        until_s = since_s + _STOP_S
        return not any(begin < until_s and end > since_s for begin, end in self._store_away)

    # -------------------------------------------------------------------------------------------

    def actors(self, *kinds: str) -> list[psutil.Process]:
        """Processes of Ray actors of some classes that do not stand still, by their ids."""
        found = []
        for process in self.service.processes():
            if process in self._stopped:
                continue
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if words and words[0].startswith(tuple(f"ray::{kind}" for kind in kinds)):
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def named(self, name: str) -> list[psutil.Process]:
        """Other processes of the installation, by their program's name."""
        found = []
        for process in self.service.processes():
            with contextlib.suppress(psutil.Error):
                if process.name() == name and runs(process):
                    found.append(process)
        return found

    def kill_one(self, *kinds: str) -> bool:
        found = self.actors(*kinds)
        return bool(found) and self._kill([self._random.choice(found)])

    def kill_all(self, *kinds: str) -> bool:
        return self._kill(self.actors(*kinds))

    def kill_named(self, name: str) -> bool:
        return self._kill(self.named(name))

    def stop(self, processes: Sequence[psutil.Process], seconds: float) -> bool:
        """Let one stand still for a while."""
        return bool(processes) and self._stop(self._random.choice(processes), seconds)

    def _stop(self, process: psutil.Process, seconds: float) -> bool:
        self._stopped.append(process)
        has_landed = self._send([process], signal.SIGSTOP)
        timer = threading.Timer(seconds, self._resume, (process,))
        timer.daemon = True
        timer.start()
        self._timers.append(timer)
        return has_landed

    def stop_owner(self) -> bool:
        found = self._serving_owners()
        # Somebody must be left to go on: with all of them still, nothing would be tried at all.
        if len(found) < 2:
            return False
        owner = self._random.choice(found)
        self.stopped_owners[owner] = time.time()
        return self._stop(owner, _STOP_S)

    def _serving_owners(self) -> list[psutil.Process]:
        """Those that have been there for a while: who is yet to register has nothing to lose."""
        found, now_s = self.actors("ExecutionActor"), time.monotonic()
        self._owners_since_s = {each: self._owners_since_s.get(each, now_s) for each in found}
        return [each for each in found if now_s - self._owners_since_s[each] >= _SERVES_S]

    def stop_store(self, seconds: float = 0.0) -> bool:
        seconds = seconds or self._random.uniform(0.1, _STORE_STOP_S_MAX)
        if seconds > _STORE_STOP_S_MAX:
            self._store_away.append((time.time(), time.time() + seconds))
        return self.stop(self._store(), seconds)

    def kill_store(self) -> bool:
        return self._kill(self._store())

    def kill_up(self) -> bool:
        """Kill `harmonia up`, and type it again at once."""
        self._kill([psutil.Process(self.service.process.pid)])
        self.service.process.wait()
        self._boot()
        return True

    def kill_everything(self) -> bool:
        """As if the power had gone, and then `harmonia up` again."""
        self._kill([psutil.Process(self.service.process.pid), *self.service.processes()])
        self.service.process.wait()
        self._boot()
        return True

    def _store(self) -> list[psutil.Process]:
        running = read_running(self.service.data_dir)
        if running is None:
            return []
        try:
            process = psutil.Process(running.store_pid)
        except psutil.NoSuchProcess:
            return []
        return [process] if runs(process) else []

    def _kill(self, processes: Sequence[psutil.Process]) -> bool:
        return self._send(processes, signal.SIGKILL)

    def _send(self, processes: Sequence[psutil.Process], number: int) -> bool:
        """Whether anybody got the signal."""
        reached = 0
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
                reached += 1
                self.landed_s = time.time()
        return reached > 0

    def _resume(self, process: psutil.Process) -> None:
        if process not in self.stopped_owners:
            self._stopped.remove(process)
        elif runs(process) and self._could_be_succeeded(self.stopped_owners[process]):
            self.woken.append(process)
        _resume(process)

    def _boot(self) -> None:
        service = self.service
        port = int(service.url.rpartition(":")[2])
        service.process = start_up(service.data_dir, port, settings=self._settings)
        wait_ready(service.process, service.url, service.data_dir)


def _resume(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        process.resume()


def _kill(kind: str) -> Callable[[Faults], bool]:
    return lambda faults: faults.kill_one(kind)


#: Faults that Harmonia's own actors or Ray mend.
LIGHT: dict[str, Callable[[Faults], bool]] = {
    "execution actor killed": _kill("ExecutionActor"),
    "all execution actors killed": lambda faults: faults.kill_all("ExecutionActor"),
    "task actor killed": _kill("TaskActor"),
    "shared task actor killed": _kill("SharedTaskActor"),
    "broadcaster killed": _kill("Broadcaster"),
    "supervisor killed": _kill("Supervisor"),
    "task pool killed": _kill("TaskPool"),
    "all that coordinate killed": lambda faults: faults.kill_all(
        "ExecutionActor", "TaskPool", "Supervisor", "Broadcaster"
    ),
    "execution actor stopped": Faults.stop_owner,
    "task actor stopped": lambda faults: faults.stop(
        faults.actors("TaskActor", "SharedTaskActor"), 3.0
    ),
    "replica killed": _kill("ServeReplica"),
    "Serve's controller killed": _kill("ServeController"),
    "proxy killed": lambda faults: faults.kill_named("haproxy"),
    "store killed": Faults.kill_store,
    "store stopped": Faults.stop_store,
}

#: Faults after which all of Ray starts again, or nothing goes on for long.
HEAVY: dict[str, Callable[[Faults], bool]] = {
    "store stopped for a minute": lambda faults: faults.stop_store(_OUTAGE_S),
    "GCS killed": lambda faults: faults.kill_named("gcs_server"),
    "raylet killed": lambda faults: faults.kill_named("raylet"),
    "`harmonia up` killed": Faults.kill_up,
    "everything killed": Faults.kill_everything,
}
