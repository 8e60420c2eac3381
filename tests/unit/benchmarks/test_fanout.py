"""The fan-out of events: what is read of a stream, what is held against it, and a whole run."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from benchmarks.events import judged
from benchmarks.fanout.cases import BEFORE, FanOut, cases_of_length, measure
from benchmarks.fanout.document import judge, section, summarise
from benchmarks.fanout.floor import messages
from benchmarks.fanout.reading import EventStreamReader, Reader, WebSocketReader
from benchmarks.fanout.run_case import run_case
from benchmarks.fanout.sources import Floor, Source, Surface
from benchmarks.ledger import Line

SEQS = list(range(1, 9))
SIZES = (10, 200, 70_000)


def websocket_answer(size: int) -> bytes:
    frames = [Frame(Opcode.TEXT, text.encode()) for text, _ in messages(len(SEQS), size)]
    frames.insert(3, Frame(Opcode.PING, b"are you there"))
    frames.append(Frame(Opcode.CLOSE, (1000).to_bytes(2, "big") + b"the end"))
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    return head + b"".join(frame.serialize(mask=False) for frame in frames)


def event_stream_answer(size: int) -> bytes:
    frames = [frame for _, frame in messages(len(SEQS), size)]
    frames[0] = b"retry: 2000\n" + frames[0]
    chunks = [b": open\n\n", *frames[:2], b"".join(frames[2:]), b": alive\n\n", b""]
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


@given(st.data(), st.sampled_from(SIZES), st.booleans())
def test_events_are_read_however_the_answer_is_cut(data: Any, size: int, socket: bool) -> None:
    answer = websocket_answer(size) if socket else event_stream_answer(size)
    reader: Reader = WebSocketReader() if socket else EventStreamReader()
    places = data.draw(st.lists(st.integers(0, len(answer)), max_size=20))
    cuts = sorted({0, len(answer), *places})
    found = [seq for begin, end in pairwise(cuts) for seq in reader.feed(answer[begin:end])]
    assert found == SEQS
    assert (reader.is_open, reader.is_over, reader.problem) == (True, True, "")
    assert reader.reply[6:] == (b"are you there" if socket else b"")


@pytest.mark.parametrize(
    ("reader", "answer", "problem"),
    [
        (WebSocketReader(), b"HTTP/1.1 403 Forbidden\r\n\r\n", "HTTP/1.1 403 Forbidden"),
        (EventStreamReader(), b"HTTP/1.1 429 Too Many\r\n\r\n", "HTTP/1.1 429 Too Many"),
        (
            WebSocketReader(),
            b"HTTP/1.1 101 x\r\n\r\n"
            + Frame(Opcode.CLOSE, (4408).to_bytes(2, "big") + b"slow").serialize(mask=False),
            "closed with 4408: slow",
        ),
        (EventStreamReader(), b"HTTP/1.1 200 OK\r\n\r\n", "the connection was cut"),
    ],
)
def test_a_stream_that_does_not_end_well_says_why(
    reader: Reader, answer: bytes, problem: str
) -> None:
    assert reader.feed(answer) == []
    reader.cut()
    assert reader.is_over
    assert reader.problem == problem


def test_what_is_lost_repeated_or_out_of_order_is_found() -> None:
    case = FanOut("two", subscribers=2, per_s=10, seconds=0.2)
    published = {"a": [BEFORE, 1_000_000.0, 2_000_000.0, 3_000_000.0]}
    good = ([1, 2, 3, 4], [1_000, 1_002_000, 2_004_000, 3_006_000])
    measured = measure(case, [("a", good), ("a", good)], published)
    assert not measured.problems
    assert measured.figures["deliveries"] == 6
    assert measured.figures["p50_ms"] == 4
    assert measured.figures["max_ms"] == 6
    assert measured.figures["deliveries_per_s"] == pytest.approx(6 / 2.006)
    bad = ([1, 4, 2, 2], [1_000, 1_002_000, 2_004_000, 3_006_000])
    measured = measure(case, [("a", good), ("a", bad)], published)
    assert measured.problems == ["1 events lost", "1 events repeated", "1 events out of order"]
    more = ([1, 2, 3, 4, 5], [1_000, 1_002_000, 2_004_000, 3_006_000, 3_007_000])
    measured = measure(case, [("a", good), ("a", more)], published)
    assert measured.problems == ["1 events that nobody published"]


@pytest.mark.parametrize("source", [Floor(), Surface()], ids=["floor", "surface"])
@pytest.mark.parametrize(
    "case",
    [
        FanOut("ten", 10, 100, 0.3, stalled=2),
        FanOut("at once", 10, 0, 0),
        FanOut("each its own", 6, 50, 0.2, executions=6),
    ],
    ids=["rate", "burst", "executions"],
)
def test_every_subscriber_gets_everything_once_and_in_order(source: Source, case: FanOut) -> None:
    source.start()
    try:
        measured = run_case(source, case)
    finally:
        source.stop()
    assert not measured.problems
    assert measured.figures["deliveries"] == case.subscribers * (case.events + 1)
    assert measured.figures["us_per_delivery"] >= 0
    assert measured.figures["pss_client"] > 0


def lines() -> list[Line]:
    found = []
    for case in cases_of_length(5):
        for system, per_s, p99_ms in (("harmonia", 15_000.0, 90.0), ("floor", 20_000.0, 30.0)):
            figures = {"deliveries_per_s": per_s, "p50_ms": 3.0, "p99_ms": p99_ms, "lost": 0.0}
            found.append(Line(0, system, "W8", case.name, figures=figures))
    return found


HEADER = {
    "form": "events",
    "commit": "abc",
    "machine": {"processor": "p", "cores": 2},
    "rounds": 1,
    "seconds": 5.0,
    "load": 0.1,
    "seed": 1,
    "began": "2026-01-01T00:00:00Z",
}


def test_aims_and_ratios_are_told() -> None:
    document = summarise(HEADER, lines())
    told = {aim["what"]: (aim["measured"], aim["met"]) for aim in judge(document)}
    assert told["one subscriber: p50 from the commit, ms"] == (3, True)
    assert told["1,000 subscribers, 20/s each: deliveries/s"] == (15_000, False)
    assert told["… p99 from the commit, ms"] == (90, True)
    assert told["… p99 with 1 % stalled, by that"] == (1, True)
    assert told["as fast as it can: deliveries/s by the floor's"] == (0.75, True)
    assert told["lost, repeated or out of order, in all cases"] == (0, True)
    page = section(json.loads(json.dumps(document)))
    assert "| 1 × 20/s | Harmonia | D3 | 15,000 | 3.0 | 90.0 |" in page
    assert all(aim["met"] is None for aim in judge(summarise(HEADER, [])))


def test_one_run_of_many_that_lost_an_event_is_told() -> None:
    runs = [
        Line(number, "harmonia", "W8", "x", figures={"lost": float(number == 2), "repeated": 0.0})
        for number in range(9)
    ]
    aim = judge(summarise(HEADER, runs))[-1]
    assert (aim["measured"], aim["met"]) == (1, False)


def test_a_run_fails_by_what_was_wrong_only() -> None:
    assert judged(lines()) == 0
    assert judged([*lines(), Line(0, "harmonia", "W8", "x", problems=["1 events lost"])]) == 1
    assert judged([*lines(), Line(0, "floor", "W8", "x", error="it does not answer")]) == 1
