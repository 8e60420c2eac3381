"""The runner of mutants: what it takes for a mutant that proves nothing."""

from __future__ import annotations

import pytest

from tests.mutation.run import only_crashes

CRASH = "/copy/0/harmonia_actors/core/graph.py:7: AttributeError: 'int' object has no attribute 'x'"
TYPE = "/copy/0/harmonia_actors/core/graph.py:9: TypeError: 'NoneType' object is not iterable"
FAILED = "FAILED tests/unit/core/test_graph.py::test_{} - AttributeError: 'int' object has"
PATHS = ["harmonia_actors/core/graph.py"]


def said(*lines: str) -> str:
    """What pytest says of so many tests, each of which is red because of its line."""
    return "\n".join([*lines, *(FAILED.format(number) for number, _ in enumerate(lines))])


def test_a_mutant_whose_own_code_breaks_in_every_test_proves_nothing() -> None:
    assert only_crashes(said(CRASH), PATHS)
    assert only_crashes(said(CRASH, TYPE), PATHS)


@pytest.mark.parametrize(
    "line",
    [
        "/copy/0/tests/unit/core/test_graph.py:3: assert 1 == 2",
        "/copy/0/tests/unit/core/test_graph.py:3: TypeError: object of type 'int' has no len()",
        "/copy/0/harmonia_actors/core/graph.py:7: KeyError: 'TypeError'",
        "/copy/0/harmonia_actors/core/state.py:7: AttributeError: 'int' object has no attribute",
    ],
)
def test_one_test_that_is_red_for_another_reason_is_enough(line: str) -> None:
    assert not only_crashes(said(CRASH, line), PATHS)


def test_nothing_red_is_no_crash() -> None:
    assert not only_crashes("3 passed in 0.1s", PATHS)
