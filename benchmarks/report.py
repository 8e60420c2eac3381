"""Writes the results down: as JSON, as plots, and as the page `benchmarks/README.md`.

`python -m benchmarks.report` makes the page again of the results that there are.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.catalogue import CLASSES, SYSTEMS, WORKLOADS
from benchmarks.fanout.document import section
from benchmarks.ledger import Ledger
from benchmarks.plots import write_plots
from benchmarks.summary import summarise
from benchmarks.tables import aims_table, cases_table, derived_table, systems_table, table

__all__ = ["events_of", "newest", "page", "write_page", "write_report"]

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
_PAGE = "README.md"
#: Beyond it a machine is not quiet: the kernel and the runner themselves take some of it.
_QUIET_PERCENT = 15

Json = dict[str, Any]

_INTRODUCTION = """\
# Benchmarks

Harmonia, raw Ray and other engines on the same machine, in the same run. Anyone can repeat it:

```sh
make bench                                  # Harmonia, raw Ray, DBOS: about ten minutes
make bench-full                             # all systems, sizes: 3 hours; a second call goes on
make bench BENCH="--systems harmonia --workloads W4 --rounds 1"     # a part
make bench-full WFINSTANCES=path/to/folder  # with recorded workflows in WfFormat, for W5
make bench-events                           # events to 1,000 subscribers (W8): ten minutes
```

Peers are installed from PyPI into environments of their own, in the versions of
`benchmarks/peers/*/requirements.txt`. This page, the plots and the JSON are written by such a run
into `benchmarks/results`: nobody edits them. What a run has measured so far is in a ledger beside
them; the one of the full form, `full.jsonl`, may be committed and gone on with on another day, for
as long as what is measured, the machine and the choice are the same.
"""

_METHOD = """\
## Method

- **Interleaved.** A run has rounds. In each round every system has one turn, in an order that is
  drawn anew: it is started, is alone on the machine, runs all workloads, and is ended. So what
  changes on the machine in the course of a run meets all systems alike.
- **Medians and spread.** A cell is the median of all rounds, with the quartiles in brackets where
  they differ. What is short is run several times in a round, after one run that does not count.
- **Durability.** Each row has its class; compare only within one.
- **The client** is on the same machine, and its share of the cores is in all numbers. Time counts
  from submission until the client knows the end. Definitions are made before, and not counted.
- **Times of tasks** are taken by the tasks themselves, by the clock of the machine, in the same
  code for all systems.
- **Memory** is the sum of the proportional set sizes (PSS) of all processes of a system, its client
  included, at its highest in a look every two seconds. `started in the run` are processes that were
  not there before it, as far as those looks have seen them.
- **Store commands and bytes** are what a Redis-compatible store has counted over the run (`INFO
  commandstats`; network bytes in and out), idle traffic of that time included, by tasks.
- **Quiet.** `others` is what all other processes of the machine took meanwhile.
- **Slow systems** get smaller sizes, which the name of the case says.
- **Results are checked**: the last value of a chain, the bytes that a fan-in was given, the order
  of recorded workflows. What is wrong stands in the last column, like what a system cannot do.
"""

_CAVEATS = """\
## Caveats

- The cores of one machine hold client, engine and store together: absolute numbers are of this
  machine, and only ratios go further.
- DBOS and Prefect run tasks in the process of the client, in one interpreter: no hop to another
  process, and no second core. Celery's and dask's workers take one task at a time, so what only
  waits is not asked of them. Prefect's SQLite and its retries of states make its numbers spread.
- A message of a Celery chain carries all that is left of the chain: its cost grows with the length.
- DBOS runs a graph level by level, since the order of its steps must be found again in a recovery.
- Raw Ray is told a whole graph at once, and holds it in the memory of its driver: it shows what a
  layer above it costs, not what an engine could be replaced by.
- In W6 Harmonia and raw Ray are asked by HTTP, the others in their own process.
- Peers have their default settings except where the table of systems says otherwise.
"""

_MODEL = """\
## What limits a larger cluster

From costs per task, commit and event, all of them in the tables above. They are what to multiply,
not what was measured on such a cluster.

- **The store** is one server, for all nodes: tasks a second are at most its commands a second by
  `store commands/task`. Group commit lowers that figure as load grows: compare W4, where every
  task is a commit of its own, with W3. Knob: `HARMONIA_BATCH_ATTEMPTS_MAX`; then several
  installations, each with its own Redis and its own `HARMONIA_NAMESPACE`.
- **Execution actors** decide, and each takes one core: one execution is never faster than W3 is
  here, however many nodes there are; many executions grow with `HARMONIA_EXECUTION_ACTORS_MAX`.
- **Task actors** grow with the cores (`HARMONIA_TASK_ACTORS_MAX`): with tasks longer than
  METG(50 %) times the cores of the cluster, cores are the limit, and not the engine.
- **Requests** grow with `HARMONIA_REST_REPLICAS`, and open streams with
  `HARMONIA_STREAM_REPLICAS`, until the store is the limit.
- **Events** of a commit go to a broadcaster once, and from there to each replica that has somebody
  for them; what comes while a call is under way goes together in the next. A broadcaster takes one
  core: `HARMONIA_BROADCASTERS` shares the executions among several.

So 10 nodes are limited by the tasks' own work unless tasks are tiny; 100 nodes by the execution
actors of single large executions; 1,000 nodes by the store.
"""


def write_report(ledger: Ledger, results: Path) -> tuple[Path, Path]:
    """Write JSON, plots and page; where the JSON and the page are."""
    document = summarise(ledger.header, ledger.lines)
    results.mkdir(parents=True, exist_ok=True)
    document["plots"] = write_plots(document, results)
    path = results / f"{document['form']}.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path, write_page(results)


def write_page(results: Path) -> Path:
    """Write the page of the results that there are; where it is.

    The page of the project's own results is the one of this folder.
    """
    target = FOLDER if results.resolve() == RESULTS else results
    made = page(newest(results), _from(target, results), events_of(results))
    (target / _PAGE).write_text(made, encoding="utf-8")
    return target / _PAGE


def _from(folder: Path, results: Path) -> str:
    """How a page in `folder` finds what is in `results`."""
    return os.path.relpath(results, folder)


def newest(results: Path) -> Json | None:
    """The results of the full form if there are any, else of the short one."""
    for form in ("full", "short"):
        path = results / f"{form}.json"
        if path.is_file():
            found: Json = json.loads(path.read_text(encoding="utf-8"))
            return found
    return None


def events_of(results: Path) -> Json | None:
    """The results of W8, which is measured by itself."""
    path = results / "events.json"
    if not path.is_file():
        return None
    found: Json = json.loads(path.read_text(encoding="utf-8"))
    return found


def page(document: Json | None, folder: str, events: Json | None = None) -> str:
    """The page; without results it tells how they are had, and what they will be of."""
    classes = table(["class", "what survives"], [list(item) for item in CLASSES.items()])
    parts = [_INTRODUCTION]
    if document is None:
        parts += ["## Results\n", "This version has not been measured yet: `make bench`.\n"]
        parts += [_METHOD, classes + "\n", _plan(), section(events), _CAVEATS, _MODEL]
        return "\n".join(parts).rstrip() + "\n"
    parts += [_run(document), _METHOD, classes + "\n", systems_table(document) + "\n", _CAVEATS]
    parts += ["## Aims\n", aims_table(document) + "\n"]
    idle = document["idle"]
    parts += ["## Start and idle\n", cases_table(document, idle["columns"], idle["cases"]) + "\n"]
    for workload in document["workloads"]:
        parts += [f"## {workload['id']}: {workload['title']}\n", workload["method"] + "\n"]
        if workload["id"] in document["plots"]:
            file = document["plots"][workload["id"]]
            parts.append(f"![{workload['title']}]({folder}/{file})\n")
        if workload["derived"]:
            parts.append(derived_table(document, workload) + "\n")
        parts.append(cases_table(document, workload["columns"], workload["cases"]) + "\n")
    return "\n".join([*parts, section(events), _MODEL]).rstrip() + "\n"


def _run(document: Json) -> str:
    machine = document["machine"]
    return (
        f"## This run\n\nForm `{document['form']}`, rounds: {document['rounds']}, begun "
        f"{document['began']}, code {document['commit'] or 'unknown'}. {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}, Python "
        f"{machine['python']}; load average at the beginning {document['load']:.2f}.\n"
        f"{_noise(document)}"
    )


def _noise(document: Json) -> str:
    """How much of the machine others have had while it was measured."""
    others = document.get("others_percent")
    if others is None:
        return ""
    told = (
        f"\nWhile something was measured, other processes took {others['median']:.0f} % of a core "
        f"at the median, and {others['most']:.0f} % at most."
    )
    if others["median"] > _QUIET_PERCENT:
        told += " **The machine was not quiet: these numbers are good for nothing but a trial.**"
    return f"{told}\n"


def _plan() -> str:
    workloads = table(["", "workload", "method"], [[w.id, w.title, w.method] for w in WORKLOADS])
    systems = table(
        ["system", "class", "what it is here"],
        [[entry.title, entry.durability, entry.note] for entry in SYSTEMS],
    )
    return f"## Systems\n\n{systems}\n\n## Workloads\n\n{workloads}\n"


def main() -> int:
    """Make the page again."""
    write_page(RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
