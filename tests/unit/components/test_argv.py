"""Commands are cut into words before values are filled in, and values stay what they are."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonia_actors.components.argv import (
    COMMAND_CHARS_MAX,
    WORD_BYTES_MAX,
    CommandTemplateError,
    check_template,
    check_words,
    split_command,
)
from harmonia_actors.components.contract import ActionError
from harmonia_actors.core.references import compile_template, resolve

REFERENCE = "curl -o ${workflow.input.output_file} ${workflow.input.data_url}"


def filled(template: str, *values: object) -> list[str]:
    """The argv of a template whose words that are references get these values, in order."""
    words = split_command(template)
    left = list(values)
    return check_words(words, [left.pop(0) if "${" in word else word for word in words])


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (REFERENCE, ["curl", "-o", "${workflow.input.output_file}", "${workflow.input.data_url}"]),
        ("a 'b c' \"d e\" f\\ g", ["a", "b c", "d e", "f g"]),
        ('a ${tasks.b.output.x ?? "c d"} e', ["a", '${tasks.b.output.x ?? "c d"}', "e"]),
        ('a ${workflow.input["k y"]}x', ["a", '${workflow.input["k y"]}x']),
        ('a ${x ?? {"k": "}"}} b', ["a", '${x ?? {"k": "}"}}', "b"]),
        ("a '${x y}' \"-${z}\"", ["a", "${x y}", "-${z}"]),
        ("a $${literal} b", ["a", "$${literal}", "b"]),
        ("a '$'{x}", ["a", "$${x}"]),
        ("grep '|' \";\" '>'", ["grep", "|", ";", ">"]),
        ("awk '{print $1}' f", ["awk", "{print $1}", "f"]),
        ("a ''", ["a", ""]),
    ],
)
def test_templates_are_split_by_shell_rules_with_references_whole(
    template: str, words: list[str]
) -> None:
    assert split_command(template) == words


def test_a_text_that_is_too_long_is_not_split() -> None:
    assert len(split_command("a " * (COMMAND_CHARS_MAX // 20))) == COMMAND_CHARS_MAX // 20
    with pytest.raises(CommandTemplateError, match="8000000 characters; at most 100000"):
        split_command("a " * 4_000_000)


@given(st.text(alphabet=st.sampled_from("ab '\"\\-=/.\n\t"), max_size=40))
def test_without_references_the_words_are_those_of_shlex(template: str) -> None:
    try:
        expected = shlex.split("prog " + template)
    except ValueError:
        with pytest.raises(CommandTemplateError):
            split_command("prog " + template)
    else:
        assert split_command("prog " + template) == expected


@given(st.lists(st.text(alphabet=st.sampled_from("ab '\"\\${}|;`"), min_size=1), max_size=5))
def test_quoted_words_come_out_as_they_were(words: list[str]) -> None:
    template = " ".join(["prog", *(shlex.quote(word.replace("${", "$${")) for word in words)])
    assert split_command(template) == ["prog", *(w.replace("${", "$${") for w in words)]


@pytest.mark.parametrize(
    "template",
    [
        *("a | b", "a || b", "a && b", "a ; b", "a; b", "a & b", "a > f", "a >> f", "a < f"),
        *("a 2>&1", "a 2> f", "a &> f", "a >f", "a $(date)", "a `date`", 'a "$(date)"', "a |& b"),
    ],
)
def test_shell_syntax_is_refused_with_the_way_out(template: str) -> None:
    with pytest.raises(CommandTemplateError, match="split the command into tasks"):
        split_command(template)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("a 'b", "no closing quotation"),
        ("a ${b", "no closing brace"),
        ("${workflow.input.program} x", "must be named in the workflow"),
        ("/bin/${workflow.input.program} x", "must be named in the workflow"),
        ("a '$'${x}", "right before a reference"),
        ("a \0", "characters"),
    ],
)
def test_other_bad_templates_are_refused(template: str, says: str) -> None:
    with pytest.raises(CommandTemplateError, match=says):
        split_command(template)


@pytest.mark.parametrize(
    "template",
    [
        "sh -c 'echo ${workflow.input.x}'",
        "/bin/bash -euxc ${tasks.a.output.script}",
        "python3 -c 'print(\"${x}\")'",
        "python3.11 -c ${x}",
        "perl -ne 'print ${x}'",
        "node --eval ${x}",
    ],
)
def test_a_reference_cannot_write_code(template: str) -> None:
    with pytest.raises(CommandTemplateError, match="as code"):
        split_command(template)


def test_a_reference_can_be_an_argument_of_code() -> None:
    words = split_command("sh -c 'echo \"$1\"' sh ${workflow.input.x}")
    assert words == ["sh", "-c", 'echo "$1"', "sh", "${workflow.input.x}"]


def test_templates_that_are_lists_are_checked_too() -> None:
    check_template(["curl", "${x}"])
    with pytest.raises(CommandTemplateError, match="must be named"):
        check_template(["${x}", "y"])
    with pytest.raises(CommandTemplateError, match="empty"):
        check_template([])


@pytest.mark.parametrize(
    "value",
    [
        "x; touch P",
        "$(touch P)",
        "`touch P`",
        "a\nb",
        "a | b",
        "a && b",
        "a\u2028b",
        "a b",
        "'",
        "",
    ],
)
def test_a_value_is_one_word_whatever_it_holds(value: str) -> None:
    argv = filled(REFERENCE, value, "https://example.com/data.csv")
    assert argv == ["curl", "-o", value, "https://example.com/data.csv"]


def test_values_that_are_not_text_become_compact_json() -> None:
    assert filled("a ${x} ${y} ${z}", 3, {"k": [1, None]}, True) == [
        *("a", "3", '{"k":[1,null]}', "true")
    ]


@pytest.mark.parametrize("value", ["-K/etc/passwd", "--output=/etc/cron.d/x", "-o", "-"])
def test_a_value_cannot_become_an_option(value: str) -> None:
    with pytest.raises(ActionError, match="starts with '-'") as refused:
        filled(REFERENCE, "file", value)
    assert refused.value.code == "OPTION_INJECTION"
    assert not refused.value.retriable


def test_a_value_may_begin_with_a_dash_where_it_cannot_be_an_option() -> None:
    assert filled("tool --shift=${x}", "--shift=-5") == ["tool", "--shift=-5"]
    assert filled("rm -- ${x}", "-f") == ["rm", "--", "-f"]
    assert check_words(["tool", "-v"], ["tool", "-v"]) == ["tool", "-v"]


@pytest.mark.parametrize(
    "value",
    [
        *("file:///etc/passwd", "FILE:///etc/passwd", "file:/etc/passwd", "gopher://h:6379/_x"),
        *(
            "dict://h/x",
            "ftp://h/x",
            " file:///x",
            "ftp.example.com/x",
            "{file,http}:///etc/passwd",
        ),
        *("[f-f]ile:///etc/passwd", "{file}:/etc/passwd", "{x,file:///etc/passwd}", "smb://h/x"),
    ],
)
@pytest.mark.parametrize("program", ["curl", "/usr/bin/curl", "wget"])
def test_curl_and_wget_get_no_addresses_but_http(program: str, value: str) -> None:
    with pytest.raises(ActionError, match="not an http or https address") as refused:
        filled(program + " -o f ${workflow.input.data_url}", value)
    assert refused.value.code == "UNSAFE_URL"
    with pytest.raises(ActionError, match="not an http or https address"):
        filled(program + " --url=${workflow.input.data_url}", f"--url={value}")


@pytest.mark.parametrize(
    "value",
    ["https://example.com/a?b=c:d", "HTTP://h/", "127.0.0.1:8000/x.csv", "/srv/data.csv", "a.csv"],
)
def test_addresses_and_files_that_are_fine_pass(value: str) -> None:
    assert filled("curl -O ${x}", value) == ["curl", "-O", value]


def test_other_programs_get_any_address() -> None:
    assert filled("git clone ${x}", "ssh://host/repo") == ["git", "clone", "ssh://host/repo"]


def test_curl_is_not_made_to_read_a_file_by_a_value() -> None:
    with pytest.raises(ActionError, match="starts with '@'"):
        filled("curl -d ${x} https://example.com", "@/etc/passwd")


@pytest.mark.parametrize(
    ("value", "says"),
    [("a\0b", "NUL"), ("\ud800", "surrogate"), ("x" * (WORD_BYTES_MAX + 1), "bytes")],
)
def test_values_that_no_program_can_get_are_refused(value: str, says: str) -> None:
    with pytest.raises(ActionError, match=says) as refused:
        filled("a ${x}", value)
    assert refused.value.code == "INVALID_INPUT"


def test_all_words_together_are_bounded() -> None:
    words = ["a"] + ["${x}"] * 20
    with pytest.raises(ActionError, match="more than"):
        check_words(words, ["a"] + ["x" * 100_000] * 20)


@pytest.mark.parametrize(
    "reference",
    [
        "${workflow.input.x}",
        '${workflow.input["a } b"]}',
        '${workflow.input.x ?? {"k": "}"}}',
        '${workflow.input.x ?? "it\'s \\" quoted"}',
        '${tasks["a task"].output.path ?? ${}',
    ],
)
def test_words_are_cut_where_the_engine_sees_references(reference: str) -> None:
    try:
        compiled = compile_template(f"prog a{reference}b c", ["a task"])
    except ValueError:
        with pytest.raises(CommandTemplateError):
            split_command(f"prog a{reference}b c")
        return
    words = split_command(f"prog a{reference}b c")
    assert words == ["prog", f"a{reference}b", "c"]
    assert [found.text for found in compiled.references] == [reference]


@given(st.lists(st.text(alphabet=st.sampled_from("a$ {}'\"\\"), min_size=1), max_size=4))
def test_literal_words_survive_splitting_and_resolving(words: list[str]) -> None:
    template = " ".join(["prog", *(shlex.quote(word.replace("${", "$${")) for word in words)])
    resolved = [
        resolve(compile_template(word, []), lambda _: None, limit_bytes=10_000)
        for word in split_command(template)
    ]
    assert resolved == ["prog", *words]
