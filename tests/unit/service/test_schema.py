"""Input schemas: both forms, defaults, what is required, and nothing that a client could abuse."""

from __future__ import annotations

import difflib
from typing import Any

import pytest

from harmonia_actors.core.definition import parse_definition
from harmonia_actors.core.errors import ValidationFailed
from harmonia_actors.runtime.service.schema import (
    as_json_schema,
    check_schema,
    complete_input,
    inputs_of,
    is_property_map,
    required_inputs,
    with_defaults,
)
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


def refused(values: dict[str, Any], schema: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ValidationFailed) as caught:
        complete_input(values, schema, {})
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
def test_what_is_no_schema_is_refused(schema: Any, where: str, words: str) -> None:
    found = list(check_schema(schema))
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
def test_good_schemas_are_taken(schema: Any) -> None:
    assert list(check_schema(schema)) == []


def test_a_default_is_held_against_what_it_refers_to() -> None:
    schema = {
        "type": "object",
        "$defs": {"positive": {"type": "integer", "minimum": 1}},
        "properties": {"a": {"$ref": "#/$defs/positive", "default": 0}},
    }
    assert [where for where, _ in check_schema(schema)] == [".a.default"]


# Values ------------------------------------------------------------------------------------------


def test_defaults_are_filled_in() -> None:
    given = {"data_url": "https://example.com/x.csv", "output_file": "x"}
    assert complete_input(given, REFERENCE, {}) == {**given, "analysis_type": "basic"}
    assert complete_input({"s": ""}, WHOLE, {}) == {"n": 3, "s": ""}
    assert complete_input({"anything": [1]}, None, {}) == {"anything": [1]}


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
def test_what_does_not_fit_is_named(given: dict[str, Any], field: str, words: str) -> None:
    found = refused(given, REFERENCE)
    assert field in found, found
    assert words in found[field]


def test_places_deep_inside_are_named() -> None:
    schema = {"rows": {"type": "array", "items": {"type": "object", "required": ["id"]}}}
    assert set(refused({"rows": [{"id": 1}, {}]}, schema)) == {"input.rows[1].id"}


def test_an_input_that_a_reference_needs_is_required() -> None:
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
        complete_input({"needed": 1, "second": 2, "deep": {}}, None, needed)
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
def test_which_inputs_there_can_be(schema: Any, names: set[str] | None) -> None:
    found = inputs_of(schema)
    assert (None if found is None else set(found)) == names
    if isinstance(schema, dict) and names is None:
        complete_input({"xy": "text"}, schema, {})
    if isinstance(schema, dict) and names is not None:
        assert refused({"xy": "text"}, schema)


# Defaults of instances ---------------------------------------------------------------------------


def test_values_become_defaults_and_are_not_required_any_more() -> None:
    made = with_defaults(REFERENCE, {"data_url": "http://x"})
    assert made["data_url"]["default"] == "http://x"
    assert complete_input({}, made, {})["data_url"] == "http://x"
    whole = with_defaults(WHOLE, {"s": "given"})
    assert complete_input({}, whole, {}) == {"n": 3, "s": "given"}
    assert WHOLE["required"] == ["s"]
    assert "default" not in REFERENCE["data_url"]


def test_without_a_schema_other_inputs_stay_free() -> None:
    made = with_defaults(None, {"x": 1})
    assert list(check_schema(made)) == []
    assert complete_input({"y": 2}, made, {}) == {"x": 1, "y": 2}


# Abuse -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "^(a|a)*$", "([a-z]+)*[a-z]*!$", "^(([a-z])+.)+[A-Z]([a-z])+$"]
)
def test_patterns_run_in_linear_time(pattern: str) -> None:
    """A backtracking engine would not come back from this within the age of the universe."""
    schema = {"a": {"type": "string", "pattern": pattern}}
    assert list(check_schema(schema)) == []
    assert "input.a" in refused({"a": "a" * 50_000 + "?"}, schema)


@pytest.mark.parametrize("pattern", [r"(?=a)b", r"(a)\1"])
def test_patterns_that_have_no_linear_engine_are_refused(pattern: str) -> None:
    assert list(check_schema({"a": {"type": "string", "pattern": pattern}})) != []


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:8265/api/jobs",
        "https://example.com/schema.json",
        "file:///etc/passwd",
        "other.json",
    ],
)
def test_other_documents_are_never_fetched(uri: str) -> None:
    for schema in ({"a": {"$ref": uri}}, {"type": "object", "properties": {"a": {"$ref": uri}}}):
        (problem,) = check_schema(schema)
        assert "never fetched" in problem[1] or "cannot" in problem[1] or uri in problem[1]


def test_guesses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    guesses = 0
    find = difflib.get_close_matches

    def counted(*arguments: Any, **options: Any) -> list[str]:
        nonlocal guesses
        guesses += 1
        return find(*arguments, **options)

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    found = refused({f"nme{i}": 1 for i in range(5_000)}, {"name": {"type": "string"}})
    assert len(found) == ValidationFailed.SHOWN_MAX
    assert 0 < guesses <= 2 * ValidationFailed.SHOWN_MAX
