"""Input schemas: both forms, defaults, what is required, and nothing that a client could abuse.

All that a check says is the same whether it is made at once or in a process of its own.
"""

from __future__ import annotations

import asyncio
import difflib
import gc
from typing import Any

import psutil
import pytest

from harmonia_actors.core.definition import parse_definition
from harmonia_actors.core.errors import ValidationFailed
from harmonia_actors.runtime.service.schema import (
    as_json_schema,
    find_problems,
    inputs_of,
    is_property_map,
    required_inputs,
    with_defaults,
)
from harmonia_actors.runtime.service.schema_checks import ActionInput, AtOnce, SchemaChecks
from harmonia_actors.runtime.service.schema_process import CheckLimits
from tests.unit.service.conftest import problems

REFERENCE: dict[str, Any] = {
    "data_url": {"type": "string", "format": "uri", "description": "URL", "required": True},
    "output_file": {"type": "string"},
    "analysis_type": {
        "type": "string",
        "enum": ["basic", "detailed", "comprehensive"],
        "default": "basic",
    },
}
WHOLE: dict[str, Any] = {
    "type": "object",
    "properties": {"n": {"type": "integer", "default": 3}, "s": {"type": "string"}},
    "required": ["s"],
}


LIMITS = CheckLimits(cpu_s_max=20.0, memory_bytes_max=1_000_000_000)
EVERYTHING = AtOnce(10**9, 10**9, 10**9, 10**9, 10**9)
NOTHING = AtOnce(0, 0, 0, 0, 0)


@pytest.fixture(scope="module", params=[EVERYTHING, NOTHING], ids=["at_once", "in_a_process"])
def checks(request: pytest.FixtureRequest) -> SchemaChecks:
    return SchemaChecks(LIMITS, request.param)


async def refused(
    checks: SchemaChecks, values: dict[str, Any], schema: dict[str, Any]
) -> dict[str, str]:
    with pytest.raises(ValidationFailed) as caught:
        await checks.complete_input(values, schema, {})
    return problems(caught)


# Two forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (REFERENCE, True),
        ({}, True),
        (WHOLE, False),
        ({"properties": {"a": {}}}, False),
        ({"$ref": "#/$defs/x"}, False),
        ({"allOf": []}, False),
        ({"type": {"type": "string"}}, True),
        ({"properties": {"type": "object"}}, True),
        ({"required": {"type": "boolean"}}, True),
    ],
)
def test_which_form_it_is(schema: dict[str, Any], expected: bool) -> None:
    assert is_property_map(schema) is expected


def test_a_property_map_becomes_a_whole_schema() -> None:
    whole = as_json_schema(REFERENCE)
    assert whole["required"] == ["data_url"]
    assert "required" not in whole["properties"]["data_url"]
    assert as_json_schema(WHOLE) == WHOLE


@pytest.mark.parametrize(
    ("schema", "where", "words"),
    [
        ([], "", "must be an object"),
        ({"a": "string"}, ".a", "must be a JSON Schema object"),
        ({"a": {"type": "strin"}}, "", "is not a schema that can be used"),
        ({"a": {"type": "string", "pattern": "("}}, "", "is not a schema that can be used"),
        ({"a": {"type": "integer", "default": "x"}}, ".a.default", "integer"),
        ({"a": {"enum": ["x"], "default": "y", "required": False}}, ".a.default", "y"),
        ({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}, ".a", "int"),
        ({"type": "object", "required": "a"}, "", "is not a schema"),
    ],
)
async def test_what_is_no_schema_is_refused(
    checks: SchemaChecks, schema: Any, where: str, words: str
) -> None:
    found = await checks.of_schema(schema)
    assert found, "nothing is wrong?"
    assert found[0][0].startswith(where)
    assert words in found[0][1]


@pytest.mark.parametrize(
    "schema",
    [
        REFERENCE,
        WHOLE,
        {"a": True, "b": {}},
        {
            "type": "object",
            "$defs": {"positive": {"type": "integer", "minimum": 1}},
            "properties": {"a": {"$ref": "#/$defs/positive", "default": 5}},
        },
    ],
)
async def test_good_schemas_are_taken(checks: SchemaChecks, schema: Any) -> None:
    assert await checks.of_schema(schema) == []


async def test_a_default_is_held_against_what_it_refers_to(checks: SchemaChecks) -> None:
    schema = {
        "type": "object",
        "$defs": {"positive": {"type": "integer", "minimum": 1}},
        "properties": {"a": {"$ref": "#/$defs/positive", "default": 0}},
    }
    assert [where for where, _ in await checks.of_schema(schema)] == [".a.default"]


# Values ------------------------------------------------------------------------------------------


async def test_defaults_are_filled_in(checks: SchemaChecks) -> None:
    given = {"data_url": "https://example.com/x.csv", "output_file": "x"}
    assert await checks.complete_input(given, REFERENCE, {}) == {**given, "analysis_type": "basic"}
    assert await checks.complete_input({"s": ""}, WHOLE, {}) == {"n": 3, "s": ""}
    assert await checks.complete_input({"anything": [1]}, None, {}) == {"anything": [1]}


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({}, "input.data_url", "is required"),
        ({"data_url": 5}, "input.data_url", "string"),
        ({"data_url": "not a url"}, "input.data_url", "uri"),
        ({"data_url": "http://x", "analysis_type": "fast"}, "input.analysis_type", "basic"),
        ({"data_url": "http://x", "anlysis_type": "basic"}, "input.anlysis_type", "analysis_type"),
        ({"data_url": "http://x", "zzzzzz": 1}, "input.zzzzzz", "there is no such input"),
    ],
)
async def test_what_does_not_fit_is_named(
    checks: SchemaChecks, given: dict[str, Any], field: str, words: str
) -> None:
    found = await refused(checks, given, REFERENCE)
    assert field in found, found
    assert words in found[field]


async def test_places_deep_inside_are_named(checks: SchemaChecks) -> None:
    schema = {"rows": {"type": "array", "items": {"type": "object", "required": ["id"]}}}
    assert set(await refused(checks, {"rows": [{"id": 1}, {}]}, schema)) == {"input.rows[1].id"}


FAST: dict[str, Any] = {"properties": {"mode": {"const": "fast"}}}
GIVEN: dict[str, Any] = {"mode": "${workflow.input.mode}", "url": "u"}


@pytest.mark.parametrize(
    "rule",
    [
        {"if": FAST, "else": {"required": ["y"]}},
        {"if": {"not": FAST}, "then": {"required": ["y"]}},
        {"if": FAST, "else": {"$ref": "#/$defs/with_y"}},
        {"if": FAST, "else": {"properties": {"url": {"maxLength": 0}}}},
        {"if": FAST, "else": {"additionalProperties": False}},
        {"anyOf": [FAST, {"required": ["y"]}]},
        {"oneOf": [FAST, {"properties": {"url": {"type": "integer"}}}]},
        {"not": {"properties": {"mode": {"minLength": 5}}}},
        {"if": FAST, "then": {"properties": {"url": True}}, "unevaluatedProperties": {"const": 1}},
    ],
)
async def test_what_an_unknown_value_decides_is_not_judged_before_it_is_known(
    checks: SchemaChecks, rule: dict[str, Any]
) -> None:
    schema = {"type": "object", "$defs": {"with_y": {"required": ["y"]}}, **rule}
    for whole in (
        schema,
        {**schema, "allOf": [rule]},
        {"allOf": [schema], "$defs": schema["$defs"]},
    ):
        assert await checks.of_inputs([ActionInput(whole, GIVEN, ["mode"])]) == [[]]
        (told,) = await checks.of_inputs([ActionInput(whole, {"mode": "slower", "url": "u"})])
        assert told, "once all is known, it is"


@pytest.mark.parametrize(
    ("rule", "where"),
    [
        ({"required": ["y"]}, ".y"),
        ({"allOf": [{"$ref": "#/$defs/with_y"}]}, ".y"),
        ({"dependentRequired": {"mode": ["y"]}}, ".y"),
        ({"dependentSchemas": {"mode": {"required": ["y"]}}}, ".y"),
        ({"properties": {"url": {"anyOf": [{"type": "integer"}, {"maxLength": 0}]}}}, ".url"),
        ({"properties": {"url": {"if": True, "then": {"type": "integer"}}}}, ".url"),
        ({"properties": {"then": {"type": "integer"}}}, ".then"),
    ],
)
async def test_what_no_unknown_value_can_mend_is_told_before_it_is_known(
    checks: SchemaChecks, rule: dict[str, Any], where: str
) -> None:
    schema = {"type": "object", "$defs": {"with_y": {"required": ["y"]}}, **rule}
    (told,) = await checks.of_inputs([ActionInput(schema, {**GIVEN, "then": "t"}, ["mode"])])
    assert [place for place, _ in told] == [where]


async def test_an_input_that_a_reference_needs_is_required(checks: SchemaChecks) -> None:
    definition = {
        "name": "w",
        "tasks": {
            "a": {
                "component": "c",
                "action": "x",
                "input": {
                    "needed": "${workflow.input.needed}",
                    "optional": "${workflow.input.optional ?? 5}",
                    "chained": "${workflow.input.first ?? workflow.input.second}",
                    "deep": "${workflow.input.deep.inner[0]}",
                },
            }
        },
        "output": {"o": "${workflow.input.for_output}"},
    }
    needed = required_inputs(parse_definition(definition))
    assert set(needed) == {"needed", "second", "deep", "for_output"}
    with pytest.raises(ValidationFailed) as caught:
        await checks.complete_input({"needed": 1, "second": 2, "deep": {}}, None, needed)
    expected = "is required: '${workflow.input.for_output}' refers to it"
    assert problems(caught) == {"input.for_output": expected}


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ({}, set()),
        ({"a": {"type": "string"}, "b": True}, {"a", "b"}),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, {"a"}),
        ({"type": "object", "additionalProperties": False}, set()),
        ({"type": "object", "properties": {"a": {}}}, None),
        ({"type": "object", "additionalProperties": {"type": "string"}}, None),
        (
            {"type": "object", "patternProperties": {"^x": {}}, "additionalProperties": False},
            None,
        ),
        (
            # There, what stands beside a $ref does not count.
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "$ref": "#/definitions/a",
                "definitions": {"a": {}},
                "additionalProperties": False,
            },
            None,
        ),
        (None, None),
        ("odd", None),
    ],
)
async def test_which_inputs_there_can_be(
    checks: SchemaChecks, schema: Any, names: set[str] | None
) -> None:
    found = inputs_of(schema)
    assert (None if found is None else set(found)) == names
    if isinstance(schema, dict) and names is None:
        await checks.complete_input({"xy": "text"}, schema, {})
    if isinstance(schema, dict) and names is not None:
        assert await refused(checks, {"xy": "text"}, schema)


# Defaults of instances ---------------------------------------------------------------------------


async def test_values_become_defaults_and_are_not_required_any_more(checks: SchemaChecks) -> None:
    made = with_defaults(REFERENCE, {"data_url": "http://x"})
    assert made["data_url"]["default"] == "http://x"
    assert (await checks.complete_input({}, made, {}))["data_url"] == "http://x"
    whole = with_defaults(WHOLE, {"s": "given"})
    assert await checks.complete_input({}, whole, {}) == {"n": 3, "s": "given"}
    assert WHOLE["required"] == ["s"]
    assert "default" not in REFERENCE["data_url"]


async def test_without_a_schema_other_inputs_stay_free(checks: SchemaChecks) -> None:
    made = with_defaults(None, {"x": 1})
    assert await checks.of_schema(made) == []
    assert await checks.complete_input({"y": 2}, made, {}) == {"x": 1, "y": 2}


# Abuse -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "^(a|a)*$", "([a-z]+)*[a-z]*!$", "^(([a-z])+.)+[A-Z]([a-z])+$"]
)
async def test_patterns_run_in_linear_time(checks: SchemaChecks, pattern: str) -> None:
    """A backtracking engine would not come back from this within the age of the universe."""
    schema = {"a": {"type": "string", "pattern": pattern}}
    assert await checks.of_schema(schema) == []
    assert "input.a" in await refused(checks, {"a": "a" * 50_000 + "?"}, schema)


@pytest.mark.parametrize("pattern", [r"(?=a)b", r"(a)\1"])
async def test_patterns_that_have_no_linear_engine_are_refused(
    checks: SchemaChecks, pattern: str
) -> None:
    assert (await checks.of_schema({"a": {"type": "string", "pattern": pattern}})) != []


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:8265/api/jobs",
        "https://example.com/schema.json",
        "file:///etc/passwd",
        "other.json",
    ],
)
async def test_other_documents_are_never_fetched(checks: SchemaChecks, uri: str) -> None:
    for schema in ({"a": {"$ref": uri}}, {"type": "object", "properties": {"a": {"$ref": uri}}}):
        (problem,) = await checks.of_schema(schema)
        assert "never fetched" in problem[1] or "cannot" in problem[1] or uri in problem[1]


def test_guesses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    guesses = 0
    find = difflib.get_close_matches

    def counted(*arguments: Any, **options: Any) -> list[str]:
        nonlocal guesses
        guesses += 1
        return find(*arguments, **options)

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    given = {f"nme{i}": 1 for i in range(5_000)}
    *_, found = find_problems(given, {"name": {"type": "string"}}, "input")
    assert len(found) == ValidationFailed.SHOWN_MAX
    assert 0 < guesses <= ValidationFailed.SHOWN_MAX


# What is checked where ---------------------------------------------------------------------------


def doubling(levels: int, combination: str = "anyOf") -> dict[str, Any]:
    """Each level refers to the next one twice."""
    defs: dict[str, Any] = {
        f"d{level}": {combination: [{"$ref": f"#/$defs/d{level + 1}"}] * 2}
        for level in range(levels)
    }
    defs[f"d{levels}"] = {"type": "string"}
    return {"type": "object", "$defs": defs, "properties": {"x": {"$ref": "#/$defs/d0"}}}


def itself(combination: str = "anyOf") -> dict[str, Any]:
    return {"type": "object", "properties": {"x": {combination: [{"$ref": "#"}] * 2}}}


def nested(levels: int) -> dict[str, Any]:
    value: Any = 5
    for _ in range(levels):
        value = {"x": value}
    return dict(value)


def closed(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "allOf": [schema], "unevaluatedProperties": False}
    return schema


#: Each would take hours or many gigabytes.
ENDLESS = [
    pytest.param(doubling(24), {"x": 5}, id="doubled_references"),
    pytest.param(doubling(60, "oneOf"), {"x": "s"}, id="doubled_references_that_fit"),
    pytest.param(doubling(60, "allOf"), {"x": "s"}, id="doubled_demands"),
    pytest.param(itself(), nested(40), id="recursion"),
    pytest.param(closed(40), {}, id="unevaluated"),
    pytest.param(
        {"x": {"type": "string", "pattern": "(?:[ab]{0,99}){0,99}[!?]"}},
        {"x": "ab" * 100_000},
        id="repetitions",
    ),
    pytest.param({"x": {"type": "integer"}}, {"x": ["a"] * 3_000_000}, id="a_long_message"),
    pytest.param({"x": {"items": {"type": "integer"}}}, {"x": ["a"] * 1_000_000}, id="many_errors"),
]


@pytest.mark.parametrize(("schema", "values"), ENDLESS)
async def test_a_check_is_bounded_and_others_are_served_meanwhile(
    schema: dict[str, Any], values: dict[str, Any]
) -> None:
    checks = SchemaChecks(CheckLimits(cpu_s_max=0.3, memory_bytes_max=500_000_000))
    checking = asyncio.ensure_future(refused(checks, values, schema))
    turns = 0
    while not checking.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 20, "the loop stood still"
    found = await checking
    assert next(iter(found)).startswith("input")
    assert await checks.complete_input({"x": "s"}, doubling(2), {}) == {"x": "s"}


async def test_what_is_wrong_is_told_even_if_not_all_of_it_can_be_found() -> None:
    checks = SchemaChecks(CheckLimits(cpu_s_max=1.0, memory_bytes_max=500_000_000))
    told = await refused(checks, {"x": 5}, doubling(18))
    assert told == {"input": "does not fit the schema; what is wrong takes long to find"}
    told = await refused(checks, {"x": ["a"] * 500_000}, {"x": {"items": {"type": "integer"}}})
    assert told == {"input.x[0]": '"a" is not of type "integer"'}


async def test_a_schema_that_cannot_be_checked_is_refused() -> None:
    checks = SchemaChecks(CheckLimits(cpu_s_max=0.3, memory_bytes_max=500_000_000))
    schema = doubling(60)
    schema["properties"]["x"]["default"] = 5
    ((where, message),) = await checks.of_schema(schema)
    assert where == ""
    assert "0.3 s of processor time or 500 MB" in message


async def test_memory_is_bounded() -> None:
    checks = SchemaChecks(CheckLimits(cpu_s_max=60.0, memory_bytes_max=300_000_000))
    found = await refused(checks, {"x": [[]] * 4_000_000}, {"x": {"items": {"$ref": "#"}}})
    assert "300 MB" in found["input"]


async def test_what_is_plain_and_small_needs_no_process() -> None:
    checks = SchemaChecks(CheckLimits(cpu_s_max=0.0, memory_bytes_max=0))
    assert await checks.of_schema(REFERENCE) == []
    assert await checks.of_schema(WHOLE) == []
    given = {"data_url": "https://example.com/x.csv", "output_file": "x"}
    assert await checks.complete_input(given, REFERENCE, {})


async def test_what_is_wrong_in_many_places_is_found_out_in_a_process() -> None:
    checks = SchemaChecks(CheckLimits(cpu_s_max=0.3, memory_bytes_max=500_000_000))
    demanded = [f"r{number}" for number in range(400)]
    schema = {"x": {"items": {"required": demanded}}}
    before = set(psutil.Process().children())
    good = {"x": [dict.fromkeys(demanded, 1)] * 2}
    assert await checks.complete_input(good, schema, {}) == good
    assert set(psutil.Process().children()) == before
    assert await refused(checks, {"x": [{}] * 400}, schema) == {"input.x[0].r0": "is required"}


async def test_a_process_that_was_killed_is_replaced() -> None:
    checks = SchemaChecks(LIMITS, NOTHING)
    before = set(psutil.Process().children())
    assert await checks.of_schema(WHOLE) == []
    (process,) = set(psutil.Process().children()) - before
    process.kill()
    assert await checks.of_schema(WHOLE) == []
    assert not process.is_running()


async def test_processes_end_with_whoever_asked_them() -> None:
    checks = SchemaChecks(LIMITS, NOTHING)
    before = set(psutil.Process().children())
    assert await checks.of_schema(WHOLE) == []
    (process,) = set(psutil.Process().children()) - before
    assert process.environ().keys() <= {"PYTHONPATH", "LD_LIBRARY_PATH", "LC_CTYPE"}
    del checks
    gc.collect()
    # It has been told; it may need a moment to end.
    assert psutil.wait_procs([process], timeout=10)[1] == []


async def test_more_checks_than_there_are_processes_wait_their_turn() -> None:
    checks = SchemaChecks(LIMITS, NOTHING)
    found = await asyncio.gather(*(checks.of_schema({"a": {"minimum": n}}) for n in range(20)))
    assert found == [[]] * 20
