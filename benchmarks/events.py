"""Measure the fan-out of events (W8): `python -m benchmarks.events`, or `make bench-events`.

One execution reports at set rates to 1, 10, 100 and 1,000 subscribers, half by WebSocket and half
by SSE, which live in a process of their own; then 1,000 executions have one each. Beside it, in
the same run, the floor: a bare uvicorn process that sends the same messages from memory; and the
surface: Harmonia's streams alone, without Ray, proxy and engine. In each round all have a turn, in
an order that is drawn, each alone on the machine. What was measured is written down at once; a run
that was stopped goes on where it was.

It fails if a stream missed an event, had one twice, or had them out of order.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.fanout.cases import FanOut, cases_of_length
from benchmarks.fanout.document import WORKLOAD, summarise
from benchmarks.fanout.run_case import run_case
from benchmarks.fanout.sources import Floor, Service, Source, Surface, TurnedDown
from benchmarks.ledger import Ledger, Line
from benchmarks.report import RESULTS, write_page
from benchmarks.turn import ROOT

__all__ = ["judged", "main"]

_SOURCES: dict[str, Callable[[Path], Source]] = {
    "harmonia": Service,
    "surface": lambda _directory: Surface(),
    "floor": lambda _directory: Floor(),
}
_NAME = "events"


def main() -> int:
    """Run what has not been run yet, then write the results."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = _arguments()
    header = {
        "form": _NAME,
        "commit": machine.commit(ROOT),
        "machine": machine.facts(),
        "rounds": chosen.rounds,
        "seconds": chosen.seconds,
        "sources": sorted(chosen.sources),
        "chosen": chosen.cases,
        "load": os.getloadavg()[0],
        "seed": random.randrange(2**32),
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    same = ("form", "commit", "machine", "rounds", "seconds", "sources", "chosen")
    ledger = Ledger(chosen.results / f"{_NAME}.jsonl", header, same)
    if ledger.lines:
        print(f"going on with the run of {ledger.header['began']}")
    elif ledger.replaced:
        print(f"not the same code, machine or choice as before: that run is in {ledger.replaced}")
    luck = random.Random(ledger.header["seed"])
    cases = _chosen_cases(chosen)
    for number in range(chosen.rounds):
        for name in luck.sample(chosen.sources, len(chosen.sources)):
            _give_turn(ledger, number, name, cases)
    document = summarise(ledger.header, ledger.lines)
    path = chosen.results / f"{_NAME}.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\nresults: {path}, {write_page(chosen.results)}")
    for aim in document["aims"]:
        measured = "–" if aim["measured"] is None else f"{aim['measured']:.4g}"
        print(f"    {aim['what']}: {measured} ({aim['limit']})")
    return judged(ledger.lines)


def judged(lines: Sequence[Line]) -> int:
    """The exit status: whether everything was measured, and nothing was wrong with it."""
    return 1 if any(line.error or line.problems for line in lines) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.events",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of each; default: 3")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="how long events are reported; default: 5"
    )
    parser.add_argument(
        "--cases", default="", help="only those whose name has this in it, like '1,000 × 20/s'"
    )
    parser.add_argument(
        "--sources",
        nargs="+",
        choices=sorted(_SOURCES),
        default=sorted(_SOURCES),
        help="default: all",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for JSON and page")
    chosen = parser.parse_args()
    if not _chosen_cases(chosen):
        names = "; ".join(case.name for case in cases_of_length(chosen.seconds))
        parser.error(f"--cases: none has '{chosen.cases}' in its name; there are: {names}")
    return chosen


def _chosen_cases(chosen: argparse.Namespace) -> list[FanOut]:
    return [case for case in cases_of_length(chosen.seconds) if chosen.cases in case.name]


def _give_turn(ledger: Ledger, number: int, name: str, cases: list[FanOut]) -> None:
    missing = [case for case in cases if not ledger.has((number, name, WORKLOAD, case.name, 0))]
    if not missing:
        return
    print(f"\nround {number + 1}: {name}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-events-") as directory:
        source = _SOURCES[name](Path(directory))
        try:
            source.start()
            for case in missing:
                line = Line(number, name, WORKLOAD, case.name, **_found(source, case))
                ledger.add(line)
                few = [f"{key} {line.figures[key]:.4g}" for key in _SHOWN if key in line.figures]
                trouble = "; ".join([line.error, *line.problems]).strip("; ")
                print(f"    {case.name:<34} {'  '.join(few)}  {trouble}", flush=True)
        finally:
            source.stop()


_SHOWN = ("deliveries_per_s", "p50_ms", "p99_ms", "us_per_delivery", "events", "others_percent")


def _found(source: Source, case: FanOut) -> dict[str, Any]:
    try:
        measured = run_case(source, case)
    except TurnedDown as reason:
        return {"error": str(reason)}
    return {"figures": measured.figures, "problems": measured.problems}


if __name__ == "__main__":
    sys.exit(main())
