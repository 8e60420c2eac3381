"""Lines that a task writes while it runs: made of bytes or text of whatever content, and bounded.

A line can be stored, sent and shown: it is UTF-8, of bounded length, and cannot drive a terminal or
pass itself off as several. What it counts for is more than its text, so that very many empty lines
are bounded, too. This module must not know who keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "EVENT_COST",
    "LEVELS",
    "LINE_COST",
    "STREAMS",
    "LineSplitter",
    "LogLine",
    "cost_of",
    "safe_line",
]

#: What the action says itself, and what a program says that it runs.
STREAMS: Final = ("log", "stdout", "stderr")
LEVELS: Final = ("debug", "info", "warning", "error")

#: Bytes that a line, and an event of lines, count for besides the text.
LINE_COST: Final = 64
EVENT_COST: Final = 200

_CUT: Final = "…"
#: What colours text, moves the cursor or names the window.
_ESCAPES: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-Z\\^-~])"
)
#: Control characters but the tab, line ends of Unicode, what turns text around, half surrogates.
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line. `level` is empty if there is none, as in what a program says."""

    stream: str
    text: str
    at_ms: int
    level: str = ""

    @property
    def cost(self) -> int:
        """Bytes that it counts for."""
        size = len(self.text) if self.text.isascii() else len(self.text.encode())
        return LINE_COST + size

    def to_json(self) -> dict[str, Any]:
        """As an event shows it."""
        level = {"level": self.level} if self.level else {}
        return {"stream": self.stream, **level, "text": self.text, "timestamp_ms": self.at_ms}


def cost_of(lines: Iterable[LogLine]) -> int:
    """Bytes that an event of these lines counts for."""
    return EVENT_COST + sum(line.cost for line in lines)


def safe_line(
    text: str, bytes_max: int, *, conceal: Callable[[str], str] = str, is_cut: bool = False
) -> str:
    """The text as one line of at most so many bytes, without escapes and control characters.

    `conceal` takes out what nobody may see: it is given what will be seen, because an escape within
    a word hides the word from a search. With `is_cut`, the text lacks its end already.
    """
    is_cut = is_cut or len(text) > bytes_max
    text = text[:bytes_max]
    if not text.isprintable():
        text = _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", _ESCAPES.sub("", text))
    text = conceal(text)
    body = text.encode()
    if not is_cut and len(body) <= bytes_max:
        return text
    return body[: bytes_max - len(_CUT.encode())].decode("utf-8", "ignore") + _CUT


class LineSplitter:
    """Makes lines of what a program writes, in whatever pieces it comes; holds little of a line.

    As on a terminal, what a carriage return goes back over is not seen: of a bar that a program
    draws again and again, the last state is the line.
    """

    def __init__(self, bytes_max: int) -> None:
        #: One more than wanted, so that whoever cuts the line sees that there is more.
        self._most = bytes_max + 1
        self._pending = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take in the next piece; the lines that end in it."""
        first, *others = chunk.split(b"\n")
        self._add(first)
        lines = []
        for part in others:
            lines.append(self._take())
            self._add(part)
        return lines

    def count(self, chunk: bytes) -> int:
        """As `feed`, if nobody wants the lines any more: how many end in the piece."""
        before, newline, last = chunk.rpartition(b"\n")
        self._pending = last[:1] if newline else self._pending[:1] or last[:1]
        return before.count(b"\n") + len(newline)

    def rest(self) -> list[bytes]:
        """The line without an end, if there is one; then there is none any more."""
        return [self._take()] if self._pending else []

    def _add(self, part: bytes) -> None:
        line = self._pending + part
        # Those at the end may belong to the line's end: nothing is written over it yet.
        seen = line.rstrip(b"\r")
        back = seen.rfind(b"\r")
        end = b"\r" if len(seen) < len(line) else b""
        self._pending = seen[back + 1 :][: self._most] + end

    def _take(self) -> bytes:
        line, self._pending = self._pending, b""
        return line.removesuffix(b"\r")
