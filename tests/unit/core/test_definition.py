"""Every problem of a definition is found at once, at its field, with the way out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import pytest

from harmonia_actors.core.definition import (
    READ_ONLY_FIELDS,
    DefinitionLimits,
    build_workflow,
    nearest,
    parse_definition,
)
from harmonia_actors.core.errors import ValidationFailed
from harmonia_actors.core.resources import ResourceRequest
from harmonia_actors.core.retry import RetryPolicy
from harmonia_actors.core.workflow import Task

TASK = {"component": "harmonia", "action": "echo"}


def definition(tasks: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    written = {name: {**TASK, **task} for name, task in (tasks or {"a": {}}).items()}
    return {"name": "wf", "tasks": written, **fields}


def problems(raw: Mapping[str, Any], **options: Any) -> dict[str, str]:
    with pytest.raises(ValidationFailed) as caught:
        parse_definition(raw, **options)
    return {error["field"]: error["message"] for error in caught.value.details["errors"]}


def chain(length: int) -> dict[str, Any]:
    return {
        f"t{index}": {"depends_on": [f"t{index - 1}"] if index else []} for index in range(length)
    }


# What is taken -----------------------------------------------------------------------------------


def test_everything_that_can_be_said_is_kept() -> None:
    raw = definition(
        {
            "a": {"name": "a", "input": {"x": 1}, "description": "first", "metadata": {"k": 1}},
            "b": {
                "depends_on": ["a"],
                "timeout": 1.5,
                "retry_policy": {
                    "max_retries": 3,
                    "retry_interval": 0.25,
                    "backoff": 2,
                    "max_interval": 60,
                    "jitter": 0.5,
                },
                "resources": {"num_cpus": 2, "memory": "1GiB"},
                "input": {"of_a": "${tasks.a.output.x}"},
            },
        },
        description="all of it",
        version="1.0.0",
        input_schema={},
        output={"result": "${tasks.b.output}"},
        timeout=60,
        retry_policy={"max_retries": 1},
        metadata={"owner": "me"},
    )
    workflow = parse_definition(raw)
    a, b = workflow.tasks
    assert (a.index, a.name, a.component, a.action, a.input) == (
        0,
        "a",
        "harmonia",
        "echo",
        {"x": 1},
    )
    assert (b.depends_on, b.timeout_ms) == (("a",), 1_500)
    assert b.retry == RetryPolicy(3, 250, 2.0, 60_000, 0.5)
    assert b.resources == ResourceRequest(num_cpus=2, memory_bytes=2**30)
    assert (workflow.timeout_ms, workflow.retry) == (60_000, RetryPolicy(max_retries=1))
    assert workflow.graph.parents == ((), (0,))
    assert workflow.by_name["b"] is b


def test_a_stored_workflow_can_be_sent_back_as_it_was_shown() -> None:
    parse_definition({**definition(), **dict.fromkeys(READ_ONLY_FIELDS, "whatever")})


def test_what_was_stored_is_built_without_limits() -> None:
    assert len(build_workflow(definition(chain(11_000))).tasks) == 11_000


@pytest.mark.parametrize(
    "name", ["with space", "nf.core:X (1)", "ünï", "a" * 128, "output", "1", "..a", "a."]
)
def test_names_may_hold_nearly_anything(name: str) -> None:
    raw = definition({name: {}, "next": {"depends_on": [name]}})
    assert parse_definition(raw).tasks[0].name == name


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "field", "words"),
    [
        ({"tasks": {"a": TASK}}, "name", "is required"),
        ({"name": "", "tasks": {"a": TASK}}, "name", "must not be empty"),
        ({"name": "  ", "tasks": {"a": TASK}}, "name", "must not be empty"),
        ({"name": 5, "tasks": {"a": TASK}}, "name", "must be a string, not 5"),
        (definition(description=[]), "description", "must be a string, not []"),
        (definition(version=1.0), "version", "must be a string, not 1.0"),
        ({"name": "w"}, "tasks", "must be an object of tasks by name"),
        ({"name": "w", "tasks": []}, "tasks", "must be an object of tasks by name"),
        ({"name": "w", "tasks": {}}, "tasks", "must hold at least one task"),
        ({"name": "w", "tasks": {"a": 1}}, "tasks.a", "must be an object"),
        (definition(timeot=1), "timeot", "there is no such field; did you mean 'timeout'?"),
        (definition(status="x"), "status", "there is no such field"),
        (definition({"a": {"compnent": 1}}), "tasks.a.compnent", "did you mean 'component'?"),
        (definition({"a": {"name": "b"}}), "tasks.a.name", "must be the task's key 'a', not 'b'"),
        (definition({"a": {"component": None}}), "tasks.a.component", "is required"),
        (definition({"a": {"action": ""}}), "tasks.a.action", "must not be empty"),
        (definition({"a": {"action": 1}}), "tasks.a.action", "must be a string, not 1"),
        (definition({"a": {"input": []}}), "tasks.a.input", "an object of the action's inputs"),
        (definition({"": {}}), "tasks.", "must not be empty"),
        (definition({"a\nb": {}}), "tasks.a\nb", "control characters"),
        (definition({".": {}}), "tasks..", "must not consist of dots only"),
        (definition({"..": {}}), "tasks...", "must not consist of dots only"),
        (definition({"....": {}}), "tasks.....", "must not consist of dots only"),
        (definition({"a" * 129: {}}), "tasks." + "a" * 129, "has 129 characters; at most 128"),
        (definition({"a": {"depends_on": "b"}}), "tasks.a.depends_on", "an array of task names"),
        (definition({"a": {"depends_on": [1]}}), "tasks.a.depends_on", "an array of task names"),
        (
            definition({"fetch": {}, "b": {"depends_on": ["fech"]}}),
            "tasks.b.depends_on[0]",
            "there is no task 'fech'; did you mean 'fetch'?",
        ),
        (
            definition({"a": {}, "b": {"depends_on": ["a", "a"]}}),
            "tasks.b.depends_on[1]",
            "'a' is named twice",
        ),
        (definition(timeout=0), "timeout", "must be above 0 and at most 2.592e+06 seconds, not 0"),
        (definition(timeout=-1), "timeout", "must be above 0"),
        (definition(timeout=float("inf")), "timeout", "must be above 0"),
        (definition(timeout="5"), "timeout", "must be a number of seconds, not '5'"),
        (definition(timeout=True), "timeout", "must be a number of seconds, not True"),
        (definition({"a": {"timeout": 1e9}}), "tasks.a.timeout", "at most 2.592e+06 seconds"),
        (definition(retry_policy=3), "retry_policy", 'like {"max_retries": 3'),
        (definition(retry_policy={"retries": 3}), "retry_policy.retries", "there are: max_retries"),
        (
            definition({"a": {"retry_policy": {"max_retries": 101}}}),
            "tasks.a.retry_policy.max_retries",
            "must be from 0 to 100, not 101",
        ),
        (
            definition(retry_policy={"max_retries": 1.5}),
            "retry_policy.max_retries",
            "must be a whole number, not 1.5",
        ),
        (definition(retry_policy={"backoff": 0.5}), "retry_policy.backoff", "from 1 to 100"),
        (definition(retry_policy={"jitter": 2}), "retry_policy.jitter", "from 0 to 1, not 2"),
        (definition(retry_policy={"jitter": "x"}), "retry_policy.jitter", "must be a number"),
        (
            definition(retry_policy={"retry_interval": -1}),
            "retry_policy.retry_interval",
            "must be from 0",
        ),
        (definition({"a": {"resources": 5}}), "tasks.a.resources", 'like {"num_cpus": 2}'),
        (
            definition({"a": {"resources": {"num_cpus": -1}}}),
            "tasks.a.resources",
            "num_cpus is -1; it must be from 0",
        ),
        (
            definition({"a": {"input": {"x": ["${nope}"]}}}),
            "tasks.a.input.x[0]",
            "does not start with workflow.input or tasks.NAME.output",
        ),
        (
            definition({"a": {"input": {"x": "${tasks.b.output}"}}}),
            "tasks.a.input.x",
            "names task 'b', which the workflow does not have",
        ),
        (
            definition({"a": {}, "b": {"input": {"x": "${tasks.a.output}"}}}),
            "tasks.b.input",
            "refers to the output of 'a', which need not have completed when 'b' starts; "
            "add 'a' to the depends_on of 'b'",
        ),
        (
            definition({"a": {"input": {"x": "${tasks.a.output}"}}}),
            "tasks.a.input",
            "refers to the output of 'a'",
        ),
        (
            definition({"a": {}, "b": {"input": {"x": "${tasks.a.output ?? 1}"}}}),
            "tasks.b.input",
            "add 'a' to the depends_on of 'b'",
        ),
        (
            definition({"a": {}, "b": {"input": {"x": "${workflow.input.y ?? tasks.a.output}"}}}),
            "tasks.b.input",
            "add 'a' to the depends_on of 'b'",
        ),
        (definition(output={"r": "${tasks.z.output}"}), "output.r", "names task 'z'"),
    ],
)
def test_each_problem_is_named_at_its_field(raw: dict[str, Any], field: str, words: str) -> None:
    found = problems(raw)
    assert field in found, found
    assert words in found[field]


def test_all_problems_are_told_at_once() -> None:
    raw = definition(
        {"a": {"timeout": -1, "action": ""}, "b": {"depends_on": ["c"], "resources": []}},
        retry_policy={"jitter": 7},
        naem="x",
    )
    assert set(problems(raw)) == {
        "naem",
        "tasks.a.timeout",
        "tasks.a.action",
        "tasks.b.depends_on[0]",
        "tasks.b.resources",
        "retry_policy.jitter",
    }


def test_references_to_any_ancestor_are_good_however_far() -> None:
    tasks = chain(300)
    tasks["t299"]["input"] = {"x": "${tasks.t0.output}"}
    assert len(parse_definition(definition(tasks)).tasks) == 300


def test_the_caller_may_know_more_of_actions_and_schemas() -> None:
    def check_action(task: Task) -> list[tuple[str, str]]:
        return [(".action", f"'{task.action}' is not known")]

    def check_schema(schema: Any) -> list[tuple[str, str]]:
        return [(".x", f"is {schema['x']}")]

    raw = definition(input_schema={"x": "odd"})
    found = problems(raw, check_action=check_action, check_schema=check_schema)
    assert found == {"tasks.a.action": "'echo' is not known", "input_schema.x": "is odd"}


@pytest.mark.parametrize(
    ("written", "field", "words"),
    [
        (
            {"x": ["${workflow.input.fiel}"]},
            "tasks.a.input.x[0]",
            "'${workflow.input.fiel}' needs the input 'fiel', which input_schema does not name; "
            "did you mean 'file'?",
        ),
        (
            {"x": {"y": "<${workflow.input.file}${workflow.input.zzz.deep}>"}},
            "tasks.a.input.x.y",
            "'${workflow.input.zzz.deep}' needs the input 'zzz', which input_schema does not name; "
            "name it there, or write a default with ??",
        ),
        ({"x": "${workflow.input.fiel ?? workflow.input.fil}"}, "tasks.a.input.x", "'fil'"),
        ({"x": "${tasks.b.output ?? workflow.input.fil}"}, "tasks.a.input.x", "'fil'"),
        ({"x": "${workflow.input[0]}"}, "tasks.a.input.x", "the input is an object"),
        ({"x": "${workflow.input.file ?? workflow.input[0].k}"}, "tasks.a.input.x", "an object"),
    ],
)
def test_a_reference_to_an_input_that_cannot_be_given_is_refused(
    written: dict[str, Any], field: str, words: str
) -> None:
    raw = definition({"b": {}, "a": {"input": written, "depends_on": ["b"]}})
    found = problems(raw, inputs_of=lambda _: ["file"])
    assert set(found) == {field}
    assert words in found[field]
    assert problems({**definition({"b": {}}), "output": written}, inputs_of=lambda _: ["file"])


@pytest.mark.parametrize(
    "written",
    [
        "${workflow.input.file}",
        "${workflow.input.fiel ?? 1}",
        "${workflow.input.fiel ?? workflow.input.file}",
        "${workflow.input[0] ?? 1}",
        "${workflow.input}",
        "$${workflow.input.fiel}",
    ],
)
def test_a_reference_that_may_have_a_value_is_taken(written: str) -> None:
    raw = definition({"a": {"input": {"x": written}}}, output=written)
    parse_definition(raw, inputs_of=lambda _: ["file"])


def test_without_names_of_inputs_any_may_be_given_but_none_by_number() -> None:
    raw = definition({"a": {"input": {"x": "${workflow.input.anything}"}}})
    parse_definition(raw, inputs_of=lambda _: None)
    raw = definition({"a": {"input": {"x": "${workflow.input[0]}"}}})
    assert set(problems(raw, inputs_of=lambda _: None)) == {"tasks.a.input.x"}
    build_workflow(raw)  # What was stored before can still be read.


# Cycles and sizes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edges", "cycle"),
    [
        ({"a": ["a"]}, "a cycle of 1: a → a"),
        ({"a": ["b"], "b": ["a"]}, "a cycle of 2: a → b → a"),
        ({"x": [], "a": ["c", "x"], "b": ["a"], "c": ["b"]}, "a cycle of 3: a → c → b → a"),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, "a cycle of 2: b → c → b"),
    ],
)
def test_a_cycle_is_named(edges: dict[str, list[str]], cycle: str) -> None:
    raw = definition({name: {"depends_on": parents} for name, parents in edges.items()})
    (message,) = problems(raw).values()
    assert message == f"the tasks wait for each other in {cycle}"


def test_a_cycle_of_ten_thousand_is_found_and_shortened() -> None:
    tasks = chain(10_000)
    tasks["t0"]["depends_on"] = ["t9999"]
    (message,) = problems(definition(tasks)).values()
    assert "in a cycle of 10000: t0 → t9999 → t9998 → " in message
    assert message.endswith("… → t0")


def test_a_chain_ten_thousand_deep_is_taken() -> None:
    tasks = chain(10_000)
    tasks["t9999"]["input"] = {"first": "${tasks.t0.output}"}
    workflow = parse_definition(definition(tasks))
    assert workflow.graph.order() == list(range(10_000))


def test_too_many_edges_are_refused_by_their_number() -> None:
    left: dict[str, Any] = {f"l{i}": {} for i in range(1_000)}
    right = {f"r{i}": {"depends_on": list(left)} for i in range(1_000)}
    found = problems(definition({**left, **right}))
    assert found == {"tasks": "have 1000000 dependencies; at most 100000 are allowed"}


def test_too_many_tasks_are_refused_by_their_number() -> None:
    found = problems(definition(chain(10_001)))
    assert found["tasks"] == "has 10001 tasks; at most 10000 are allowed"


def test_too_many_references_in_a_task_are_refused() -> None:
    raw = definition({"a": {"input": {"x": ["${workflow.input.y}"] * 11}}})
    found = problems(raw, limits=DefinitionLimits(references_per_task_max=10))
    assert found == {"tasks.a.input": "has 11 references; at most 10 are allowed"}


def test_guessing_what_was_meant_costs_the_same_however_much_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guesses = 0
    find = difflib.get_close_matches

    def counted(*arguments: Any, **options: Any) -> list[str]:
        nonlocal guesses
        guesses += 1
        return find(*arguments, **options)

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    wrong = {f"nme{i}": 1 for i in range(2_000)}
    tasks = {f"t{i}": {"depends_on": [f"x{i}"], **wrong} for i in range(20)}
    with pytest.raises(ValidationFailed) as caught:
        parse_definition({**definition(tasks), **wrong})
    assert caught.value.details["total"] >= 10_000
    assert len(caught.value.details["errors"]) == ValidationFailed.SHOWN_MAX
    assert 0 < guesses <= ValidationFailed.SHOWN_MAX
    guesses = 0
    raw = definition({"a": {"input": {"x": ["${workflow.input.nme}"] * 2_000}}})
    with pytest.raises(ValidationFailed) as caught:
        parse_definition(raw, inputs_of=lambda _: ["name"])
    assert caught.value.details["total"] == 2_000
    assert len(caught.value.details["errors"]) == ValidationFailed.SHOWN_MAX
    assert 0 < guesses <= ValidationFailed.SHOWN_MAX


def test_only_likely_words_are_compared_letter_by_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    ratio = difflib.SequenceMatcher.ratio

    def counted(self: Any) -> float:
        nonlocal compared
        compared += 1
        return ratio(self)

    monkeypatch.setattr(difflib.SequenceMatcher, "ratio", counted)
    letters = "abcdefghijklmnopqrstuvwxyz"
    anagrams = [letters[i:] + letters[:i] + str(i) for i in range(26)] * 100
    assert nearest(letters, [*anagrams, letters + "!"])
    assert 0 < compared <= 40


def test_the_nearest_name() -> None:
    assert nearest("fech", ["fetch", "store"]) == "; did you mean 'fetch'?"
    assert nearest("zzz", ["fetch"]) == ""
    assert nearest("fetch" * 1_000_000, ["fetch" * 1_000_000]) == ""
