"""From the lines of a run to its document, its tables and its page; and how a run goes on."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.catalogue import SYSTEMS, WORKLOADS
from benchmarks.jobs import Outcome, job_of, to_json
from benchmarks.ledger import Ledger, Line
from benchmarks.machine import commit
from benchmarks.report import FOLDER, RESULTS, events_of, newest, page, write_report
from benchmarks.summary import IDLE, summarise
from benchmarks.tables import cases_table, table
from benchmarks.workloads.workload import Form
from tests.architecture.source import ROOT

HEADER: dict[str, Any] = {
    "form": "short",
    "commit": "abc",
    "machine": {
        "processor": "p",
        "cores": 2,
        "memory_gb": 8.0,
        "system": "Linux",
        "python": "3.11",
    },
    "rounds": 3,
    "systems": ["harmonia", "ray", "celery"],
    "workloads": ["W2", "W3", "W4"],
    "work_s": 1e-7,
    "load": 0.1,
    "instances": [],
    "seed": 1,
    "began": "2026-01-01T00:00:00Z",
}
SAME = ("form", "commit")


def lines() -> list[Line]:
    found = []
    for number, steps_per_s in enumerate((900.0, 1_100.0, 1_000.0)):
        found.append(Line(number, "harmonia", IDLE, IDLE, figures={"ready_s": 5.0}))
        figures = {"steps_per_s": steps_per_s, "hop_p99_ms": 2.0, "others_percent": 80.0}
        found.append(Line(number, "harmonia", "W4", "1000 steps", figures=figures))
        for width in (100, 1_000):
            figures = {"width": width, "seconds": width / 2_000, "tasks_per_s": 2_000.0}
            found.append(Line(number, "harmonia", "W3", f"1 → {width} → 1", figures=figures))
    found.append(Line(0, "ray", "W4", "1000 steps", figures={"steps_per_s": 500.0}))
    found.append(Line(0, "celery", "W4", "1000 steps", cannot="it has | no chains"))
    return found


def test_a_document_has_medians_spread_and_what_is_derived() -> None:
    document = summarise(HEADER, lines())
    by_id = {workload["id"]: workload for workload in document["workloads"]}
    (case,) = by_id["W4"]["cases"]
    figure = case["systems"]["harmonia"]["figures"]["steps_per_s"]
    assert figure == {"median": 1_000, "low": 950, "high": 1_050, "samples": 3}
    assert case["systems"]["celery"]["cannot"] == ["it has | no chains"]
    assert by_id["W3"]["derived"]["harmonia"]["exponent"] == pytest.approx(1)
    assert by_id["W3"]["derived"]["harmonia"]["at"] == 1_000
    assert "W2" not in by_id


def test_of_a_system_with_one_size_its_rate_is_known_and_no_growth() -> None:
    figures = {"width": 100, "seconds": 1.0, "tasks_per_s": 100.0}
    document = summarise(HEADER, [*lines(), Line(0, "ray", "W3", "1 → 100 → 1", figures=figures)])
    (workload,) = (found for found in document["workloads"] if found["id"] == "W3")
    assert workload["derived"]["ray"] == {"tasks_per_s_at_most": 100.0, "at": 100}


def test_aims_are_judged_by_what_was_measured() -> None:
    aims = {(aim["workload"], aim["what"]): aim for aim in summarise(HEADER, lines())["aims"]}
    assert aims["W4", "… by raw Ray's"]["measured"] == 2
    assert aims["W4", "… by raw Ray's"]["met"] is True
    assert aims["W4", "steps/s"]["met"] is True
    assert aims["W3", "tasks/s at N = 10,000"]["met"] is False
    assert aims["W4", "… by DBOS's"]["met"] is None
    assert aims["start", "seconds until ready"]["met"] is True


def test_a_table_shows_the_class_the_spread_and_the_reason() -> None:
    document = summarise(HEADER, lines())
    (workload,) = (found for found in document["workloads"] if found["id"] == "W4")
    shown = cases_table(document, workload["columns"], workload["cases"]).splitlines()
    assert shown[0].startswith("| case | system | class | steps/s | hop p99, ms |")
    assert "| 1000 steps | Harmonia | D3 | 1,000 [950, 1,050] | 2.00 |" in shown[2]
    assert "| 1000 steps | raw Ray | D0 | 500 | – |" in shown[3]
    assert "it has \\| no chains" in shown[4]


def test_every_row_of_a_table_has_as_many_cells() -> None:
    assert table(["a", "b"], [["1", "x|y"]]) == "| a | b |\n| --- | --- |\n| 1 | x\\|y |"


def test_a_report_is_written_where_the_results_are(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "short.jsonl", HEADER, SAME)
    for line in lines():
        ledger.add(line)
    write_report(ledger, tmp_path)
    written = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "The machine was not quiet" in written
    assert "## W4: A chain of 1,000" in written
    assert "1,000 [950, 1,050]" in written
    assert (tmp_path / "short.json").is_file()
    assert (tmp_path / "short-w3.png").is_file()
    assert "](./short-w4.png)" in written


def test_the_page_of_the_project_is_made_of_its_results() -> None:
    written = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert written == page(newest(RESULTS), "results", events_of(RESULTS))


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    path = tmp_path / "short.jsonl"
    first = Ledger(path, HEADER, SAME)
    done = Line(0, "ray", "W4", "1000 steps", figures={"steps_per_s": 1.0})
    first.add(done)
    first.add(Line(0, "ray", "W1", "x", cannot="no way"))
    with path.open("a") as file:
        file.write('{"round": 0, "sys')  # it was killed while it wrote
    again = Ledger(path, {**HEADER, "seed": 2}, SAME)
    assert again.header["seed"] == 1
    assert again.has(done.key)
    assert not again.has(replace(done, run=1).key)
    assert again.has((0, "ray", "W1", "x", 1)), "what it cannot do is not asked again"
    again.add(replace(done, run=1))
    assert len(Ledger(path, HEADER, SAME).lines) == 3


def test_another_version_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "short.jsonl"
    Ledger(path, HEADER, SAME).add(Line(0, "ray", "W4", "1000 steps"))
    again = Ledger(path, {**HEADER, "commit": "def"}, SAME)
    assert not again.lines
    assert again.replaced is not None, "hours of work are not thrown away"
    assert "1000 steps" in again.replaced.read_text()


@pytest.mark.parametrize(("by_hold", "took_turns"), [(1.5, False), (2.0, True)])
def test_executions_that_waited_after_one_another_are_a_problem(
    by_hold: float, took_turns: bool
) -> None:
    (w7,) = (workload for workload in WORKLOADS if workload.id == "W7")
    form = Form("full", 1, True, 2, 1e-7)
    for case in w7.cases(form, 20_000)[1:]:
        seconds = by_hold * case.job.graph[0].amount
        assert bool(w7.measure(form, case, Outcome(seconds)).problems) is took_turns


def test_a_version_is_of_what_is_measured(tmp_path: Path) -> None:
    """A run may go on after other commits: to tests, to pages, and of its own results."""

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", *who, *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    def change(*paths: str) -> None:
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            with (tmp_path / path).open("a") as file:
                file.write("more\n")

    def commit_all() -> str:
        git("add", ".")
        git("commit", "--message", "x")
        return commit(tmp_path)

    assert commit(tmp_path) == "", "nothing is known without a repository"
    git("init", "--quiet")
    change("persistence/store.py", "tests/test_store.py")
    first = commit_all()
    assert first
    change("tests/test_store.py", "benchmarks/README.md", "benchmarks/results/full.jsonl")
    assert commit(tmp_path) == first
    assert commit_all() == first
    change("persistence/store.py")
    assert commit(tmp_path) == f"{first}+"
    assert commit_all() not in (first, f"{first}+", "")


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("entry", SYSTEMS, ids=lambda entry: entry.name)
def test_each_system_is_given_jobs_of_its_size(entry: Any, full: bool) -> None:
    form = Form("full" if full else "short", 1, full, 2, 1e-7)
    for workload in WORKLOADS:
        cases = workload.cases(form, entry.reach)
        assert len({case.name for case in cases}) == len(cases)
        for case in cases:
            assert len(case.job.graph) <= max(entry.reach + 2, 42)
            assert not case.ladder or case.name.startswith(case.ladder)
    small = WORKLOADS[3].cases(form, entry.reach)[0].job
    assert job_of(to_json(small)) == small


def test_each_system_has_a_module_and_each_peer_its_requirements() -> None:
    for entry in SYSTEMS:
        assert (ROOT / "benchmarks" / "systems" / f"{entry.module}.py").is_file()
        if entry.peer:
            wanted = (ROOT / "benchmarks/peers" / entry.peer / "requirements.txt").read_text()
            assert all("==" in line for line in wanted.splitlines())
