"""Analyses of real files: right numbers, clean JSON, bounded results, clear failures."""

from __future__ import annotations

import codecs
import csv
import json
import statistics as stats
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmonia_actors.components.contract import ActionError
from harmonia_actors.components.sophia import component
from tests.unit.components.context import RecordingContext, context_in

ACTION = component.actions["analyze_data"]
PENGUINS = Path(__file__).parents[3] / "examples" / "penguins.csv"


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    return context_in(tmp_path)


def analyse(
    context: RecordingContext, content: bytes | str, name: str = "data.csv", **given: Any
) -> dict[str, Any]:
    """Write a file and analyse it as the engine would; the output must be strict JSON."""
    encoded = content.encode() if isinstance(content, str) else content
    (context.workspace.directory / name).write_bytes(encoded)
    parsed = ACTION.parse({"file_path": name, "analysis_type": "comprehensive", **given})
    output: dict[str, Any] = ACTION.function(**parsed, context=context)
    assert json.loads(json.dumps(output, allow_nan=False)) == output
    return output


def refused(context: RecordingContext, content: bytes | str, name: str = "data.csv") -> ActionError:
    with pytest.raises(ActionError) as error:
        analyse(context, content, name)
    assert error.value.details == {"file": name}
    return error.value


def column(output: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in output["results"]["columns"] if c["name"] == name)
    return found


@pytest.fixture(scope="module")
def penguins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    context = context_in(tmp_path_factory.mktemp("penguins"))
    return analyse(context, PENGUINS.read_bytes(), "penguins.csv")


def test_basic_tells_size_types_and_missing_values(context: RecordingContext) -> None:
    output = analyse(context, PENGUINS.read_bytes(), analysis_type="basic")
    assert (output["rows"], output["columns"], output["format"]) == (344, 8, "csv")
    assert column(output, "sex")["missing"] == 11
    assert column(output, "bill_length_mm")["type"] == "number"
    assert "statistics" not in column(output, "sex")
    assert "correlations" not in output["results"]
    assert output["results"]["preview"]["rows"][0][:3] == ["Adelie", "Torgersen", 39.1]


def test_detailed_adds_statistics_and_no_relations(context: RecordingContext) -> None:
    output = analyse(context, PENGUINS.read_bytes(), analysis_type="detailed")
    assert column(output, "species")["statistics"]["top"][0] == {
        "value": "Adelie",
        "count": 152,
        "percent": 44.2,
    }
    assert "groups" not in output["results"]


def test_statistics_are_those_of_the_values(penguins: dict[str, Any]) -> None:
    with PENGUINS.open() as opened:
        cells = [row["body_mass_g"] for row in csv.DictReader(opened)]
    values = [float(cell) for cell in cells if cell != "NA"]
    found = column(penguins, "body_mass_g")["statistics"]
    assert found["count"] == len(values)
    assert found["mean"] == pytest.approx(stats.fmean(values), rel=1e-4)
    assert found["std"] == pytest.approx(stats.stdev(values), rel=1e-4)
    assert found["median"] == stats.median(values)
    assert (found["min"], found["max"]) == (min(values), max(values))
    quartiles = stats.quantiles(values, n=4, method="inclusive")
    assert [found["q1"], found["q3"]] == pytest.approx([quartiles[0], quartiles[2]])
    assert sum(found["histogram"]["counts"]) == len(values)
    assert len(found["histogram"]["edges"]) == len(found["histogram"]["counts"]) + 1


def test_correlations_are_right_and_ranked(penguins: dict[str, Any]) -> None:
    with PENGUINS.open() as opened:
        rows = [row for row in csv.DictReader(opened) if row["body_mass_g"] != "NA"]
    expected = stats.correlation(
        [float(row["flipper_length_mm"]) for row in rows],
        [float(row["body_mass_g"]) for row in rows],
    )
    strongest = penguins["results"]["correlations"]["strongest"]
    assert strongest[0]["a"] == "flipper_length_mm"
    assert strongest[0]["b"] == "body_mass_g"
    assert strongest[0]["r"] == pytest.approx(expected, abs=1e-5)
    assert [abs(p["r"]) for p in strongest] == sorted(
        (abs(p["r"]) for p in strongest), reverse=True
    )


def test_groups_are_compared_by_what_explains_most(penguins: dict[str, Any]) -> None:
    first = penguins["results"]["groups"][0]
    assert first["by"] == "species"
    flippers = first["measures"][0]
    assert flippers["column"] == "flipper_length_mm"
    assert flippers["explained"] == pytest.approx(0.778, abs=0.001)
    means = {group["group"]: group["mean"] for group in flippers["groups"]}
    assert means == pytest.approx({"Adelie": 189.954, "Chinstrap": 195.824, "Gentoo": 217.187})


def test_findings_are_sentences_about_the_data(penguins: dict[str, Any]) -> None:
    findings = penguins["findings"]
    assert findings[0].startswith("The data has 344 rows and 8 columns; 19 values are missing")
    assert any("species explains 78 % of its variance" in finding for finding in findings)
    assert "No row repeats another." in findings
    assert all(finding.endswith(".") for finding in findings)


def test_progress_only_grows_and_ends_at_one(
    penguins: dict[str, Any], context: RecordingContext
) -> None:
    analyse(context, PENGUINS.read_bytes())
    fractions = [fraction for fraction, _ in context.reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(fractions) > 5


def test_a_cancelled_analysis_stops(context: RecordingContext) -> None:
    context.cancel()
    with pytest.raises(ActionError) as error:
        analyse(context, "a\n1\n")
    assert error.value.code == "CANCELLED"


ROWS = [{"day": f"2025-01-{n:02}", "kind": "ab"[n % 2], "amount": n * 1.5} for n in range(1, 25)]


def test_all_formats_give_the_same_results(context: RecordingContext) -> None:
    import pandas as pd

    frame = pd.DataFrame(ROWS)
    frame.to_parquet(context.workspace.directory / "made.parquet")
    parquet = (context.workspace.directory / "made.parquet").read_bytes()
    lines = "\n".join(json.dumps(row) for row in ROWS)
    by_column = {key: [row[key] for row in ROWS] for key in ROWS[0]}
    contents: dict[str, bytes | str] = {
        "a.csv": frame.to_csv(index=False),
        "a.tsv": frame.to_csv(index=False, sep="\t"),
        "semicolons.csv": frame.to_csv(index=False, sep=";"),
        "bom.csv": "\ufeff" + frame.to_csv(index=False),
        "utf16.csv": frame.to_csv(index=False).encode("utf-16"),
        "a.json": json.dumps(ROWS),
        "wrapped.json": json.dumps({"count": 24, "items": ROWS}),
        "columns.json": json.dumps(by_column),
        "a.jsonl": lines,
        "a.parquet": parquet,
        "no-suffix": parquet,
        "also-none": lines,
    }
    outputs = {name: analyse(context, content, name) for name, content in contents.items()}
    for name, output in outputs.items():
        output["results"].pop("summary")
        for described in output["results"]["columns"]:
            described.pop("dtype")
        assert output["results"] == outputs["a.csv"]["results"], name
    assert column(outputs["a.csv"], "day")["type"] == "date"
    assert column(outputs["a.csv"], "day")["statistics"]["span_days"] == 23


@pytest.mark.parametrize(
    "content", ["id,x,y\n0,0,0,\n1,2,3,\n", "id,x,y\n0,0,0\n1,2,3, ,,\n", "id,x,y\n0,0,0,\n1,2,3\n"]
)
def test_separators_at_the_end_of_rows_make_no_column(
    context: RecordingContext, content: str
) -> None:
    preview = analyse(context, content)["results"]["preview"]
    assert preview == {"columns": ["id", "x", "y"], "rows": [[0, 0, 0], [1, 2, 3]]}


def test_nested_json_becomes_columns(context: RecordingContext) -> None:
    output = analyse(context, json.dumps([{"a": {"b": 1, "c": [1, 2]}}] * 3), "a.json")
    assert [c["name"] for c in output["results"]["columns"]] == ["a.b", "a.c"]


@pytest.mark.parametrize(
    ("content", "name", "value"),
    [
        ('[{"city":"Orlé"}]', "data.json", "Orlé"),
        ('[{"n":"名前"}]', "data.json", "名前"),
        ("n\né", "data.csv", "é"),
        ("n\né".encode("cp1252"), "data.csv", "é"),
        ("n\né".encode("utf-32-be"), "data.csv", None),
        (codecs.BOM_UTF32_BE + "n\né".encode("utf-32-be"), "data.csv", "é"),
        ("n\n" + "Москва\n" * 6_000, "data.csv", "Москва"),
        ("n\n" + "北京\n" * 12_000, "data.csv", "北京"),
        (("n\n" + "a\n" * 40_000 + "Orlé\n").encode("cp1252"), "data.csv", "Orlé"),
    ],
)
def test_text_is_read_in_the_encoding_it_has(
    context: RecordingContext, content: bytes | str, name: str, value: str | None
) -> None:
    if value is None:
        assert refused(context, content, name).code == "UNREADABLE_DATA"
        return
    output = analyse(context, content, name)
    top = output["results"]["columns"][0]["statistics"]["top"]
    assert value in [entry["value"] for entry in top]


@pytest.mark.parametrize(
    ("content", "name", "code", "says"),
    [
        ("", "data.csv", "EMPTY_DATA", "empty"),
        (" \n\n", "data.csv", "EMPTY_DATA", "empty"),
        ("a,b\n1,2\n1,2,3,4\n", "data.csv", "UNREADABLE_DATA", "line 3 has 4 fields"),
        ("price\n1,000\n2,000", "data.csv", "UNREADABLE_DATA", "line 2 has 2 fields"),
        ("# a comment\nid,x\n1,2\n", "data.csv", "UNREADABLE_DATA", "line 2 has 2 fields"),
        ('a,b\n"1\n",2,\n\n3,4,5\n', "data.csv", "UNREADABLE_DATA", "line 5 has 3 fields"),
        ("a\n1,NA\n2,3\n", "data.csv", "UNREADABLE_DATA", "line 2 has 2 fields"),
        ("x\ty\n1\t2\t3\n", "data.tsv", "UNREADABLE_DATA", "header has 2"),
        ("a\n1,\n" + "x" * 140_000 + "\n", "data.csv", "UNREADABLE_DATA", "field limit"),
        ("<!DOCTYPE html><html>404</html>", "data.csv", "UNREADABLE_DATA", "HTML"),
        (b"PK\x03\x04\x00\x00", "data.csv", "UNREADABLE_DATA", "NUL"),
        ("{", "data.json", "UNREADABLE_DATA", "json"),
        ("[[1,2],[3,4]]", "data.json", "UNREADABLE_DATA", "no table"),
        ("3", "data.json", "UNREADABLE_DATA", "no table"),
        ("[" * 100_000, "data.json", "UNREADABLE_DATA", "json"),
        ("9" * 10_000, "data.json", "UNREADABLE_DATA", "json"),
        (b"PAR1 and nothing else", "data.parquet", "UNREADABLE_DATA", "parquet"),
        ("a,b\n1,2\n", "data.parquet", "UNREADABLE_DATA", "parquet"),
    ],
)
def test_files_that_are_no_tables_are_refused(
    context: RecordingContext, content: bytes | str, name: str, code: str, says: str
) -> None:
    error = refused(context, content, name)
    assert error.code == code
    assert says in error.message
    assert not error.retriable


def test_a_missing_file_is_told_as_in_the_api_reference(context: RecordingContext) -> None:
    with pytest.raises(ActionError, match=r"file not found: no\.csv") as error:
        ACTION.function("no.csv", context=context)
    assert (error.value.code, error.value.details) == ("FILE_NOT_FOUND", {"file": "no.csv"})


def test_files_outside_are_not_read(context: RecordingContext) -> None:
    with pytest.raises(ActionError) as error:
        ACTION.function("/etc/passwd", context=context)
    assert error.value.code == "PATH_NOT_ALLOWED"


def test_a_huge_file_is_refused_before_it_is_read(context: RecordingContext) -> None:
    with (context.workspace.directory / "huge.csv").open("wb") as opened:
        opened.truncate(600_000_000)
    with pytest.raises(ActionError) as error:
        ACTION.function("huge.csv", context=context)
    assert error.value.code == "DATA_TOO_LARGE"


def test_a_parquet_file_that_unpacks_to_too_much_is_refused(context: RecordingContext) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    column = pa.array([0]).take(pa.array([0] * 1_000_000))
    table = pa.table({f"c{n}": column for n in range(120)})
    parquet.write_table(table, context.workspace.directory / "bomb.parquet", compression="zstd")
    assert (context.workspace.directory / "bomb.parquet").stat().st_size < 5_000_000
    with pytest.raises(ActionError) as error:
        ACTION.function("bomb.parquet", context=context)
    assert error.value.code == "DATA_TOO_LARGE"


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n",
        "a\n1\n",
        "a,b\n1,\n2,\n",
        "a,b\nx,inf\ny,-inf\nz,nan\n",
        "a,a,a\n1,2,3\n",
        ",\n,\n",
        "a,b\n1,1\n1,1\n1,1\n",
        "a\n" + "1e308\n-1e308\n" * 30,
        "a\n99999999999999999999999999\n1\n",
        "when,x\n2025-02-30,1\n2025-01-01,2\n",
        "when,x\n2025-01-01T00:00:00+02:00,1\n2025-01-02T00:00:00Z,2\n",
        "a,b\ntrue,1\nfalse,2\n",
        "a\n" + "x" * 100_000 + "\n",
    ],
)
@pytest.mark.parametrize("analysis_type", ["basic", "detailed", "comprehensive"])
def test_odd_tables_are_analysed(
    context: RecordingContext, content: str, analysis_type: str
) -> None:
    output = analyse(context, content, analysis_type=analysis_type)
    assert output["findings"]


def test_mixed_and_nested_json_values_are_analysed(context: RecordingContext) -> None:
    rows = [{"a": 1, "b": None}, {"a": "x", "b": [1]}, {"a": {"c": 1.5}}, {"\ud800": "\ud800"}]
    output = analyse(context, json.dumps(rows * 20), "a.json")
    assert output["rows"] == 80


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "n": st.none() | st.floats() | st.integers(),
                "t": st.none() | st.text(max_size=5) | st.booleans(),
                "m": st.integers(-5, 5),
            }
        ),
        min_size=1,
        max_size=30,
    )
)
def test_any_values_give_clean_json(context: RecordingContext, rows: list[dict[str, Any]]) -> None:
    assert analyse(context, json.dumps(rows), "a.json")["rows"] == len(rows)


def test_results_are_bounded_whatever_the_table(context: RecordingContext) -> None:
    head = ",".join(f"a_rather_long_column_name_{n}" for n in range(400))
    body = "\n".join(",".join(f"value-{(n * r) % 97}" for n in range(400)) for r in range(300))
    output = analyse(context, f"{head}\n{body}\n")
    assert output["columns"] == 400
    assert len(output["results"]["columns"]) == 60
    assert "first 60 of 400" in output["results"]["summary"]["notes"][0]
    assert len(json.dumps(output)) < 200_000


def test_outliers_and_duplicates_are_found(context: RecordingContext) -> None:
    body = "".join(f"{n % 30},{n}\n" for n in range(100)) + "500,1000\n500,1000\n"
    output = analyse(context, "a,b\n" + body)
    outliers = {entry["column"]: entry for entry in output["results"]["outliers"]}
    assert outliers["a"]["count"] == 2
    assert outliers["a"]["examples"] == [500, 500]
    assert output["results"]["duplicates"] == {"rows": 1, "percent": 1.0}
    assert any("1 row repeats" in finding for finding in output["findings"])
