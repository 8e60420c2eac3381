"""The README's blocks as tests see them: what each is tested as, and a shell that runs them.

The comment above a block says how it is tested:

    file NAME     written to a file before anything runs
    walkthrough   run by bash against a service, all of them in order, in one shell
    component     the same, with the README's own component
    output        what the block before it prints
    commands      not run here: each line is checked against the Makefile and the command line
    definition    a workflow that could be created
    values, drawing, contract   checked by a test of their own

Tables below `test: references` and `test: places` have tests of their own too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.readme_tables import README

__all__ = [
    "KINDS",
    "Block",
    "blocks",
    "prose",
    "run_blocks",
    "same_form",
    "unmarked_blocks",
    "write_files",
]

KINDS = frozenset(
    {
        *("file", "walkthrough", "component", "output", "commands"),
        *("definition", "values", "drawing", "contract"),
    }
)

_BLOCK = re.compile(
    r"(?:<!-- test: (\w+)(?: (\S+))? -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_GENERATED = re.compile(r"<!-- begin (\w+) -->.*?<!-- end \1 -->", re.DOTALL)
_END_OF_BLOCK = "---- end of block ----"
_TIMEOUT_S = 240

#: What differs from run to run.
_IDS = re.compile(r"\b(wf|exec|cp|tmpl)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_NUMBERS = re.compile(r'("(?:duration_seconds|timestamp_ms)": ?)[0-9.]+')


@dataclass(frozen=True)
class Block:
    """One fenced block: how it is tested, the file it is for, its language and text."""

    kind: str
    name: str
    language: str
    text: str


def _found() -> Iterator[Block]:
    text = _GENERATED.sub("", README.read_text(encoding="utf-8"))
    for kind, name, language, body in _BLOCK.findall(text):
        yield Block(kind, name, language, body)


def blocks(*kinds: str) -> list[Block]:
    """The blocks that are tested in one of these ways; all marked ones if none is named."""
    return [block for block in _found() if block.kind and (not kinds or block.kind in kinds)]


def unmarked_blocks() -> list[Block]:
    """Blocks that say nothing about how they are tested."""
    return [block for block in _found() if not block.kind]


def prose() -> str:
    """The README without blocks and without what is made from the code."""
    text = README.read_text(encoding="utf-8")
    return _BLOCK.sub("", _GENERATED.sub("", text))


def same_form(text: str) -> str:
    """A text without what differs from run to run, to be compared."""
    return _NUMBERS.sub(r"\g<1>0", _IDS.sub(r"\1-…", text)).strip()


def write_files(directory: Path) -> None:
    """Write the files that the README tells a reader to save."""
    for block in blocks("file"):
        (directory / block.name).write_text(block.text, encoding="utf-8")


def run_blocks(kinds: Sequence[str], directory: Path, url: str, key: str) -> None:
    """Run the blocks of these kinds as a reader would, in one shell, and compare what they print.

    The shell is in `directory`, with the README's files, and finds the service as after an `up`.
    """
    write_files(directory)
    connection = directory / ".harmonia" / "connection.json"
    connection.parent.mkdir(mode=0o700)
    connection.write_text(json.dumps({"url": url, "api_key": key}), encoding="utf-8")
    chosen, expected = _chosen(kinds)
    script = "set -euo pipefail\n" + "".join(
        f"{block.text}\necho '{_END_OF_BLOCK}'\n" for block in chosen
    )
    here = Path(sys.executable).parent
    ours = {name: value for name, value in os.environ.items() if "HARMONIA" not in name}
    run = subprocess.run(
        ["/bin/bash", "-c", script],
        cwd=directory,
        env={**ours, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    printed = run.stdout.split(f"{_END_OF_BLOCK}\n")
    assert run.returncode == 0, f"{printed[-1]}\n{run.stderr}"
    for block, text in zip(chosen, printed, strict=False):
        if block in expected:
            assert same_form(text) == same_form(expected[block]), block.text


def _chosen(kinds: Sequence[str]) -> tuple[list[Block], dict[Block, str]]:
    """The blocks to be run, and what those print that show it."""
    chosen: list[Block] = []
    expected: dict[Block, str] = {}
    previous: Block | None = None
    for block in blocks():
        if block.kind in kinds:
            chosen.append(block)
        elif block.kind == "output" and previous in chosen:
            expected[previous] = block.text
        previous = block
    return chosen, expected
