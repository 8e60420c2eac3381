"""Run the benchmarks: `python -m benchmarks.run`, or `make bench` and `make bench-full`.

Each round gives every system one turn, in an order that is drawn anew: it is started, is alone on
the machine while it has its turn, runs every workload, and is ended. What was measured is written
down at once; a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.actions import work_s
from benchmarks.catalogue import OURS, SHORT, SYSTEMS, WORKLOADS, Entry
from benchmarks.environments import python_of
from benchmarks.jobs import OfferLoad, Outcome, RunMany
from benchmarks.ledger import Key, Ledger, Line
from benchmarks.machine import Usage
from benchmarks.report import write_report
from benchmarks.summary import IDLE
from benchmarks.turn import ROOT, Broken, Turn, turn_of
from benchmarks.workloads.workload import Case, Form, Workload

__all__ = ["main"]

_ROUNDS = {"short": 3, "full": 5}
_SETTLE_S = {"short": 3.0, "full": 5.0}
_IDLE_S = {"short": 4.0, "full": 20.0}
#: A system that dies in its turn is started so often at most.
_STARTS_MAX = 3
_BEYOND = "a lower rate was not kept up with"


def main() -> int:
    """Run what has not been run yet, then write the report."""
    # Ended by a signal, it ends what it has started all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = _arguments()
    systems = [entry for entry in SYSTEMS if entry.name in chosen.systems]
    form = Form(
        name=chosen.form,
        rounds=chosen.rounds or _ROUNDS[chosen.form],
        full=chosen.form == "full",
        cores=os.cpu_count() or 1,
        work_s=work_s(),
        instances=tuple(sorted(chosen.instances.glob("*.json"))) if chosen.instances else (),
    )
    for entry in systems:
        python_of(entry)
    header = {
        "form": form.name,
        "commit": machine.commit(ROOT),
        "machine": machine.facts(),
        "rounds": form.rounds,
        "systems": [entry.name for entry in systems],
        "workloads": chosen.workloads,
        "work_s": form.work_s,
        "load": os.getloadavg()[0],
        "instances": [path.name for path in form.instances],
        "seed": random.randrange(2**32),
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    same = ("form", "commit", "machine", "rounds", "systems", "workloads", "instances")
    ledger = Ledger(chosen.results / f"{form.name}.jsonl", header, same)
    # The sizes of a run that goes on are those it began with.
    form = Form(**{**vars(form), "work_s": ledger.header["work_s"]})
    if ledger.lines:
        print(f"going on with the run of {ledger.header['began']}")
    elif ledger.replaced:
        print(f"not the same code, machine or choice as before: that run is in {ledger.replaced}")
    runner = Runner(form, ledger, set(chosen.workloads), chosen.results)
    luck = random.Random(ledger.header["seed"])
    for number in range(form.rounds):
        for entry in luck.sample(systems, len(systems)):
            runner.give_turn(number, entry)
    written, page = write_report(ledger, chosen.results)
    print(f"\nresults: {written}, {page}")
    # What a peer gets wrong is a finding; what does not run at all, or is wrong with us, is not.
    bad = [line for line in ledger.lines if line.error or (line.problems and line.system == OURS)]
    return 1 if bad else 0


def _arguments() -> argparse.Namespace:
    names = [entry.name for entry in SYSTEMS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--form", choices=("short", "full"), default="short")
    parser.add_argument("--systems", nargs="+", choices=names, help="default: as the form has it")
    parser.add_argument("--workloads", nargs="+", choices=[w.id for w in WORKLOADS])
    parser.add_argument("--rounds", type=int, help="default: 3, in the full form 5")
    parser.add_argument(
        "--instances",
        type=Path,
        default=Path(path) if (path := os.environ.get("WFINSTANCES")) else None,
        help="folder with recorded workflows in WfFormat, for W5; else WFINSTANCES; else no W5",
    )
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    chosen = parser.parse_args()
    chosen.systems = chosen.systems or (names if chosen.form == "full" else list(SHORT))
    chosen.workloads = chosen.workloads or [workload.id for workload in WORKLOADS]
    return chosen


class Runner:
    """Gives turns, and writes down what comes of them."""

    def __init__(self, form: Form, ledger: Ledger, workloads: set[str], results: Path) -> None:
        self._form = form
        self._ledger = ledger
        self._workloads = [workload for workload in WORKLOADS if workload.id in workloads]
        self._logs = results / "logs"

    def give_turn(self, number: int, entry: Entry) -> None:
        """Run what is missing of this system in this round; it is started again if it dies."""
        idle: Key = (number, entry.name, IDLE, IDLE, 0)
        reason = ""
        for _ in range(_STARTS_MAX):
            missing = self._missing(number, entry)
            if not missing and self._ledger.has(idle):
                return
            print(f"\nround {number + 1} of {self._form.rounds}: {entry.title}", flush=True)
            self._logs.mkdir(parents=True, exist_ok=True)
            with (self._logs / f"{entry.name}.log").open("a") as log:
                try:
                    with turn_of(entry, log) as turn:
                        self._note_idle(turn, idle)
                        for workload, case in missing:
                            self._run_case(turn, number, entry, workload, case)
                except Broken as error:
                    print(f"    {error} ({log.name})", flush=True)
                    reason = str(error)
        if not self._ledger.has(idle):
            self._write(workload_line(idle, error=reason))

    def _missing(self, number: int, entry: Entry) -> list[tuple[Workload, Case]]:
        return [
            (workload, case)
            for workload in self._workloads
            for case in workload.cases(self._form, entry.reach)
            if not all(
                self._ledger.has((number, entry.name, workload.id, case.name, run))
                for run in range(case.runs)
            )
        ]

    def _note_idle(self, turn: Turn, key: Key) -> None:
        time.sleep(_SETTLE_S[self._form.name])
        seconds = _IDLE_S[self._form.name]
        turn.idle = turn.watch.rest(seconds)
        figures = {
            "ready_s": turn.ready_s,
            "idle_cpu_percent": turn.idle.cpu_s / seconds * 100,
            "pss_mb": turn.idle.pss_mb,
            "processes": turn.idle.processes,
        }
        if not self._ledger.has(key):
            self._write(workload_line(key, figures=figures, facts=turn.facts))

    def _run_case(
        self, turn: Turn, number: int, entry: Entry, workload: Workload, case: Case
    ) -> None:
        key: Key = (number, entry.name, workload.id, case.name, 0)
        if reason := self._why_not(key, case):
            self._write(workload_line(key, cannot=reason))
            return
        if case.warm_up:
            turn.run(case.job, case.timeout_s)
        for run in range(case.runs):
            key = (*key[:4], run)
            if self._ledger.has(key):
                continue
            try:
                answer, usage = turn.run(case.job, case.timeout_s)
            except Broken as error:
                self._write(workload_line(key, error=str(error)))
                raise
            self._write(self._line(key, workload, case, answer, usage, turn.idle))

    def _why_not(self, key: Key, case: Case) -> str:
        """Why a lower step of the same ladder, in this round, was too much already; else empty."""
        for line in self._ledger.lines if case.ladder else ():
            if line.key[:3] == key[:3] and line.case.startswith(case.ladder):
                if line.is_final:
                    return line.cannot or line.error
                if line.figures.get("kept_up") == 0:
                    return _BEYOND
        return ""

    def _line(
        self,
        key: Key,
        workload: Workload,
        case: Case,
        answer: dict[str, Any],
        usage: Usage,
        idle: Usage,
    ) -> Line:
        if "outcome" not in answer:
            return workload_line(
                key, cannot=answer.get("cannot", ""), error=answer.get("error", "")
            )
        try:
            measured = workload.measure(self._form, case, _outcome(answer["outcome"]))
        except (KeyError, ValueError, ZeroDivisionError) as error:
            return workload_line(key, error=f"cannot be measured: {error!r}")
        figures = measured.figures | {
            "pss_mb": usage.pss_mb,
            "pss_over_idle_mb": usage.pss_mb - idle.pss_mb,
            "processes": usage.processes,
            "processes_started": usage.started,
            "cpu_s": usage.cpu_s,
            "others_percent": usage.others_percent,
        }
        figures |= _per_task(answer["counters"], _tasks(case))
        return workload_line(key, figures=figures, problems=measured.problems)

    def _write(self, line: Line) -> None:
        self._ledger.add(line)
        few = [f"{name} {value:.4g}" for name, value in list(line.figures.items())[:4]]
        text = line.error or line.cannot or "  ".join(few)
        trouble = f"  PROBLEM: {'; '.join(line.problems)}" if line.problems else ""
        print(f"    {line.workload:<3} {line.case:<44} {text}{trouble}", flush=True)


def workload_line(key: Key, **found: Any) -> Line:
    """A line about one run of a case."""
    number, system, workload, case, run = key
    return Line(number, system, workload, case, run, **found)


def _outcome(document: dict[str, Any]) -> Outcome:
    times = {name: (begin, end) for name, (begin, end) in document["times"].items()}
    return Outcome(**{**document, "times": times})


def _tasks(case: Case) -> int:
    match case.job:
        case RunMany(graph, count):
            return len(graph) * count
        case OfferLoad(graph, per_s, seconds):
            return len(graph) * round(per_s * seconds)
        case _:
            return len(case.job.graph)


def _per_task(counters: dict[str, float], tasks: int) -> dict[str, float]:
    if not counters:
        return {}
    return {
        "commands_per_task": counters["commands"] / tasks,
        "store_bytes_per_task": (counters["bytes_in"] + counters["bytes_out"]) / tasks,
        "log_bytes_per_task": counters["log_bytes"] / tasks,
    }


if __name__ == "__main__":
    sys.exit(main())
