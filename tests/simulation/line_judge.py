"""Judges the log lines of one execution: each is told once and in order, or counted as left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from harmonia_actors.core import events as ev
from harmonia_actors.core.workflow import Workflow

__all__ = ["FULL_MIN", "LineJudge"]

#: No attempt has room for so many lines (`task_actors`); most write far fewer.
FULL_MIN = 40


@dataclass
class _Heard:
    """What was heard of the attempt that runs."""

    attempt: int
    lines: int = 0


@dataclass
class LineJudge:
    """Fed event by event. The lines of an attempt are the numbers from 0 (`task_actors`)."""

    workflow: Workflow
    _heard: dict[str, _Heard] = field(default_factory=dict)

    def take(self, event: ev.Event) -> Iterator[str]:
        """What is wrong with the next event."""
        match event:
            case ev.TaskStarted():
                self._heard[event.task_name] = _Heard(event.attempt)
            case ev.TaskLog():
                yield from self._take_lines(event, self._heard[event.task_name])
            case ev.TaskCompleted():
                name = event.task_name
                written = self.workflow.by_name[name].input["plan"]["lines"]
                # With the word that no more are kept.
                written += written >= FULL_MIN
                if self._heard[name].lines != written:
                    yield f"'{name}' wrote {written} lines, {self._heard[name].lines} are told"

    def _take_lines(self, event: ev.TaskLog, heard: _Heard) -> Iterator[str]:
        if event.attempt != heard.attempt:
            yield f"'{event.task_name}' writes as {event.attempt}, but {heard.attempt} runs"
        heard.lines += event.dropped
        for line in event.lines:
            if line.text.isdecimal() and line.text != str(heard.lines):
                yield f"'{event.task_name}' tells line {line.text} in the place of {heard.lines}"
            heard.lines += 1
