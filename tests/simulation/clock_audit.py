"""Judges waits by true time, which no process of the simulation sees.

Whatever clocks say, a retry must not come before its wait is over, nor a timeout before its time.
That nothing comes too late, the end of a run shows: it has to come within a bounded time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harmonia_actors.core import events as ev
from harmonia_actors.core import jsontext
from harmonia_actors.core.execution import Execution
from harmonia_actors.core.retry import delay_ms
from harmonia_actors.core.stimuli import WORKER_LOST
from harmonia_actors.runtime.orders import AttemptId

__all__ = ["ClockAuditor"]

#: A task actor's clock is believed by so much: what it tells may count from that earlier moment.
_BELIEVED_S = 1.0
#: Times are whole milliseconds.
_ROUNDED_S = 0.002

#: How long the store's answer to what time it is may be under way.
_WAY_S = 4.1

TaskId = tuple[str, int]


class ClockAuditor:
    """Knows when things truly happened."""

    def __init__(self, now_s: Callable[[], float], set_forward_s: Callable[[], float]) -> None:
        """`set_forward_s`: by how much the store's clock was set forward so far.

        When an execution changes hands, waits go by that clock, as each owner has learned of it:
        they may be that much shorter.
        """
        self._now_s = now_s
        self._set_forward_s = set_forward_s
        self._created_s: dict[str, float] = {}
        self._begun_s: dict[AttemptId, float] = {}
        #: The last attempt that failed, and how long the next one has to wait for that, in seconds.
        self._failed: dict[TaskId, tuple[int, float]] = {}

    def created(self, execution_id: str) -> None:
        """An execution is stored; it begins later."""
        self._created_s[execution_id] = self._now_s()

    def begun(self, attempt: AttemptId, epoch: int) -> Iterator[str]:
        """An attempt begins. Yields what is wrong."""
        execution_id, task, number = attempt
        self._begun_s[attempt] = self._now_s()
        failed, wait_s = self._failed.get((execution_id, task), (number, 0.0))
        since_s = self._begun_s.get((execution_id, task, failed))
        if failed < number and since_s is not None and self._is_early(since_s, wait_s, epoch):
            yield f"{attempt} begins before the {wait_s:g} s after attempt {failed} are over"

    def told(self, execution: Execution, body: bytes, epoch: int) -> Iterator[str]:
        """An event is stored. Yields what is wrong."""
        raw = jsontext.decode(body)
        if raw["type"] == ev.TaskFailed.type:
            yield from self._failure_told(execution, raw["data"], epoch)
        elif raw["type"] == ev.ExecutionFailed.type and raw["data"]["error"]["code"] == "timeout":
            timeout_ms = execution.head.options.timeout_ms or execution.workflow.timeout_ms or 0
            since_s = self._created_s[execution.head.execution_id]
            if self._is_early(since_s, timeout_ms / 1000, epoch):
                yield f"its timeout of {timeout_ms} ms has come too early"

    def _failure_told(
        self, execution: Execution, data: dict[str, object], epoch: int
    ) -> Iterator[str]:
        execution_id, task = execution.head.execution_id, int(str(data["task_index"]))
        attempt, details = int(str(data["attempt"])), data["error_details"]
        assert isinstance(details, dict)
        definition = execution.workflow.tasks[task]
        since_s = self._begun_s.get((execution_id, task, attempt))
        if details["code"] == "TIMEOUT" and since_s is not None:
            timeout_s = (definition.timeout_ms or 0) / 1000
            if self._is_early(since_s, timeout_s - _BELIEVED_S, epoch):
                yield f"attempt {attempt} of task {task} is timed out too early"
        if data["will_retry"] and details["code"] != WORKER_LOST:
            luck = f"{execution_id}/{task}/{attempt}"
            policy = execution.retry_policy(task)
            failures = int(str(data["retry_count"])) + 1
            wait_s = delay_ms(policy, failures=failures, luck=luck) / 1000
            self._failed[(execution_id, task)] = attempt, wait_s

    def _is_early(self, since_s: float, wait_s: float, epoch: int) -> bool:
        slack_s = self._set_forward_s() + _WAY_S if epoch > 1 else _ROUNDED_S
        return self._now_s() - since_s + slack_s < wait_s
