"""What one execution has been told and has not decided on yet, in the order in which it came.

Of an attempt's progress only the latest report waits: while the store is away, or simply slow, the
reports of a thousand attempts must not pile up. Log lines wait as long as there is room for them,
which all executions of a host share; those that are left out are missed by their numbers.
Everything else is bounded by what was handed out.
This module must not know what a stimulus leads to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from harmonia_actors.core import stimuli as st

__all__ = ["Letters", "LinesRoom", "Mailbox"]


#: What all log lines that wait here may count for: one execution must not take all the room.
_LINES_BYTES_MAX = 16_000_000


@dataclass(slots=True)
class LinesRoom:
    """The room that log lines have which wait, of all executions of a host."""

    bytes_max: int = 64_000_000
    #: What all of them count for.
    bytes: int = 0


@dataclass(slots=True)
class Letters:
    """A batch: stimuli, and ids of the inbox entries whose effect they hold."""

    stimuli: list[st.Stimulus] = field(default_factory=list)
    inbox_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Progress:
    """Stands where the first report came that has not been taken out since."""

    key: tuple[int, int]


class Mailbox:
    """Takes stimuli in, and gives them out in batches."""

    def __init__(self, lines_room: LinesRoom | None = None) -> None:
        self._room = lines_room or LinesRoom()
        self._is_closed = False
        #: An inbox entry's id lies behind the stimulus that it brought.
        self._waiting: deque[st.Stimulus | _Progress | str] = deque()
        self._progress: dict[tuple[int, int], st.ProgressReported] = {}
        self._lines_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, stimuli: Iterable[st.Stimulus], inbox_ids: Sequence[str] = ()) -> None:
        """Add stimuli, and then the inbox entries that brought them."""
        for stimulus in stimuli:
            if isinstance(stimulus, st.ProgressReported):
                key = (stimulus.task, stimulus.attempt)
                if key not in self._progress:
                    self._waiting.append(_Progress(key))
                self._progress[key] = stimulus
            elif isinstance(stimulus, st.LinesReported):
                self._put_lines(stimulus)
            else:
                self._waiting.append(stimulus)
        self._waiting.extend(inbox_ids)

    def close(self) -> None:
        """Nothing will be taken out any more: others may have the room."""
        self._is_closed = True
        self._count(-self._lines_bytes)

    def _put_lines(self, report: st.LinesReported) -> None:
        room = min(_LINES_BYTES_MAX - self._lines_bytes, self._room.bytes_max - self._room.bytes)
        if self._is_closed:
            return
        if report.cost > room:
            if not report.last:
                return
            # It has to be known how many there were.
            report = report.without(len(report.lines))
        self._count(report.cost)
        self._waiting.append(report)

    def _count(self, cost: int) -> None:
        self._lines_bytes += cost
        self._room.bytes += cost

    def take(self, count_max: int, bytes_max: int) -> Letters:
        """The oldest ones: up to `count_max` stimuli, the next one after `bytes_max` stays."""
        taken = Letters()
        size = 0
        while self._waiting and len(taken.stimuli) < count_max and size < bytes_max:
            letter = self._waiting.popleft()
            if isinstance(letter, str):
                taken.inbox_ids.append(letter)
                continue
            stimulus = self._progress.pop(letter.key) if isinstance(letter, _Progress) else letter
            taken.stimuli.append(stimulus)
            if isinstance(stimulus, st.AttemptSucceeded):
                size += len(stimulus.output.inline or b"")
            elif isinstance(stimulus, st.LinesReported):
                size += stimulus.cost
                self._count(-stimulus.cost)
        return taken
