"""Every mutant still fits the tree, and the tests that must notice it are there."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.mutation import MUTANTS
from tests.mutation.mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
#: Where the tests are that a store's test module inherits.
CONTRACT = ROOT / "tests" / "contract"

#: Guards without which the promise would not hold, by how their mutants' names begin.
DEMANDED = (
    *("epoch, memory", "epoch, Lua", "seq, memory", "seq, Lua", "attempt", "task actors' epoch"),
    *("commit, dispatch", "orphans", "inbox", "slept", "quarantine", "holders", "blob", "calm"),
)


@cache
def functions(path: Path) -> frozenset[str]:
    """Names of all functions and methods of a file."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def where_it_may_be(test: str) -> list[Path]:
    path, *rest = test.split("::")
    inherited = sorted(CONTRACT.glob("*_contract.py")) if len(rest) == 2 else []
    return [ROOT / path, *inherited]


def test_no_two_have_the_same_name() -> None:
    assert max(Counter(mutant.name for mutant in MUTANTS).values()) == 1


@pytest.mark.parametrize("guard", DEMANDED)
def test_what_the_promise_rests_on_is_switched_off_too(guard: str) -> None:
    assert any(mutant.name.startswith(guard) for mutant in MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_an_edit_fits_in_one_place(mutant: Mutant) -> None:
    texts: dict[str, str] = {}
    for edit in mutant.edits:
        text = texts.setdefault(edit.path, (ROOT / edit.path).read_text())
        assert text.count(edit.old) == 1, edit
        texts[edit.path] = text.replace(edit.old, edit.new)
        assert edit.old != edit.new


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_its_tests_are_there(mutant: Mutant) -> None:
    assert mutant.tests
    for test in mutant.tests:
        name = test.rpartition("::")[2]
        assert any(name in functions(path) for path in where_it_may_be(test)), test
