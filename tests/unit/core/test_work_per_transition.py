"""The work for one transition depends on what it changes, not on the size of the graph: counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harmonia_actors.core import stimuli as st
from harmonia_actors.core.execution import Decision, Execution
from harmonia_actors.core.records import TaskRow, encode_head, encode_row
from tests.support.executions import EXECUTION_ID, Story, output, workflow_of

SMALL, LARGE = 100, 10_000


def fan_out(count: int) -> dict[str, Any]:
    """One root, and all others wait for it alone."""
    return {"root": "", **{f"t{index}": ["root"] for index in range(count - 1)}}


def chain(count: int) -> dict[str, Any]:
    return {
        ("root" if index == 0 else f"t{index - 1}"): (
            [] if index == 0 else ["root" if index == 1 else f"t{index - 2}"]
        )
        for index in range(count)
    }


class CountedRows(list[TaskRow]):
    """Rows that count how often they are looked at."""

    looks = 0

    def __getitem__(self, key: Any) -> Any:
        CountedRows.looks += 1
        return super().__getitem__(key)

    def __iter__(self) -> Any:
        CountedRows.looks += len(self)
        return super().__iter__()


def quiet(story: Story) -> Execution:
    """The execution, past the checks of a story, which look at everything."""
    story.execution.rows = CountedRows(story.execution.rows)
    CountedRows.looks = 0
    return story.execution


def written(execution: Execution, decision: Decision) -> int:
    """Bytes that a commit of this decision holds."""
    bodies = [n.encoded(EXECUTION_ID) for n in decision.events]
    rows = [encode_row(execution.rows[index]) for index in decision.changed]
    head = encode_head(execution.head_record())
    return sum(map(len, [*bodies, *rows, *decision.outputs.values(), head]))


def completion(shape: Callable[[int], dict[str, Any]], count: int) -> tuple[int, int, int]:
    """Looks at rows, rows changed and bytes written when the second task completes."""
    story = Story(workflow_of(shape(count)))
    execution = quiet(story)
    at_ms = story.at_ms
    execution.handle(st.StartRequested(at_ms))
    execution.handle(st.AttemptSucceeded(0, 1, at_ms, output({})))
    execution.handle(st.AttemptStarted(1, 1, at_ms))
    CountedRows.looks = 0
    decision = execution.handle(st.AttemptSucceeded(1, 1, at_ms, output({"n": 1})))
    looks = CountedRows.looks
    assert not execution.is_final
    return looks, len(decision.changed), written(execution, decision)


@pytest.mark.parametrize("shape", [fan_out, chain], ids=["fan-out", "chain"])
def test_a_completion_costs_the_same_in_a_large_graph(
    shape: Callable[[int], dict[str, Any]],
) -> None:
    small, large = completion(shape, SMALL), completion(shape, LARGE)
    assert large[:2] == small[:2]
    # Numbers in the head and in events have a digit or two more.
    assert large[2] <= small[2] + 40
    assert small[1] == 1


def test_a_whole_chain_costs_what_its_length_says() -> None:
    looks = []
    for count in (SMALL, SMALL * 10):
        story = Story(workflow_of(chain(count)))
        execution = quiet(story)
        execution.handle(st.StartRequested(story.at_ms))
        for task in range(count):
            execution.handle(st.AttemptSucceeded(task, 1, story.at_ms, output({})))
        assert execution.is_final
        looks.append(CountedRows.looks)
    assert looks[1] <= looks[0] * 11
