"""Lines of whatever content become lines that can be stored, sent and shown."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from harmonia_actors.core import jsontext
from harmonia_actors.core.log_lines import (
    EVENT_COST,
    LINE_COST,
    LineSplitter,
    LogLine,
    cost_of,
    safe_line,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with ünïcode and 👩‍🚀", "plain, with ünïcode and 👩‍🚀"),
        ("a\tb", "a\tb"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b[2J\x1b[H\x1b(Btop", "top"),
        ("bell\x07 null\x00", "bell� null�"),
        ("half \ud800", "half �"),
        ("one\u2028two\x85three", "one�two�three"),
        ("safe\u202etxt.exe", "safe�txt.exe"),
        ("unended \x1b", "unended �"),
        ("", ""),
    ],
)
def test_a_line_cannot_drive_a_terminal_or_be_several(text: str, shown: str) -> None:
    assert safe_line(text, 1_000) == shown


@given(some.text(), some.integers(64, 200))
@example("é" * 100, 64)
@example("x" * 64, 64)
@example("\x00" * 60, 64)
def test_a_line_is_bounded_and_says_that_it_is_cut(text: str, bytes_max: int) -> None:
    line = safe_line(text, bytes_max)
    assert len(line.encode()) <= bytes_max
    assert len(line.splitlines()) <= 1
    assert jsontext.decode(jsontext.encode(line)) == line
    assert safe_line(line, bytes_max) == line
    if len(text) > bytes_max:
        assert line.endswith("…")
    elif text.isprintable() and len(text.encode()) <= bytes_max:
        assert line == text


@given(
    some.lists(some.binary(max_size=6).map(lambda each: each.replace(b"\r", b"")), max_size=8),
    some.sampled_from([b"\n", b"\r\n"]),
    some.lists(some.integers(0, 60)),
)
def test_in_whatever_pieces_they_come_lines_are_the_same(
    parts: list[bytes], ending: bytes, cuts: list[int]
) -> None:
    whole = ending.join(parts)
    places = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    splitter, counter = LineSplitter(100), LineSplitter(100)
    lines, count = [], 0
    for begin, end in pairwise(places):
        lines += splitter.feed(whole[begin:end])
        count += counter.count(whole[begin:end])
    assert (
        lines + splitter.rest()
        == [line.removesuffix(b"\r") for line in whole.split(b"\n")][
            : None if whole.rpartition(b"\n")[2] else -1
        ]
    )
    assert count + len(counter.rest()) == len(lines) + len(splitter.rest()) + bool(
        whole.rpartition(b"\n")[2]
    )
    assert splitter.rest() == []


def test_of_what_is_written_over_the_last_state_is_the_line() -> None:
    splitter = LineSplitter(50)
    assert splitter.feed(b"10 %\r20 %") == []
    assert splitter.feed(b"\r") == []
    assert splitter.feed(b"30 %\r\nnext") == [b"30 %"]
    assert splitter.rest() == [b"next"]


def test_what_nothing_is_written_over_is_seen() -> None:
    splitter = LineSplitter(50)
    assert splitter.feed(b"as some programs end it\r\r\n") == [b"as some programs end it"]
    splitter.feed(b"x" * 60 + b"\r")
    assert splitter.feed(b"over a long one\r\r") == []
    assert splitter.rest() == [b"over a long one"]


def test_what_is_concealed_cannot_hide_behind_an_escape() -> None:
    text = "a se\x1b[1mcr\x1b[0met, and more"
    assert safe_line(text, 100, conceal=lambda seen: seen.replace("secret", "*")) == (
        "a *, and more"
    )


def test_a_text_that_lacks_its_end_says_so_however_short_it_has_become() -> None:
    assert safe_line("\x1b[31mred\x1b[0m", 64, is_cut=True) == "red…"


def test_of_a_line_without_end_little_is_held() -> None:
    splitter = LineSplitter(50)
    for _ in range(1_000):
        splitter.feed(b"x" * 1_000)
    (line,) = splitter.feed(b"\n")
    assert line == b"x" * 51
    for _ in range(1_000):
        splitter.feed(b"y" * 100 + b"\r")
    assert splitter.rest() == [b"y" * 51]


def test_what_lines_count_for() -> None:
    lines = [LogLine("log", "abc", 0, "info"), LogLine("stdout", "ü", 0)]
    assert [line.cost for line in lines] == [LINE_COST + 3, LINE_COST + 2]
    assert cost_of(lines) == EVENT_COST + 2 * LINE_COST + 5
