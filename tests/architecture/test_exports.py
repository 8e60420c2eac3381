"""`__all__` is sorted, names only what is there, and names all that other modules import."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.architecture.source import PACKAGES, SourceFile, read_sources


def exported(source: SourceFile) -> list[str] | None:
    """The names in `__all__`; None for a module without one."""
    for node in source.tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
        ):
            found: list[str] = ast.literal_eval(node.value)
            return found
    return None


def defined(source: SourceFile) -> Iterator[str]:
    """Names that a module has at its top level."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    for node in source.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            names = (name for target in node.targets for name in ast.walk(target))
            yield from (name.id for name in names if isinstance(name, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def order(name: str) -> tuple[int, list[int | str]]:
    """CONSTANTS, then Classes, then functions, each as a person counts: `part2` before `part10`."""
    kind = 0 if name.isupper() else 1 if name[:1].isupper() else 2
    return kind, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def test_exports_are_sorted() -> None:
    unsorted = {
        source.path: names
        for source in read_sources(*PACKAGES)
        if (names := exported(source)) is not None and names != sorted(set(names), key=order)
    }
    assert unsorted == {}


def test_exports_are_there() -> None:
    missing = [
        f"{source.path}: {name}"
        for source in read_sources(*PACKAGES)
        for name in exported(source) or ()
        if name not in set(defined(source))
    ]
    assert missing == []


def test_what_other_modules_import_is_exported() -> None:
    known = {source.module: exported(source) for source in read_sources(*PACKAGES)}
    hidden = {
        f"{source.path}:{line} imports {name} from {module}"
        for source in read_sources(*PACKAGES)
        for line, module, name in source.imports()
        if name and (names := known.get(module)) is not None and name not in names
    }
    assert sorted(hidden) == []


def test_modules_with_something_public_say_what() -> None:
    silent = [
        source.path
        for source in read_sources(*PACKAGES)
        if exported(source) is None
        and any(
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            for node in source.tree.body
        )
    ]
    assert silent == []
