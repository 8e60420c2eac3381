"""What a run has found so far, a JSON line for each: a run that was stopped goes on from there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Key", "Ledger", "Line"]

#: Round, system, workload, case, number of the run.
Key = tuple[int, str, str, str, int]


@dataclass(frozen=True)
class Line:
    """One run of one case by one system, or why there is none."""

    round: int
    system: str
    workload: str
    case: str
    run: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    cannot: str = ""
    error: str = ""
    #: Versions and the like, with the line about its start.
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Which run of what it is about."""
        return self.round, self.system, self.workload, self.case, self.run

    @property
    def is_final(self) -> bool:
        """Whether further runs of the case in this round would be in vain."""
        return bool(self.cannot or self.error)


class Ledger:
    """A file of lines; the first one says which run it is."""

    def __init__(self, path: Path, header: dict[str, Any], same: tuple[str, ...]) -> None:
        """Go on with the file if its header has the same values of `same`, else begin anew."""
        self._path = path
        self.header = header
        self._lines: list[Line] = []
        #: Where the lines of another run were put that had been here.
        self.replaced: Path | None = None
        old = list(_documents(path))
        if old and all(old[0].get(name) == header[name] for name in same):
            self.header = old[0]
            self._lines = [Line(**document) for document in old[1:]]
        elif len(old) > 1:
            self.replaced = path.rename(path.with_suffix(".old.jsonl"))
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            for document in (self.header, *map(asdict, self._lines)):
                file.write(json.dumps(document) + "\n")
        fresh.replace(path)
        self._done = {line.key for line in self._lines}
        self._in_vain = {line.key[:4] for line in self._lines if line.is_final}

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(self._lines)

    def has(self, key: Key) -> bool:
        """Whether this run has been made, or an earlier one has shown that it is in vain."""
        return key in self._done or key[:4] in self._in_vain

    def add(self, line: Line) -> None:
        """Write it down at once."""
        self._lines.append(line)
        self._done.add(line.key)
        if line.is_final:
            self._in_vain.add(line.key[:4])
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(line)) + "\n")


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(text)
        except ValueError:
            # The last line of a run that was killed while it wrote.
            return
