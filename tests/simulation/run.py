"""Runs many seeds on all cores: `python -m tests.simulation.run --seeds 100000`.

It stops at the first seed that breaks a rule and says how to run just that one. At the end it says
what went wrong on purpose, and fails if some kind of fault never did, or if too little work was
done: then the run has proved nothing.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import islice
from pathlib import Path

from tests.simulation.faults import CHANCES, INTERVALS_S, OTHERS
from tests.simulation.verdict import Verdict, run_seed

__all__ = ["known_seeds", "main", "shortfalls"]

_KNOWN = Path(__file__).with_name("seeds.txt")
_CHUNK = 25
_CHUNKS_AHEAD = 4
_COMPLETED_SHARE = 0.3
#: What must have happened besides.
_WORK = ("automatic checkpoints", "restored from automatic ones")


def known_seeds() -> list[int]:
    """The seeds of seeds.txt."""
    lines = _KNOWN.read_text(encoding="utf-8").splitlines()
    written = [line.partition("#")[0].strip() for line in lines]
    return [int(text) for text in written if text]


def shortfalls(landed: Counter[str], counts: Counter[str]) -> list[str]:
    """Why a run proves too little; empty if it proves something."""
    kinds = (*CHANCES, *INTERVALS_S, *OTHERS)
    found = [f"no '{kind}' has landed" for kind in kinds if not landed[kind]]
    found += [f"there were no {kind}" for kind in _WORK if not counts[kind]]
    completed = counts["executions completed"]
    if completed < _COMPLETED_SHARE * counts["started"]:
        found.append(f"only {completed} of {counts['started']} executions have completed")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.run", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run just this one and tell its story")
    parser.add_argument("--trace", type=int, nargs="+", help="print only hashes of these runs")
    given = parser.parse_args(arguments)
    if given.trace is not None:
        print(*(run_seed(seed).trace for seed in given.trace), sep="\n")
        return 0
    if given.seed is not None:
        return _tell(given.seed)
    return _run_many(range(given.first, given.first + given.seeds))


def _tell(seed: int) -> int:
    verdict = run_seed(seed, tell=True)
    print(*verdict.story, sep="\n")
    print(f"faults: {dict(verdict.landed)}\nwork: {dict(verdict.counts)}\ntrace: {verdict.trace}")
    print(*(verdict.broken or ["no rule is broken"]), sep="\n")
    return 1 if verdict.broken else 0


def _run_many(seeds: range) -> int:
    landed: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    done = 0
    started_s = time.monotonic()
    for verdicts in _in_parallel(_chunks(seeds)):
        for verdict in verdicts:
            landed += verdict.landed
            counts += verdict.counts
            if verdict.broken:
                return _broken(verdict)
        done += len(verdicts)
        _show(done, len(seeds), sum(landed.values()), started_s)
    print(f"\nfaults: {_sorted(landed)}\nwork: {_sorted(counts)}")
    missing = shortfalls(landed, counts)
    print(*(missing or [f"{done} seeds, no rule is broken"]), sep="\n")
    return 1 if missing else 0


def _chunks(seeds: range) -> Iterator[range]:
    return (seeds[at : at + _CHUNK] for at in range(0, len(seeds), _CHUNK))


def _in_parallel(chunks: Iterator[range]) -> Iterator[list[Verdict]]:
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers) as pool:
        running = {
            pool.submit(_run_chunk, each) for each in islice(chunks, workers * _CHUNKS_AHEAD)
        }
        while running:
            future = next(as_completed(running))
            running.remove(future)
            running |= {pool.submit(_run_chunk, each) for each in islice(chunks, 1)}
            try:
                yield future.result()
            except GeneratorExit:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _run_chunk(seeds: Iterable[int]) -> list[Verdict]:
    # A run makes many objects and keeps them all to its end: collecting meanwhile finds nothing.
    gc.disable()
    verdicts = []
    for seed in seeds:
        try:
            verdicts.append(run_seed(seed))
        except Exception as error:
            error.add_note(f"seed {seed}: python -m tests.simulation.run --seed {seed}")
            raise
        gc.collect()
        if verdicts[-1].broken:
            break
    return verdicts


def _broken(verdict: Verdict) -> int:
    print(f"\nseed {verdict.seed} breaks {len(verdict.broken)} rules:", *verdict.broken, sep="\n  ")
    print(f"Run just this one: python -m tests.simulation.run --seed {verdict.seed}")
    print("Once it is mended, add the seed to tests/simulation/seeds.txt, with what it found.")
    return 1


def _show(done: int, total: int, faults: int, started_s: float) -> None:
    elapsed_s = time.monotonic() - started_s
    left_s = elapsed_s / done * (total - done)
    line = f"{done} of {total} seeds, {faults} faults, {done / elapsed_s:.0f} a second"
    print(f"\r{line}, {left_s / 60:.1f} minutes left ", end="", flush=True)


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items()))


if __name__ == "__main__":
    sys.exit(main())
