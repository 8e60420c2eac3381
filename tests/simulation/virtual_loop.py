"""An event loop whose time jumps, and processes on it that can be stopped, resumed and killed.

Nothing is waited for: when nothing is ready, time jumps to the next timer. What runs belongs to a
process, known by a context variable that tasks hand on to the tasks they make. What would run in a
process that is stopped or dead is set aside; so a process can end or freeze between any two steps,
without a word of farewell, as kill -9 and SIGSTOP have it.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any

__all__ = ["NothingLeft", "Process", "VirtualLoop", "current_process", "pass_time", "run_virtually"]

_PRUNE_EVERY = 2_000
_ROUNDS_MAX = 1_000


class NothingLeft(Exception):
    """Nothing is ready and no timer is set, but the run has not ended."""


class _State(Enum):
    RUNS = "runs"
    STOPPED = "stopped"
    DEAD = "dead"
    #: The run has ended: all that is left is let run to its end.
    BURIED = "buried"


_process: contextvars.ContextVar[Process] = contextvars.ContextVar("process")


class Process:
    """Something that lives and dies as one."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.name = name
        self._loop = loop
        self._context = contextvars.Context()
        self._context.run(_process.set, self)
        self._state = _State.RUNS
        #: What would have run meanwhile, in order.
        self._aside: list[asyncio.Handle] = []
        self._mourners: list[Callable[[], None]] = []
        #: How much its clock is ahead of true time, and by how much it was set forward so far.
        self.ahead_ms = 0
        self.set_forward_ms = 0
        #: It died because its machine did.
        self.died_with_others = False
        #: What lives in it.
        self.inhabitant: Any = None
        loop.processes.append(self)

    @property
    def alive(self) -> bool:
        """False from its death on."""
        return self._state is not _State.DEAD

    @property
    def runs(self) -> bool:
        """True unless it is stopped or dead."""
        return self._state is _State.RUNS

    def context(self) -> contextvars.Context:
        """A context of this process; what is scheduled with it runs only while the process does."""
        return self._context.copy()

    def make(self, build: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call something inside the process."""
        return self.context().run(build, *arguments, **named)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of this process."""
        return self._loop.create_task(coroutine, context=self.context())

    def when_dead(self, tell: Callable[[], None]) -> None:
        """Call `tell` at the moment of its death; at once if that is past."""
        if self.alive:
            self._mourners.append(tell)
        else:
            tell()

    def stop(self) -> None:
        """As SIGSTOP."""
        if self.runs:
            self._state = _State.STOPPED

    def resume(self) -> None:
        """As SIGCONT: all that came meanwhile is there at once."""
        if self._state is _State.STOPPED:
            self._state = _State.RUNS
            self._requeue()

    def kill(self) -> None:
        """As kill -9."""
        if self._state in (_State.RUNS, _State.STOPPED):
            self._state = _State.DEAD
            for tell in self._mourners:
                tell()

    def set_clock(self, by_ms: int) -> None:
        """Forward or back."""
        self.ahead_ms += by_ms
        self.set_forward_ms += max(0, by_ms)

    def bury(self) -> None:
        """When the run has ended: let what is left be cancelled."""
        self._state = _State.BURIED
        self._requeue()

    def admits(self, handle: asyncio.Handle) -> bool:
        """Whether a step may run now; if not, it is set aside."""
        if self._state in (_State.RUNS, _State.BURIED):
            return True
        self._aside.append(handle)
        return False

    def _requeue(self) -> None:
        aside, self._aside = self._aside, []
        self._loop.requeue(aside)


def current_process() -> Process:
    """The process that this code runs in."""
    return _process.get()


class _Step(asyncio.Handle):
    def _run(self) -> None:
        process = self._context.get(_process)
        if process is None or process.admits(self):
            super()._run()


class _TimedStep(asyncio.TimerHandle):
    def _run(self) -> None:
        process = self._context.get(_process)
        if process is None or process.admits(self):
            super()._run()


class _Jump:
    """Stands where a loop has its selector: instead of waiting, time is moved on."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise NothingLeft
        if timeout > 0:
            self._loop.jump()
        return []

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """One thread, no files, no waiting; what runs when follows from what was asked when."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._selector = _Jump(self)
        self.processes: list[Process] = []
        #: All tasks that have not ended: asyncio itself holds none whose waiting nobody ends.
        self._kept: list[asyncio.Task[Any]] = []
        self._kept_at = _PRUNE_EVERY

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now_s

    def jump(self) -> None:
        """Move time to the next timer."""
        self._now_s = max(self._now_s, self._scheduled[0]._when)

    def create_task(self, coro: Any, **named: Any) -> asyncio.Task[Any]:
        """As usual, but the task is kept until it has ended."""
        task = super().create_task(coro, **named)
        self._kept.append(task)
        if len(self._kept) >= self._kept_at:
            self._kept = [one for one in self._kept if not one.done()]
            self._kept_at = len(self._kept) + _PRUNE_EVERY
        return task

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """As usual, with the gate of the process in front."""
        timer = _TimedStep(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        """There are no other threads: what would block runs at once."""
        future = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_soon(run)
        return future

    def requeue(self, handles: list[asyncio.Handle]) -> None:
        """Let these run next, in order."""
        self._ready.extend(handles)

    async def end_all(self) -> None:
        """Cancel whatever is left, in all processes, until nothing is."""
        me = asyncio.current_task()
        for process in self.processes:
            process.bury()
        for _ in range(_ROUNDS_MAX):
            left = [task for task in self._kept if task is not me and not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.sleep(0)
        raise AssertionError(f"{len(left)} tasks do not end: {left[:3]}")

    # What BaseEventLoop leaves open ------------------------------------------------------------

    def _call_soon(self, callback: Any, args: Any, context: Any) -> asyncio.Handle:
        handle = _Step(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


async def pass_time(seconds: float) -> None:
    """Let virtual time pass."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    timer = loop.call_later(seconds, _wake, future)
    try:
        await future
    finally:
        timer.cancel()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def run_virtually(main: Callable[[VirtualLoop], Coroutine[Any, Any, Any]]) -> Any:
    """Run `main(loop)` on a loop of its own and leave nothing behind."""
    loop = VirtualLoop()
    loop.set_exception_handler(lambda *_: None)
    try:
        return loop.run_until_complete(_guarded(loop, main))
    finally:
        loop.close()


async def _guarded(
    loop: VirtualLoop, main: Callable[[VirtualLoop], Coroutine[Any, Any, Any]]
) -> Any:
    try:
        return await main(loop)
    finally:
        await loop.end_all()
