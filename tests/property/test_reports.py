"""Whatever JSON a report is asked for: it is written, in each format, or refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harmonia_actors.components import sophia
from harmonia_actors.components.contract import ActionError
from harmonia_actors.components.reports.markdown import render_markdown
from harmonia_actors.components.reports.model import Bullets, Paragraph, Report, Section, Table
from harmonia_actors.components.rhetor import component
from tests.unit.components.context import context_in

ACTION = component.actions["generate_content"]
PENGUINS = Path(__file__).parents[2] / "examples" / "penguins.csv"

#: Any character at all: halves of surrogate pairs, controls, all scripts.
characters = st.characters(exclude_categories=())
pieces = st.text(characters, max_size=12) | st.sampled_from(
    ["word ", "line\n", "1. ", "北京", "😀", "\ud800", "<b>&", "\n", " ", "W", "wide-and-unbroken"]
)
texts = pieces | st.builds(lambda piece, times: piece * times, pieces, st.integers(1, 900))
numbers = (
    st.integers()
    | st.floats()
    | st.builds(lambda n, power: n * 10**power, st.integers(-9, 9), st.integers(10, 400))
    | st.sampled_from([1e15, -1e30, 1e150, 1e299, -1e300, 5e-324, 1.7e308, 0.1])
)
scalars = st.none() | st.booleans() | numbers | texts
#: Many rows of one shape, as tables have.
records = st.lists(pieces, min_size=0, max_size=9, unique=True).flatmap(
    lambda keys: st.lists(st.fixed_dictionaries(dict.fromkeys(keys, scalars)), max_size=4)
)
odd_values = st.recursive(
    scalars | records | st.lists(numbers, max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=6),
    max_leaves=12,
)
FORMS = {"pdf": b"%PDF", "html": b"<!DOCTYPE", "markdown": b"# "}
in_one_directory = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The results of a real analysis, as JSON."""
    folder = tmp_path_factory.mktemp("penguins")
    (folder / "penguins.csv").write_bytes(PENGUINS.read_bytes())
    analyse = sophia.component.actions["analyze_data"].function
    results = analyse("penguins.csv", "comprehensive", context=context_in(folder))["results"]
    return json.dumps(results)


def write(folder: Path, data: Any, form: str) -> None:
    """Write a report, or be refused as an action refuses what it cannot take."""
    try:
        parsed = ACTION.parse({"data": data, "format": form})
        output = ACTION.function(**parsed, context=context_in(folder))
    except ActionError as error:
        assert error.message
        assert not error.retriable
        return
    written = Path(output["report_file"]).read_bytes()
    assert written.startswith(FORMS[form])
    assert form == "pdf" or written.decode("utf-8")


@in_one_directory
@given(odd_values)
def test_any_json_makes_a_report(tmp_path: Path, data: Any) -> None:
    for form in FORMS:
        write(tmp_path, data, form)


@in_one_directory
@given(records)
def test_any_table_makes_a_report(tmp_path: Path, data: Any) -> None:
    for form in FORMS:
        write(tmp_path, data, form)


@settings(in_one_directory, max_examples=8)
@given(st.sampled_from(sorted(FORMS)), st.data())
def test_any_change_of_an_analysis_makes_a_report(
    tmp_path: Path, analysis: str, form: str, data: st.DataObject
) -> None:
    results = json.loads(analysis)
    for _ in range(data.draw(st.integers(1, 3))):
        change_somewhere(results, data)
    write(tmp_path, results, form)


def change_somewhere(results: Any, data: st.DataObject) -> None:
    """Go down into the results, anywhere, and put something else there, or nothing, or more."""
    at: Any = results
    for _ in range(data.draw(st.integers(0, 7))):
        deeper = [v for v in (at.values() if isinstance(at, dict) else at) if v and _holds(v)]
        if not deeper:
            break
        at = data.draw(st.sampled_from(deeper))
    key = data.draw(st.sampled_from(list(at) if isinstance(at, dict) else list(range(len(at)))))
    kind = data.draw(st.sampled_from(["scalar", "scalar", "empty", "repeat", "gone"]))
    if kind == "scalar":
        at[key] = data.draw(numbers | texts | st.none())
    elif kind == "empty":
        at[key] = type(at[key])()
    elif kind == "gone":
        del at[key]
    elif isinstance(at[key], list):
        at[key] = at[key] * 12


def _holds(value: Any) -> bool:
    return isinstance(value, (dict, list))


#: Lines of what could be mark-up.
lines = st.text("`*_{}[]<>|~#$&-+=1.)(\\a!:\"'/ ", min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=300, deadline=None)
@given(st.lists(lines, min_size=1, max_size=3).map("\n".join))
def test_any_text_is_read_back_from_markdown_as_it_is(text: str) -> None:
    blocks = (Paragraph(text), Bullets((text, "end")), Table((text, "b"), ((text, "b"),)))
    source = render_markdown(Report(text, (text,), (Section(text, blocks),)), {}).decode()
    tokens = MarkdownIt("commonmark").enable("table").parse(source)
    opened = [token.type for token in tokens if token.type.endswith(("list_open", "table_open"))]
    assert opened == ["bullet_list_open", "table_open"]
    inline = [token.children or [] for token in tokens if token.type == "inline"]
    shown = ["".join(child.content or " " for child in children) for children in inline]
    line = " ".join(text.split())
    assert [part.strip() for part in shown] == [*[line] * 5, "end", line, "b", line, "b"]
