"""Switches off one guard at a time, in a copy of the tree, and demands that tests turn red.

`python -m tests.mutation.run [NAME…] [--jobs N]`. It prints a table, and fails if the tree as it
is has a red test, if an edit does not fit, or if a test that should notice stays green.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutation import MUTANTS
from tests.mutation.mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
_RUN_S_MAX = 300
_RED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
#: A mutant that cannot even be loaded turns everything red, and proves nothing.
_BROKEN = ("SyntaxError", "NameError", "ImportError", "Error compiling script")
#: Where a test failed, by what of the mutated code itself.
_CRASHED = re.compile(r"^(\S+):\d+: (?:AttributeError|TypeError)\b", re.MULTILINE)


class Unfit(Exception):
    """An edit does not fit the tree, or makes something that cannot be run."""


@dataclass
class Copy:
    """The tree in a directory of its own, in which a guard is switched off and on again."""

    directory: Path
    edits: int = 0

    def write(self, path: str, text: str) -> None:
        """Write a file so that no compiled form of what it was is taken for it."""
        file = self.directory / path
        file.write_text(text)
        self.edits += 1
        at_s = time.time() + 10 * self.edits
        os.utime(file, (at_s, at_s))

    def switch_off(self, mutant: Mutant) -> dict[str, str]:
        """Edit; returns what the files were. Raises Unfit."""
        before: dict[str, str] = {}
        for edit in mutant.edits:
            text = (self.directory / edit.path).read_text()
            before.setdefault(edit.path, text)
            if text.count(edit.old) != 1:
                raise Unfit(f"{edit.path} has this {text.count(edit.old)} times:\n{edit.old}")
            self.write(edit.path, text.replace(edit.old, edit.new))
        return before

    def run(self, tests: Sequence[str]) -> tuple[int, str]:
        """Pytest's exit code and what it says."""
        command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=line", "-p", "no:randomly"]
        done = subprocess.run(
            [*command, *tests],
            cwd=self.directory,
            # The tree is found before what is installed; properties draw the same each time.
            env={**os.environ, "PYTHONPATH": str(self.directory), "CI": "true", "COLUMNS": "300"},
            capture_output=True,
            text=True,
            timeout=_RUN_S_MAX,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


@dataclass(frozen=True)
class Result:
    """What became of one mutant."""

    mutant: Mutant
    red: Sequence[str]
    #: Tests that should have noticed.
    green: Sequence[str]
    seconds: float
    problem: str = ""

    @property
    def is_killed(self) -> bool:
        """Whether every test that should notice has noticed."""
        return not self.green and not self.problem


def copy_tree(directory: Path) -> Copy:
    """All files that are under version control, or could be, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, directory / name)
    return Copy(directory)


def only_crashes(said: str, paths: Sequence[str]) -> bool:
    """Whether code of these files breaks as nonsense does, wherever a test is red.

    Then it is not the guard's absence that was noticed.
    """
    ends = tuple(f"/{path}" for path in paths)
    crashes = [path for path in _CRASHED.findall(said) if path.endswith(ends)]
    return bool(crashes) and len(crashes) >= len(_RED.findall(said))


def tried(copy: Copy, mutant: Mutant) -> Result:
    """Switch a guard off, run its tests, and switch it on again."""
    started_s = time.monotonic()
    red: set[str] = set()
    problem = ""
    before: dict[str, str] = {}
    try:
        before = copy.switch_off(mutant)
        code, said = copy.run(mutant.tests)
        red = {node.partition("[")[0] for node in _RED.findall(said)}
        broken = [sign for sign in _BROKEN if sign in said]
        if only_crashes(said, list(before)):
            broken.append("nothing but AttributeError or TypeError of its own")
        if code not in (0, 1) or broken:
            problem = f"it cannot be run ({code}, {', '.join(broken)}):\n{said[-2_000:]}"
    except Unfit as error:
        problem = str(error)
    except subprocess.TimeoutExpired:
        problem = f"its tests did not end within {_RUN_S_MAX} s"
    finally:
        for path, text in before.items():
            copy.write(path, text)
    green = [test for test in mutant.tests if test not in red]
    return Result(mutant, sorted(red), green, time.monotonic() - started_s, problem)


def table(results: Sequence[Result]) -> str:
    """One line for each mutant, and one more for each further test."""
    rows = [("mutant", "rule that does not hold", "red", "s")]
    for result in results:
        tests = [test.rpartition("::")[2] for test in result.red] or ["NONE"]
        tests += [f"GREEN: {test.rpartition('::')[2]}" for test in result.green]
        first = (result.mutant.name, result.mutant.rule, tests[0], f"{result.seconds:.1f}")
        rows += [first, *(("", "", test, "") for test in tests[1:])]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def run(mutants: Sequence[Mutant], jobs: int) -> int:
    """Try them all; the exit code."""
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        copies: queue.Queue[Copy] = queue.Queue()
        for number in range(jobs):
            copies.put(copy_tree(Path(scratch) / str(number)))
        first = copies.get()
        code, said = first.run(sorted({test for mutant in mutants for test in mutant.tests}))
        copies.put(first)
        if code != 0:
            print(said, "\nThe tree as it is has red tests: nothing can be proved by it.", sep="\n")
            return 1
        print(f"the tree as it is: green, {time.monotonic() - started_s:.0f} s", flush=True)
        shown = threading.Lock()

        def one(mutant: Mutant) -> Result:
            copy = copies.get()
            try:
                result = tried(copy, mutant)
            finally:
                copies.put(copy)
            with shown:
                print("." if result.is_killed else f"\n{mutant.name} SURVIVES", end="", flush=True)
            return result

        with ThreadPoolExecutor(jobs) as threads:
            results = list(threads.map(one, mutants))
    print("\n" + table(results))
    left = [result for result in results if not result.is_killed]
    for result in left:
        print(f"\n{result.mutant.name}: {result.problem or 'it survives'}")
    seconds = time.monotonic() - started_s
    print(f"\n{len(results)} mutants, {len(results) - len(left)} killed, {seconds:.0f} s")
    return 1 if left or not results else 0


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only mutants whose names begin like that")
    parser.add_argument("--jobs", type=int, default=max(1, min(4, os.cpu_count() or 1)))
    given = parser.parse_args()
    chosen = [
        mutant
        for mutant in MUTANTS
        if not given.names or mutant.name.startswith(tuple(given.names))
    ]
    return run(chosen, given.jobs)


if __name__ == "__main__":
    sys.exit(main())
