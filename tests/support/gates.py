"""A component whose actions wait at gates that the test opens, and keep a record of what ran."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

from harmonia_actors.components.contract import ActionError, Component, TaskContext

__all__ = ["Gates"]

_WAIT_S = 30.0


class Gates:
    """`component` is what workflows use, as `gates.hold` and the like."""

    def __init__(self) -> None:
        self.component = Component("gates", "Actions that wait for the test")
        #: (task, attempt) of all that ever began to run.
        self.began: list[tuple[str, int]] = []
        self._open: set[str] = set()
        self._changed = threading.Condition()
        self.component.action(self.hold)
        self.component.action(self.hold_async)
        self.component.action(self.echo)
        self.component.action(self.fail_until)
        self.component.action(self.crash)

    def open(self, *names: str) -> None:
        """Let tasks of these names end, now or when they come."""
        with self._changed:
            self._open.update(names)
            self._changed.notify_all()

    def running_twice(self) -> list[tuple[str, int]]:
        """Attempts that began more than once: there must be none."""
        return [attempt for attempt, count in Counter(self.began).items() if count > 1]

    def hold(self, value: Any = None, *, context: TaskContext) -> Any:
        """Wait until the gate of this task's name is open, or until told to stop."""
        self._begin(context)
        context.on_cancel(self._wake)
        with self._changed:
            is_open = self._changed.wait_for(
                lambda: context.cancelled or context.task_name in self._open, _WAIT_S
            )
        if context.cancelled or not is_open:
            raise ActionError("told to stop", code="STOPPED")
        return {"task": context.task_name, "value": value}

    async def hold_async(self, value: Any = None, *, context: TaskContext) -> Any:
        """As `hold`, without a thread of its own."""
        self._begin(context)
        async with asyncio.timeout(_WAIT_S):
            # Gates are opened by other threads, too: there is no asyncio event to wait for.
            while context.task_name not in self._open:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        return {"task": context.task_name, "value": value}

    def echo(self, value: Any = None, *, context: TaskContext) -> Any:
        """Give back the value, at once."""
        self._begin(context)
        return value

    def fail_until(self, attempt: int, *, context: TaskContext) -> dict[str, int]:
        """Fail before the given attempt."""
        self._begin(context)
        if context.attempt < attempt:
            raise ActionError("not yet", code="NOT_YET", details={"wants": attempt})
        return {"attempt": context.attempt}

    def crash(self, *, context: TaskContext) -> None:
        """Raise what no action should."""
        self._begin(context)
        raise RuntimeError("crashed")

    def _begin(self, context: TaskContext) -> None:
        with self._changed:
            self.began.append((f"{context.execution_id}/{context.task_name}", context.attempt))

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
