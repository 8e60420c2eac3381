"""Runs of the simulation, each twice: rules hold, all ends, the same seed is the same run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.faults import CHANCES, INTERVALS_S, OTHERS
from tests.simulation.run import known_seeds, shortfalls
from tests.simulation.verdict import Verdict, run_seed

SEEDS = range(1_000, 1_040)
ROOT = Path(__file__).resolve().parents[2]


def checked(seed: int) -> Verdict:
    first, second = run_seed(seed), run_seed(seed)
    assert first.broken == [], f"seed {seed}: python -m tests.simulation.run --seed {seed}"
    assert first.trace == second.trace, f"seed {seed} does not give the same run twice"
    return first


@pytest.mark.parametrize("seed", known_seeds())
def test_seeds_that_once_found_something(seed: int) -> None:
    checked(seed)


def test_seeds_and_that_they_were_worth_running() -> None:
    verdicts = [checked(seed) for seed in SEEDS]
    landed = sum((verdict.landed for verdict in verdicts), Counter())
    counts = sum((verdict.counts for verdict in verdicts), Counter())
    assert shortfalls(landed, counts) == []
    assert counts["nodes waited for"]
    assert len({verdict.trace for verdict in verdicts}) == len(verdicts)


def test_a_run_is_the_same_in_another_process() -> None:
    """Nothing may hang on hashes or addresses: a seed must be of use to whoever reads it."""
    seeds = [25, 2013, *SEEDS[:9]]
    command = [sys.executable, "-m", "tests.simulation.run", "--trace", *map(str, seeds)]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [run_seed(seed).trace for seed in seeds]


def test_a_run_in_which_nothing_went_wrong_proves_nothing() -> None:
    everything = Counter(dict.fromkeys([*CHANCES, *INTERVALS_S, *OTHERS], 10))
    saved = {"automatic checkpoints": 9, "restored from automatic ones": 2}
    work = Counter({"started": 30, "executions completed": 20, "executions failed": 5, **saved})
    assert shortfalls(everything, work) == []
    del everything["owner dies"]
    assert shortfalls(everything, work) == ["no 'owner dies' has landed"]
    everything["owner dies"] = 1
    assert len(shortfalls(everything, work - Counter(saved))) == 2
    few = Counter({"started": 30, "executions completed": 2, **saved})
    assert len(shortfalls(everything, few)) == 1
