"""What an attempt writes: numbered, in pieces, at a set rate, bounded, in nobody's way."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from harmonia_actors.core import stimuli as st
from harmonia_actors.core.log_lines import LINE_COST, LogLine
from harmonia_actors.runtime.attempt_context import LiveAttempt
from harmonia_actors.runtime.attempt_log import AttemptLog, LogLimits
from harmonia_actors.runtime.clock import SystemClock
from harmonia_actors.runtime.orders import Report
from tests.support.scripted_actors import order

HOUR_MS = 3_600_000
#: Room for three lines of one character in a piece, and seven in all.
SMALL = LogLimits(interval_ms=0, piece_bytes_max=3 * (LINE_COST + 1), bytes_max=7 * (LINE_COST + 1))


def line(text: str) -> LogLine:
    return LogLine("stdout", text, 1)


def written(log: AttemptLog, count: int) -> AttemptLog:
    for number in range(log.count, log.count + count):
        log.add(line(str(number % 10)))
    return log


def shown(pieces: Any) -> list[tuple[int, list[str]]]:
    return [(first, [each.text[:7] for each in lines]) for first, lines in pieces]


def test_pieces_are_bounded_and_numbered() -> None:
    log = written(AttemptLog(SMALL), 5)
    assert shown([log.take(), log.take()]) == [(0, ["0", "1", "2"]), (3, ["3", "4"])]
    assert log.take() is None
    assert not log.waits
    written(log, 1)
    assert shown([log.take()]) == [(5, ["5"])]


def test_a_line_that_is_larger_than_a_piece_is_one() -> None:
    log = AttemptLog(LogLimits(piece_bytes_max=10))
    log.add(line("x" * 100))
    log.add(line("y"))
    assert [len(lines) for _, lines in filter(None, (log.take(), log.take()))] == [1, 1]


def test_the_end_repeats_what_may_be_under_way_and_brings_the_rest() -> None:
    log = written(AttemptLog(SMALL), 4)
    log.take()
    assert shown(log.close()) == [(0, ["0", "1", "2"]), (3, ["3"])]
    assert shown(AttemptLog(SMALL).close()) == []


def test_what_there_is_no_room_for_is_said_once_and_counted() -> None:
    log = written(AttemptLog(SMALL), 7)
    assert not log.is_full
    written(log, 20)
    log.skip(100)
    assert log.is_full
    # The lines, the word that no more are kept, and how many there were with it.
    rest = [(6, ["6"]), (7, ["no more"]), (128, [])]
    assert shown(log.close()) == [(0, ["0", "1", "2"]), (3, ["3", "4", "5"]), *rest]


def test_what_was_told_last_can_be_told_again() -> None:
    log = AttemptLog(SMALL)
    assert log.again() is None
    written(log, 6)
    log.take()
    assert shown([log.again()]) == [(0, ["0", "1", "2"])]
    log.take()
    assert shown([log.again()]) == [(3, ["3", "4", "5"])]


# A live attempt ----------------------------------------------------------------------------------


class Flushes:
    """What asks for a flush, and what is told."""

    def __init__(self, limits: LogLimits, progress_interval_ms: int = 0) -> None:
        self.told: list[Report] = []
        self.asked: list[float] = []
        self.live = LiveAttempt(
            order(0),
            workspace=lambda *_: pytest.fail("nobody asked for a workspace"),
            allowed_commands=None,
            report=self.told.append,
            progress_interval_ms=progress_interval_ms,
            clock=SystemClock(),
            log_limits=limits,
            flush_later=lambda _, seconds: self.asked.append(seconds),
        )

    @property
    def lines(self) -> list[tuple[str, str, str]]:
        return lines_of(self.told)

    def ended(self) -> list[tuple[str, str, str]]:
        """What goes with the outcome."""
        return lines_of(self.live.last_reports())


def lines_of(reports: list[Report]) -> list[tuple[str, str, str]]:
    stimuli = [report.stimulus for report in reports]
    lines = [each.lines for each in stimuli if isinstance(each, st.LinesReported)]
    return [(one.stream, one.level, one.text) for each in lines for one in each]


def test_lines_are_told_together_and_one_flush_is_asked_for() -> None:
    rig = Flushes(LogLimits(interval_ms=HOUR_MS))
    for number in range(1_000):
        rig.live.log(str(number))
    assert (rig.told, len(rig.asked)) == ([], 1)
    assert 3_500 < rig.asked[0] <= 3_600
    assert rig.live.flush() is None, "the one that was asked for is still to come"
    assert rig.told == []
    assert [text for _, _, text in rig.ended()] == [str(number) for number in range(1_000)]
    assert rig.live.flush() is None


def test_a_flush_tells_one_piece_and_when_to_come_again() -> None:
    rig = Flushes(SMALL)
    for number in range(5):
        rig.live.log(str(number))
    assert rig.live.flush() == 0.0
    assert [text for _, _, text in rig.lines] == ["0", "1", "2"]
    assert rig.live.flush() is None
    assert [text for _, _, text in rig.lines] == ["0", "1", "2", "3", "4"]
    assert len(rig.asked) == 1
    rig.live.log("5")
    assert len(rig.asked) == 2, "the last flush was the end"


def test_progress_and_lines_share_a_flush() -> None:
    rig = Flushes(LogLimits(interval_ms=HOUR_MS), progress_interval_ms=HOUR_MS)
    rig.live.progress(0.1)
    rig.live.progress(0.2)
    rig.live.log("a line")
    assert len(rig.asked) == 1
    kinds = [type(report.stimulus) for report in rig.live.last_reports()]
    assert kinds == [st.LinesReported, st.ProgressReported], "the outcome comes behind both"


@pytest.mark.parametrize("rare", ["lines", "progress"])
def test_what_is_told_often_does_not_wait_for_what_is_told_rarely(rare: str) -> None:
    lines_ms, progress_ms = (HOUR_MS, 60_000) if rare == "lines" else (60_000, HOUR_MS)
    rig = Flushes(LogLimits(interval_ms=lines_ms), progress_interval_ms=progress_ms)
    rig.live.progress(0.1)
    if rare == "lines":
        rig.live.log("a line")
    rig.live.progress(0.2)
    rig.live.log("another")
    assert [round(seconds, -1) for seconds in rig.asked] == [3_600, 60]
    rig.live.progress(0.3)
    assert len(rig.asked) == 2
    assert rig.live.flush() is None, "what was asked for is not asked for again"


def test_texts_levels_and_streams() -> None:
    rig = Flushes(LogLimits())
    rig.live.log("one\ntwo\r\n\nthree", "warning")
    rig.live.log("")
    rig.live.relay("stdout", b"half a ")
    rig.live.relay("stderr", b"\x1b[31mbad\x1b[0m \xff\n")
    rig.live.relay("stdout", b"line\nno end")
    assert rig.ended() == [
        *(("log", "warning", text) for text in ("one", "two", "", "three")),
        ("log", "info", ""),
        ("stderr", "", "bad �"),
        ("stdout", "", "half a line"),
        ("stdout", "", "no end"),
    ]
    with pytest.raises(ValueError, match="debug, info, warning, error, not 'loud'"):
        rig.live.log("x", "loud")


def test_the_service_logs_what_an_action_says(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "harmonia.task"):
        Flushes(LogLimits(bytes_max=0)).live.log("hear, hear", "error")
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "exec-1/t0 attempt 1: hear, hear")


def test_the_secret_of_a_key_is_not_told() -> None:
    rig = Flushes(LogLimits())
    rig.live.log("key hk_0123456789ab_topsecret")
    rig.live.relay("stdout", b"X-API-Key: hk_0123456789ab_topsecret\n")
    # As `grep --color` shows what it has found.
    rig.live.relay("stdout", b"\x1b[01;31m\x1b[Khk_\x1b[m\x1b[K0123456789ab_topsecret\n")
    assert [text for _, _, text in rig.ended()] == [
        "key hk_0123456789ab_***",
        "X-API-Key: hk_0123456789ab_***",
        "hk_0123456789ab_***",
    ]


def test_long_lines_are_cut() -> None:
    rig = Flushes(LogLimits(line_bytes_max=64))
    rig.live.log("ü" * 10_000_000)
    rig.live.relay("stdout", b"x" * 1_000_000)
    texts = [text for _, _, text in rig.ended()]
    assert [len(text.encode()) for text in texts] == [63, 64]
    assert all(text.endswith("…") for text in texts)


def test_a_line_that_becomes_shorter_than_it_came_is_cut_all_the_same() -> None:
    rig = Flushes(LogLimits(line_bytes_max=64))
    rig.live.relay("stdout", b"\x1b[31mred\x1b[0m " * 10 + b"\n")
    rig.live.relay("stdout", b"hk_0123456789ab_" + b"s" * 100 + b"\n")
    assert [text for _, _, text in rig.ended()] == ["red red red red red…", "hk_0123456789ab_***…"]


def test_a_flood_is_counted_to_its_end() -> None:
    rig = Flushes(LogLimits(bytes_max=1_000))
    rig.live.relay("stdout", b"x\n" * 100)
    rig.live.relay("stdout", b"y\n" * 1_000_000 + b"no end")
    rig.live.log("a\nb")
    stimuli = [report.stimulus for report in rig.live.last_reports()]
    end = stimuli[-1]
    assert isinstance(end, st.LinesReported)
    assert (end.first, end.lines, end.last) == (100 + 1_000_000 + 1 + 2 + 1, (), True)
    assert len(lines_of(rig.told)) < 20


def test_where_no_lines_are_kept_none_are_told() -> None:
    rig = Flushes(LogLimits(bytes_max=0))
    rig.live.log("a line")
    rig.live.relay("stdout", b"another\n")
    assert (rig.told, rig.asked, rig.live.flush(), rig.ended()) == ([], [], None, [])
    assert rig.live.last_reports() == []
