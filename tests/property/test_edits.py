"""What may be edited, held against plain descriptions of it, for random workflows and inputs."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from harmonia_actors.core import jsontext
from harmonia_actors.core.edits import as_sent, changed_inputs, edited_definition, users_of_inputs
from harmonia_actors.core.errors import Problem
from harmonia_actors.core.references import INPUT, compile_template, resolve
from tests.support.executions import workflow_of

NAMES = ("a", "b", "c.d", "a.input")
names = some.sampled_from(NAMES)
values = some.recursive(
    some.none() | some.booleans() | some.integers(-2, 2) | some.floats(-2, 2) | some.text("ab1"),
    lambda inner: some.lists(inner, max_size=2) | some.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)
inputs = some.dictionaries(names, values, max_size=4)


def written(name: str) -> str:
    return f'${{workflow.input["{name}"]}}'


@some.composite
def task_inputs(draw: some.DrawFn) -> dict[str, Any]:
    """Inputs of a task that refer to some inputs of the execution, somewhere."""
    shown: dict[str, Any] = {}
    for at in range(draw(some.integers(0, 3))):
        name, other = draw(names), draw(names)
        shown[f"v{at}"] = draw(
            some.sampled_from(
                [
                    written(name),
                    [f"text {written(name)}"],
                    {"deep": written(name).replace("}", " ?? 1}")},
                    written(name).replace("}", f' ?? workflow.input["{other}"]}}'),
                    "$" + written(name),
                    "${workflow.input}",
                    7,
                ]
            )
        )
    return shown


@given(former=inputs, new=inputs)
def test_a_change_is_what_json_shows(former: dict[str, Any], new: dict[str, Any]) -> None:
    changed = changed_inputs(former, new)
    for name in NAMES:
        texts = [
            json.dumps(one[name], sort_keys=True) if name in one else "" for one in (former, new)
        ]
        assert (name in changed) == (texts[0] != texts[1])


@given(some.data())
def test_what_uses_no_changed_input_is_given_the_same(data: some.DataObject) -> None:
    """Whoever is not among the users resolves to the same bytes before and after."""
    tasks = {f"t{at}": {"input": data.draw(task_inputs())} for at in range(3)}
    workflow = workflow_of({name: {**task, "action": "echo"} for name, task in tasks.items()})
    former = {name: data.draw(values) for name in NAMES}
    new = {**former, **data.draw(inputs)}
    changed = changed_inputs(former, new)
    users = users_of_inputs(workflow, range(3), changed, named_max=9)
    assert users.named.keys() <= changed
    assert users.total == len(users.named)
    using = {task for tasks_of in users.named.values() for task in tasks_of}
    for task in workflow.tasks:
        template = compile_template(task.input, workflow.by_name)
        bodies = [
            jsontext.encode_canonical(
                resolve(template, {INPUT: one}.__getitem__, limit_bytes=10**6)
            )
            for one in (former, new)
        ]
        if task.name not in using:
            assert bodies[0] == bodies[1]
        elif "??" not in json.dumps(tasks[task.name]):
            assert task.name in using


@given(some.data())
def test_of_inputs_and_their_users_the_first_are_named_and_all_are_counted(
    data: some.DataObject,
) -> None:
    tasks = {f"t{at}": {"input": data.draw(task_inputs())} for at in range(3)}
    workflow = workflow_of({name: {**task, "action": "echo"} for name, task in tasks.items()})
    changed = data.draw(some.sets(names))
    most = data.draw(some.integers(1, 3))
    every = users_of_inputs(workflow, range(3), changed, named_max=9)
    first = users_of_inputs(workflow, range(3), changed, named_max=most)
    shown = {name: list(every.named[name])[:most] for name in sorted(every.named)[:most]}
    assert first.named == shown
    assert first.total == every.total == len(every.named)
    assert first.tasks_of_first == len(next(iter(every.named.values()), ()))
    assert list(first.named) == sorted(first.named)


@given(edited=some.dictionaries(names, some.dictionaries(names, values), max_size=3))
def test_an_edit_changes_inputs_of_its_tasks_alone(edited: dict[str, Any]) -> None:
    tasks = {name: {"component": "c", "action": name, "input": {"x": 1}} for name in NAMES}
    definition = {"name": "w", "tasks": tasks, "output": 1}
    before = json.dumps(definition)
    made = edited_definition(definition, edited)
    assert json.dumps(definition) == before, "the workflow's own stays as it is"
    assert list(made["tasks"]) == list(NAMES), "the order is that of the definition"
    for name in NAMES:
        assert made["tasks"][name] == {**tasks[name], "input": edited.get(name, {"x": 1})}
    assert {**made, "tasks": tasks} == definition


@given(edited=some.sets(names), name=names, rest=some.sampled_from(["", ".x", "[0]", ".input.x"]))
def test_problems_are_told_at_the_field_that_was_sent(
    edited: set[str], name: str, rest: str
) -> None:
    told = as_sent(Problem(f"tasks.{name}.input{rest}", "m"), edited)
    if name in edited:
        assert told.field == f"task_inputs.{name}{rest}" or "a.input" in edited
    elif not any(f"{name}.input{rest}".startswith(f"{one}.input") for one in edited):
        assert told.field == f"tasks.{name}.input{rest}"
    assert told.message == "m"
