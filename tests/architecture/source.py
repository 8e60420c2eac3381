"""The project's Python files as these tests see them: path, module name, text, syntax tree."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["PACKAGES", "ROOT", "SourceFile", "read_sources"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("harmonia_actors", "harmonia_serve", "persistence")
_EVERYWHERE = (*PACKAGES, "tests", "examples", "benchmarks")


@dataclass(frozen=True)
class SourceFile:
    """One file; `path` is relative to the project's root, with forward slashes."""

    path: str
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        """Its dotted name."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def imports(self) -> Iterator[tuple[int, str, str]]:
        """(line, module, name) of each import; the name is "" where a whole module is imported.

        A submodule that is imported by name counts as the module that it is.
        """
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name, ""
            elif isinstance(node, ast.ImportFrom):
                origin = "." * node.level + (node.module or "")
                for alias in node.names:
                    if is_module(f"{origin}.{alias.name}"):
                        yield node.lineno, f"{origin}.{alias.name}", ""
                    else:
                        yield node.lineno, origin, alias.name


def is_module(name: str) -> bool:
    """Whether a dotted name is a module of this project."""
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _python_files(top: Path) -> Iterator[Path]:
    """All below a directory, but none of an environment that something was installed into."""
    for folder, below, files in os.walk(top):
        below[:] = [name for name in below if not name.startswith(".")]
        yield from (Path(folder, name) for name in files if name.endswith(".py"))


@cache
def read_sources(*tops: str) -> tuple[SourceFile, ...]:
    """All Python files below the given directories; by default everywhere."""
    found = []
    for top in tops or _EVERYWHERE:
        for path in sorted(_python_files(ROOT / top)):
            text = path.read_text(encoding="utf-8")
            name = path.relative_to(ROOT).as_posix()
            found.append(SourceFile(name, text, ast.parse(text, filename=name)))
    return tuple(found)
