"""What one attempt has written and nobody has been told yet, in pieces of bounded size.

Lines are numbered, and the last ones that were told are told again where telling may have failed:
with the outcome, which may overtake what was told before, and to a new owner. Whoever takes them in
knows by their numbers what is new and what is missing. Nothing here waits, and nobody waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from harmonia_actors.core.log_lines import LogLine

__all__ = ["AttemptLog", "LogLimits", "Piece"]

#: The number of its first line, and the lines.
Piece = tuple[int, tuple[LogLine, ...]]


@dataclass(frozen=True, slots=True)
class LogLimits:
    """Rate and sizes of the lines of one attempt. What a line counts for, `LogLine.cost` says."""

    #: Shortest time between two pieces.
    interval_ms: int = 250
    line_bytes_max: int = 8_192
    piece_bytes_max: int = 32_768
    #: Of all that is kept; 0: nothing is, nor told of.
    bytes_max: int = 1_000_000


class AttemptLog:
    """Takes lines in, and gives them out in pieces, in order. Not safe for several threads."""

    def __init__(self, limits: LogLimits) -> None:
        self._limits = limits
        self._left = limits.bytes_max
        self._waiting: deque[LogLine] = deque()
        #: The number of the first line that waits.
        self._next = 0
        #: Lines that were told last, and what they count for.
        self._told: deque[LogLine] = deque()
        self._told_bytes = 0
        #: Lines that there have been, those that are left out with them.
        self.count = 0
        #: No more lines are kept.
        self.is_full = False

    @property
    def waits(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._waiting)

    def add(self, line: LogLine) -> None:
        """One more line. In the place of the first that there is no room for, it is said so."""
        if not self.is_full:
            self._left -= line.cost
            if self._left >= 0:
                self._waiting.append(line)
            else:
                self.is_full = True
                self._waiting.append(LogLine("log", self._notice, line.at_ms, "warning"))
                self.count += 1
        self.count += 1

    def skip(self, count: int) -> None:
        """So many lines more, which are left out."""
        self.count += count

    def take(self) -> Piece | None:
        """The next piece; None if nothing waits."""
        if not self._waiting:
            return None
        lines: list[LogLine] = []
        room = self._limits.piece_bytes_max
        while self._waiting and (not lines or self._waiting[0].cost <= room):
            lines.append(self._waiting.popleft())
            room -= lines[-1].cost
        first = self._next
        self._next += len(lines)
        self._remember(lines)
        return first, tuple(lines)

    def again(self) -> Piece | None:
        """What was told last, once more; None if nothing was told."""
        if not self._told:
            return None
        return self._next - len(self._told), tuple(self._told)

    def close(self) -> list[Piece]:
        """All that is left to be told when the attempt ends, beginning with what was told last."""
        again = self.again()
        pieces = [] if again is None else [again]
        while (piece := self.take()) is not None:
            pieces.append(piece)
        if self.count > self._next:
            pieces.append((self.count, ()))
        return pieces

    @property
    def _notice(self) -> str:
        return (
            f"no more lines are kept of this attempt, which may have {self._limits.bytes_max} "
            "bytes; at its end it is told how many there were"
        )

    def _remember(self, lines: Iterable[LogLine]) -> None:
        for line in lines:
            self._told.append(line)
            self._told_bytes += line.cost
        # No less than what may be under way now, and no more: it goes with each outcome.
        while len(self._told) > 1 and self._told_bytes > self._limits.piece_bytes_max:
            self._told_bytes -= self._told.popleft().cost
