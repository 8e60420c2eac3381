"""`${...}`: what can be written, what it becomes, and what is refused with which words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from harmonia_actors.core.references import (
    INPUT,
    BadReference,
    MissingValue,
    ResolvedTooLarge,
    compile_template,
    resolve,
)

VALUES: dict[str | None, Any] = {
    INPUT: {
        "text": "words",
        "number": 7,
        "real": 1.5,
        "big": 10**30,
        "yes": True,
        "none": None,
        "list": [1, {"k": "v"}, [True]],
        "object": {"a": {"b": "deep"}, "k.d": "dotted", "ü": "umlaut"},
        "empty": "",
    },
    "plain": {"value": 1, "output": {"x": "nested output"}},
    "dotted.name": "of dotted",
    "NFCORE.RNASEQ:FASTQC (1)": {"html": "report"},
    "odd.output": {"y": "of odd.output"},
    "odd": {"y": "of odd", "output": {"y": "inner"}},
    "list": ["first", "second"],
}
NAMES = [name for name in VALUES if name is not None]


def filled(value: Any, limit: int = 100_000) -> Any:
    def lookup(task: str | None) -> Any:
        return VALUES[task]

    return resolve(compile_template(value, NAMES), lookup, limit_bytes=limit)


# Values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", VALUES[INPUT])
def test_a_whole_string_keeps_the_type(key: str) -> None:
    found = filled(f"${{workflow.input.{key}}}")
    assert (found, type(found)) == (VALUES[INPUT][key], type(VALUES[INPUT][key]))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("<${workflow.input.text}>", "<words>"),
        ("<${workflow.input.number}>", "<7>"),
        ("<${workflow.input.real}>", "<1.5>"),
        ("<${workflow.input.big}>", f"<{10**30}>"),
        ("<${workflow.input.yes}>", "<true>"),
        ("<${workflow.input.none}>", "<null>"),
        ("<${workflow.input.list}>", '<[1,{"k":"v"},[true]]>'),
        ("<${workflow.input.object['a']}>".replace("'", '"'), '<{"b":"deep"}>'),
        ("${workflow.input.text}${workflow.input.number}", "words7"),
        (" ${workflow.input.number}", " 7"),
    ],
)
def test_inside_a_string_everything_becomes_text(written: str, expected: str) -> None:
    assert filled(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("${workflow.input}", VALUES[INPUT]),
        ("${ workflow.input.number }", 7),
        ("${workflow.input.list[0]}", 1),
        ("${workflow.input.list[1].k}", "v"),
        ("${workflow.input.list[2][0]}", True),
        ("${workflow.input.object.a.b}", "deep"),
        ('${workflow.input.object["k.d"]}', "dotted"),
        ('${workflow.input["object"]["a"]["b"]}', "deep"),
        ('${workflow.input.object["\\u00fc"]}', "umlaut"),
        ("${workflow.input.object.ü}", "umlaut"),
        ("${tasks.plain.output}", VALUES["plain"]),
        ("${tasks.plain.output.value}", 1),
        ("${tasks.plain.output.output.x}", "nested output"),
        ("${tasks.list.output[1]}", "second"),
        ("${tasks.dotted.name.output}", "of dotted"),
        ("${tasks.NFCORE.RNASEQ:FASTQC (1).output.html}", "report"),
        ('${tasks["NFCORE.RNASEQ:FASTQC (1)"].output.html}', "report"),
        ("${tasks.odd.output.output.y}", "of odd.output"),
        ('${tasks["odd"].output.output.y}', "inner"),
        ("${tasks.odd.output.y}", "of odd"),
    ],
)
def test_paths(written: str, expected: Any) -> None:
    assert filled(written) == expected


def test_references_are_found_wherever_strings_are() -> None:
    written = {"a": ["${workflow.input.number}", {"b": "x${workflow.input.text}"}], "c": 5}
    assert filled(written) == {"a": [7, {"b": "xwords"}], "c": 5}


def test_what_has_no_references_is_as_it_was() -> None:
    written = {"a": [1, None, "text", "cost: $5", "{braces}"], "b": {}}
    template = compile_template(written, NAMES)
    assert template.is_constant
    assert filled(written) == written


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("$${workflow.input.text}", "${workflow.input.text}"),
        ("a $${b} ${workflow.input.number}", "a ${b} 7"),
        ("$${${workflow.input.number}}", "${7}"),
        ("$$", "$$"),
        ("$", "$"),
        ("}", "}"),
    ],
)
def test_a_doubled_dollar_is_a_literal(written: str, expected: str) -> None:
    assert filled(written) == expected


# Defaults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("${workflow.input.missing ?? 5}", 5),
        ("${workflow.input.missing??5}", 5),
        ('${workflow.input.missing ?? "a } b"}', "a } b"),
        ('${workflow.input.missing ?? {"a": [1, "}"]}}', {"a": [1, "}"]}),
        ("${workflow.input.missing ?? null}", None),
        ("${workflow.input.missing ?? false}", False),
        ("${workflow.input.missing ?? basic}", "basic"),
        ("${workflow.input.missing ?? two words}", "two words"),
        ("${workflow.input.missing ?? /data/a-b.csv}", "/data/a-b.csv"),
        ('${workflow.input.missing ?? ""}', ""),
        ("${workflow.input.missing ?? workflow.input.number}", 7),
        ("${workflow.input.missing ?? workflow.input.none ?? last}", "last"),
        ('${workflow.input.missing ?? tasks["plain"].output.value}', 1),
        ("${workflow.input.none ?? 5}", 5),
        ("${workflow.input.none ?? null}", None),
        ("${workflow.input.number ?? 5}", 7),
        ("${workflow.input.empty ?? 5}", ""),
        ("${workflow.input.list[9] ?? 5}", 5),
        ("${workflow.input.text.deeper ?? 5}", 5),
        ('${workflow.input.object["no ?? split"] ?? 5}', 5),
        ('${workflow.input["x\\\\"] ?? 5}', 5),
        ('${workflow.input["x\\"?? y\\\\"] ?? 5}', 5),
        ("<${workflow.input.missing ?? 5}>", "<5>"),
    ],
)
def test_defaults(written: str, expected: Any) -> None:
    assert filled(written) == expected


def test_a_null_without_a_default_stays_null() -> None:
    assert filled("${workflow.input.none}") is None


def test_the_last_of_a_chain_decides_what_is_missing() -> None:
    with pytest.raises(MissingValue, match=r"list\[9\]"):
        filled("${workflow.input.missing ?? workflow.input.list[9]}")


# One pass, no attributes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        "${workflow.input.secret}",
        "${tasks.plain.output.value}",
        "$${workflow.input.text}",
        "{{7*7}}",
        "%s %(x)s",
        "{0.__class__}",
        "`id` $(id)",
    ],
)
def test_values_are_never_expanded_again(payload: str) -> None:
    template = compile_template({"a": "${workflow.input.x}", "b": "<${workflow.input.x}>"}, [])
    found = resolve(template, lambda _: {"x": payload, "secret": "s3cret"}, limit_bytes=10_000)
    assert found == {"a": payload, "b": f"<{payload}>"}


@given(
    some.recursive(
        some.none() | some.booleans() | some.integers() | some.text(),
        lambda inner: (
            some.lists(inner, max_size=4)
            | some.dictionaries(some.text(max_size=5), inner, max_size=4)
        ),
        max_leaves=10,
    )
)
def test_whatever_the_value_it_arrives_unchanged(value: Any) -> None:
    template = compile_template({"whole": "${tasks.t.output}"}, ["t"])
    assert resolve(template, lambda _: value, limit_bytes=1_000_000) == {"whole": value}


@pytest.mark.parametrize(
    "written",
    [
        "${workflow.input.__dict__}",
        "${workflow.input.__class__.__mro__}",
        "${workflow.input.text.__class__}",
        "${workflow.input.text.upper}",
        "${workflow.input.list.append}",
        "${workflow.input.list.__len__}",
        "${tasks.plain.output.__class__}",
        "${workflow.input.list[99]}",
        "${workflow.input.text[0]}",
        "${workflow.input.object[0]}",
        "${workflow.input.number.real}",
    ],
)
def test_paths_walk_json_and_nothing_else(written: str) -> None:
    with pytest.raises(MissingValue):
        filled(written)


def test_odd_keys_are_reached_when_quoted() -> None:
    odd = {"a.b": 1, "c}d": 2, "e$f": 3, "__class__": 4, 'q"q': 5, "${x}": 6, "a ?? b": 7}
    for key, value in odd.items():
        quoted = key.replace('"', '\\"')
        template = compile_template(f'${{workflow.input["{quoted}"]}}', [])
        assert resolve(template, lambda _: odd, limit_bytes=1_000) == value


@given(some.text(max_size=8), some.booleans())
def test_any_key_can_be_quoted_before_a_default(key: str, is_there: bool) -> None:
    written = f"${{workflow.input[{json.dumps(key)}] ?? workflow.input[{json.dumps(key)}] ?? 1}}"
    values = {key: 2} if is_there else {}
    template = compile_template(written, [])
    assert resolve(template, lambda _: values, limit_bytes=1_000) == (2 if is_there else 1)


# Errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("${workflow.input.x", r"\$\{workflow.input.x' has no closing brace; write \$\$\{"),
        ('${workflow.input["x}', "no closing brace"),
        ("${", "no closing brace"),
        ("${}", "does not start with workflow.input or tasks.NAME.output"),
        ("${workflow}", "does not start with"),
        ("${workflow.inputs.x}", "does not start with"),
        ("${workflow.output}", "does not start with"),
        ("${env.HOME}", "does not start with"),
        ("${input.x}", "does not start with"),
        ("${${workflow.input.x}}", "does not start with"),
        ("${tasks.__class__}", "names task '__class__', which the workflow does not have"),
        ("${tasks.nope.output.x}", "names task 'nope', which the workflow does not have"),
        ('${tasks["no.pe"].output}', "names task 'no.pe'"),
        ("${tasks.plain}", "only .output can be referred to"),
        ("${tasks.plain.status}", "only .output can be referred to"),
        ('${tasks["plain"].status}', "only .output can be referred to"),
        ("${tasks[plain].output}", r'expected tasks\["NAME"\]'),
        ("${workflow.input.}", r"a key is missing after '\.'"),
        ("${workflow.input..x}", r"a key is missing after '\.'"),
        ("${workflow.input[-1]}", r"cannot read the path at '\[-1\]'; write .key, \[0\]"),
        ("${workflow.input[x]}", r"cannot read the path at '\[x\]'"),
        ("${workflow.input['x']}", "cannot read the path"),
        ("${workflow.input.x y}", "cannot read the path at ' y'"),
        ('${workflow.input["\\x"]}', "not valid JSON text"),
        ('${workflow.input["a\\ud800b"]}', r"half a surrogate pair.*write both halves, or the"),
        ('${workflow.input["\\ud83d\\ude00\\udc00"] ?? 1}', "half a surrogate pair"),
        ('${tasks["\\udfff"].output}', "half a surrogate pair"),
        ("${workflow.input.x ?? tasks.nope.output ?? 3}", "names task 'nope'"),
        ("${workflow.input.x ??}", r"no default after \?\?"),
        ("${workflow.input.x ?? {bad}}", "neither JSON nor a plain word"),
        ('${workflow.input.x ?? "open}', "no closing brace"),
        ("${workflow.input.x ?? NaN}", None),
    ],
)
def test_what_cannot_be_understood_is_said(written: str, words: str | None) -> None:
    if words is None:
        assert filled(written) == "NaN", "a plain word, not a number that JSON does not have"
        return
    with pytest.raises(BadReference, match=words):
        compile_template(written, NAMES)


def test_errors_name_their_place() -> None:
    found: list[tuple[str, str]] = []
    written = {"a": ["fine", {"b": "${nope}"}], "${c}": 1}
    compile_template(written, [], lambda where, message: found.append((where, message)))
    assert [where for where, _ in found] == ["", ".a[1].b"]
    assert "references are not expanded in keys" in found[0][1]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("${workflow.input.nope}", r"nothing at 'nope'; the keys are: big, empty, list, "),
        ("${workflow.input.list[7]}", r"nothing at \[7\]; there are 3 items, counted from 0"),
        ("${workflow.input.text.x}", "nothing at 'x'; a string has no keys"),
        ("${workflow.input.none.x}", "null has no keys"),
        ("${workflow.input.list.x}", "an array has no keys"),
        ("${workflow.input.object[1]}", "an object has no items"),
        ("${workflow.input.yes[1]}", "a boolean has no items"),
    ],
)
def test_a_missing_value_says_what_is_there(written: str, words: str) -> None:
    with pytest.raises(MissingValue, match=words) as caught:
        filled(written)
    assert str(caught.value).startswith(written)


# Limits ------------------------------------------------------------------------------------------


def test_the_size_of_what_is_filled_in_is_bounded() -> None:
    template = compile_template(["${tasks.t.output}"] * 10, ["t"])
    value = {"text": "x" * 100}
    assert len(resolve(template, lambda _: value, limit_bytes=2_000)) == 10
    with pytest.raises(ResolvedTooLarge, match=r"larger than 1000 bytes once '\$\{tasks.t.output"):
        resolve(template, lambda _: value, limit_bytes=1_000)


def test_text_counts_by_its_bytes() -> None:
    template = compile_template("<${tasks.t.output}>", ["t"])
    with pytest.raises(ResolvedTooLarge):
        resolve(template, lambda _: "€" * 500, limit_bytes=1_000)


def test_keys_count_too() -> None:
    template = compile_template(["${tasks.t.output}"], ["t"])
    with pytest.raises(ResolvedTooLarge):
        resolve(template, lambda _: {"k" * 2_000: 1}, limit_bytes=1_000)


class CountingText(str):
    """A text that counts how often single characters of it are looked at."""

    looks = 0

    def __getitem__(self, key: Any) -> Any:
        CountingText.looks += 1
        return super().__getitem__(key)


@pytest.mark.parametrize("piece", ["${workflow.input.x} ", "$${x} ", '${workflow.input.x ?? "}"}'])
def test_the_work_for_placeholders_grows_with_their_number_only(piece: str) -> None:
    looks = []
    for count in (1_000, 10_000):
        CountingText.looks = 0
        compile_template(CountingText(piece * count), [])
        looks.append(CountingText.looks)
    assert looks[0] > 0
    assert looks[1] <= looks[0] * 11


def test_a_hundred_thousand_placeholders_are_filled_in() -> None:
    template = compile_template("${workflow.input.x}," * 100_000, [])
    assert len(template.references) == 100_000
    filled_in = resolve(template, lambda _: {"x": 1}, limit_bytes=1_000_000)
    assert filled_in == "1," * 100_000


def test_many_names_cost_nothing_for_a_reference_that_is_wrong() -> None:
    class CountedNames(list[str]):
        walks = 0

        def __iter__(self) -> Any:
            CountedNames.walks += 1
            return super().__iter__()

    names = CountedNames(f"t{i}" for i in range(50))
    errors: list[str] = []
    written = ["${tasks.nope.output}"] * 200
    compile_template(written, names, lambda _, message: errors.append(message))
    assert len(errors) == 200
    assert CountedNames.walks <= 50, "each wrong reference walks through all names"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("${" + "workflow.input.x ?? " * 10_000 + "1}", "more than 16 references after"),
        ("${tasks" + ".output" * 100_000 + "}", "at most 2000 are allowed"),
        ("${workflow.input" + ".x" * 100_000 + "}", "at most 2000 are allowed"),
        ("${workflow.input.x ?? " + "[" * 100_000 + "}", "neither JSON nor a plain word"),
        ("${" * 100_000, "no closing brace"),
        ("${" + "{" * 100_000 + "}", "no closing brace"),
    ],
)
def test_long_references_are_refused_at_once(written: str, words: str) -> None:
    with pytest.raises(BadReference, match=words):
        compile_template(written, ["t"])


def test_sixteen_fallbacks_are_enough() -> None:
    assert filled("${" + "workflow.input.missing ?? " * 17 + "1}") == 1
