"""Reads the answers of WebSocket and SSE streams, as cheaply as that can be done in Python.

Subscribers share the cores with what they measure, so nothing is parsed but the frames and the seq
of each event. Nothing here knows a socket: bytes go in as they come, however they were cut.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

__all__ = ["EventStreamReader", "Reader", "WebSocketReader", "reader_of"]

_HEAD_END = b"\r\n\r\n"
_SEQ = b'{"seq":'
#: An event of a stream: whatever else its frame begins with, its id comes before its type.
_FRAME_ID = re.compile(rb"(?:\A|\n)id: (\d+)\nevent: ")
_TEXT, _CLOSE, _PING = 0x1, 0x8, 0x9
_NORMAL = 1000


class Reader(ABC):
    """One stream: `feed` gives the seqs of the events that have come whole."""

    #: What the first line of an answer has to hold.
    welcome = b""

    def __init__(self) -> None:
        self._rest = b""
        self.is_open = False
        self.is_over = False
        #: Why it is over, if that is not as it should be.
        self.problem = ""
        #: What is to be sent back.
        self.reply = b""

    def feed(self, data: bytes) -> list[int]:
        """Take in what has come."""
        self._rest += data
        if not self.is_open:
            head, found, rest = self._rest.partition(_HEAD_END)
            if not found:
                return []
            first = head.partition(b"\r\n")[0]
            if self.welcome not in first:
                self.fail(first.decode("latin-1"))
                return []
            self.is_open = True
            self._rest = rest
        return self._events()

    def cut(self) -> None:
        """The connection has ended."""
        if not self.is_over:
            self.fail("the connection was cut")

    def fail(self, problem: str) -> None:
        """It is over, and should not be."""
        self.is_over = True
        self.problem = problem

    @abstractmethod
    def _events(self) -> list[int]:
        """The numbers of the events that have come whole."""


class WebSocketReader(Reader):
    """Frames of a server, which are not masked; each event is one."""

    welcome = b" 101 "

    def _events(self) -> list[int]:
        rest, at, seqs = self._rest, 0, []
        size = len(rest)
        while size - at >= 2:
            kind, length, begin = rest[at] & 0x0F, rest[at + 1], at + 2
            if length >= 126:
                begin += 2 if length == 126 else 8
                if size < begin:
                    break
                length = int.from_bytes(rest[at + 2 : begin], "big")
            if size < begin + length:
                break
            at = begin + length
            if kind == _TEXT:
                number = rest[begin + len(_SEQ) : rest.index(b",", begin, at)]
                seqs.append(int(number))
            elif kind == _PING:
                # The mask is all zeros: what is sent stays as it is.
                self.reply += bytes((0x8A, 0x80 | length, 0, 0, 0, 0)) + rest[begin:at]
            elif kind == _CLOSE:
                self._close(rest[begin:at])
        self._rest = rest[at:]
        return seqs

    def _close(self, payload: bytes) -> None:
        self.is_over = True
        code = int.from_bytes(payload[:2], "big")
        if code != _NORMAL:
            self.problem = f"closed with {code}: {payload[2:].decode()}"


class EventStreamReader(Reader):
    """Chunks of an HTTP/1.1 answer, and the frames of events in them."""

    welcome = b" 200 "

    def __init__(self) -> None:
        super().__init__()
        self._frames = b""

    def _events(self) -> list[int]:
        self._frames += self._unchunked()
        whole, found, self._frames = self._frames.rpartition(b"\n\n")
        if not found:
            return []
        seqs = []
        for frame in whole.split(b"\n\n"):
            match = _FRAME_ID.search(frame)
            if match is not None:
                seqs.append(int(match[1]))
            elif b"event: " in frame:
                self.problem = frame.decode("utf-8", "replace")
        return seqs

    def _unchunked(self) -> bytes:
        rest, at, parts = self._rest, 0, []
        while (line_end := rest.find(b"\r\n", at)) >= 0:
            length = int(rest[at:line_end], 16)
            begin = line_end + 2
            if len(rest) < begin + length + 2:
                break
            parts.append(rest[begin : begin + length])
            at = begin + length + 2
            if not length:
                self.is_over = True
                break
        self._rest = rest[at:]
        return b"".join(parts)


def reader_of(kind: str) -> Reader:
    """For a stream of this kind: `websocket` or `sse`."""
    return WebSocketReader() if kind == "websocket" else EventStreamReader()
