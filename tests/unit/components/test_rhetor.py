"""Reports: real PDF, HTML and Markdown files, with charts, from an analysis or from any JSON."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from pypdf import PdfReader

from harmonia_actors.components import sophia
from harmonia_actors.components.contract import ActionError
from harmonia_actors.components.rhetor import component
from tests.unit.components.context import RecordingContext, context_in

ACTION = component.actions["generate_content"]
PENGUINS = Path(__file__).parents[3] / "examples" / "penguins.csv"
HOSTILE = "<script>alert(1)</script> {{7*7}} ${tasks.a.output} $x^2$ %s | `a` [b](javascript:c)"


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    return context_in(tmp_path, task_name="generate_report")


@pytest.fixture(scope="module")
def analyses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of the three depths of analysis of the penguins."""
    folder = tmp_path_factory.mktemp("penguins")
    (folder / "penguins.csv").write_bytes(PENGUINS.read_bytes())
    analyse = sophia.component.actions["analyze_data"].function
    kinds = ("basic", "detailed", "comprehensive")
    return {
        kind: analyse("penguins.csv", kind, context=context_in(folder))["results"] for kind in kinds
    }


def generate(context: RecordingContext, data: Any, **given: Any) -> dict[str, Any]:
    parsed = ACTION.parse({"template": "report", "data": data, **given})
    output: dict[str, Any] = ACTION.function(**parsed, context=context)
    assert json.loads(json.dumps(output, allow_nan=False)) == output
    written = Path(output["report_file"])
    assert written.is_absolute()
    assert written.stat().st_size == output["size_bytes"]
    return output


def pdf_text(output: dict[str, Any]) -> str:
    pages = PdfReader(output["report_file"]).pages
    return re.sub(r"\s+", " ", " ".join(page.extract_text() for page in pages))


class _Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def html_seen(output: dict[str, Any]) -> _Seen:
    seen = _Seen()
    seen.feed(Path(output["report_file"]).read_text(encoding="utf-8"))
    return seen


def test_the_pdf_of_an_analysis_has_all_sections_and_charts(
    context: RecordingContext, analyses: dict[str, Any]
) -> None:
    output = generate(context, analyses["comprehensive"])
    assert output["report_file"] == str(context.workspace.directory / "generate_report.pdf")
    assert output["sections"] == 7
    assert output["generated_charts"] == len(output["charts"]) == 8
    reader: Any = PdfReader(output["report_file"])
    drawn = [page["/Resources"].get("/XObject", {}) for page in reader.pages]
    assert sum(len(images) for images in drawn) == 8
    assert {image["/Subtype"] for images in drawn for image in images.values()} == {"/Image"}
    assert reader.metadata is not None
    assert reader.metadata.title == "Report on penguins"
    assert [entry["/Title"] for entry in reader.outline] == [
        *("Key findings", "The data", "Distributions", "Categories", "Relations", "Groups"),
        "Data quality",
    ]
    text = pdf_text(output)
    assert "The data has 344 rows and 8 columns" in text
    assert f"1 / {len(reader.pages)}" in text
    fonts = {
        str(font.get_object()["/BaseFont"])
        for page in reader.pages
        for font in page["/Resources"]["/Font"].values()
    }
    assert any("DejaVu" in font for font in fonts)


@pytest.mark.parametrize(("kind", "charts"), [("basic", 1), ("detailed", 3)])
def test_shallower_analyses_give_shorter_reports(
    context: RecordingContext, analyses: dict[str, Any], kind: str, charts: int
) -> None:
    output = generate(context, analyses[kind])
    assert output["generated_charts"] == charts
    assert 2 <= output["sections"] < 7


def test_the_whole_output_of_an_analysis_will_do(
    context: RecordingContext, analyses: dict[str, Any]
) -> None:
    output = generate(context, {"results": analyses["basic"], "rows": 344}, format="html")
    assert output["title"] == "Report on penguins"


def test_the_html_stands_alone(context: RecordingContext, analyses: dict[str, Any]) -> None:
    output = generate(context, analyses["comprehensive"], format="html")
    seen = html_seen(output)
    assert seen.tags.count("img") == output["generated_charts"] == 8
    assert seen.tags.count("h2") == output["sections"]
    assert "script" not in seen.tags
    assert all(source.startswith("data:image/svg+xml;base64,") for source in seen.sources)
    for source in seen.sources:
        root = ElementTree.fromstring(base64.b64decode(source.partition(",")[2]))  # noqa: S314
        assert root.tag.endswith("svg")


def test_the_markdown_has_its_charts_beside_it(
    context: RecordingContext, analyses: dict[str, Any]
) -> None:
    output = generate(
        context, analyses["comprehensive"], format="markdown", output_file="out/a report.md"
    )
    written = Path(output["report_file"])
    assert written == context.workspace.directory / "out" / "a report.md"
    tokens = MarkdownIt("commonmark").enable("table").parse(written.read_text(encoding="utf-8"))
    assert sum(token.type == "table_open" for token in tokens) >= 5
    images = [
        child.attrs["src"]
        for token in tokens
        for child in token.children or ()
        if child.type == "image"
    ]
    assert len(images) == output["generated_charts"] == 8
    for source in images:
        assert (written.parent / str(source)).read_bytes().startswith(b"\x89PNG")
    assert [str(written.parent / str(source)) for source in images] == output["charts"]


def test_the_summary_is_the_start_of_the_report(
    context: RecordingContext, analyses: dict[str, Any]
) -> None:
    output = generate(context, analyses["comprehensive"], template="summary", title="In short")
    assert output["sections"] == 2
    assert output["title"] == "In short"
    assert "Distributions" not in pdf_text(output)


MIXED = {
    "quarter": "Q3",
    "revenue": 12.5,
    "note": "First paragraph.\n\nSecond paragraph.",
    "sales": [{"region": "North", "units": 12}, {"region": "South", "units": 22}],
    "shares": {"a": 1, "b": 2},
    "series": [1, 2, 4, 3],
    "tags": ["x", {"y": 1}],
    "deep": {"a": {"b": {"c": [1, 2]}}},
    "nothing": None,
    "empty": [],
}


@pytest.mark.parametrize("form", ["pdf", "html", "markdown"])
def test_any_object_is_laid_out_by_its_shape(context: RecordingContext, form: str) -> None:
    output = generate(context, MIXED, format=form)
    assert output["generated_charts"] == 3
    assert output["sections"] == 8
    if form == "pdf":
        text = pdf_text(output)
        for told in ("Overview", "Q3", "Second paragraph.", "North", "a.b.c", "Figure 3."):
            assert told in text


@pytest.mark.parametrize(
    "data",
    [None, True, 3, -1.5e300, "text", "", [], {}, [1], [[1, 2], [3]], [{}], {"": ""}, [None] * 3],
)
@pytest.mark.parametrize("form", ["pdf", "html", "markdown"])
def test_small_values_give_small_reports(context: RecordingContext, data: Any, form: str) -> None:
    assert generate(context, data, format=form)["sections"] == 1


@pytest.mark.parametrize(
    "data",
    [
        {"summary": {"rows": "many", "columns": 2}, "columns": []},
        {"summary": {"rows": 1, "columns": 1}, "columns": [{"name": 3}]},
        {"summary": None, "columns": None},
        {"results": {"summary": {}}},
    ],
)
def test_what_only_looks_like_an_analysis_is_laid_out_as_it_is(
    context: RecordingContext, data: Any
) -> None:
    assert generate(context, data, format="html")["title"] == "Report"


def test_results_with_inner_contradictions_do_not_break_the_report(
    context: RecordingContext, analyses: dict[str, Any]
) -> None:
    broken = json.loads(json.dumps(analyses["comprehensive"]))
    broken["correlations"]["matrix"] = [[1]]
    broken["scatter"]["points"] = [[1], ["a", "b"], []]
    broken["groups"][0]["measures"] = []
    broken["groups"][1]["measures"][0]["groups"] = []
    broken["columns"][2]["statistics"]["histogram"]["edges"] = [1]
    broken["columns"][0]["statistics"]["top"] = []
    broken["preview"]["rows"] = [[1], []]
    assert generate(context, broken)["sections"] >= 5


def test_each_mean_stands_under_its_own_group(context: RecordingContext) -> None:
    """Of `a` the group north has no value at all, of `b` the group west."""
    lines = ["place,a,b"]
    for n in range(10):
        lines += [f"north,,{n % 5}", f"south,{200 + n % 5},{20 + n % 5}", f"west,{300 + n % 5},"]
    (context.workspace.directory / "data.csv").write_text("\n".join(lines))
    analyse = sophia.component.actions["analyze_data"].function
    results = analyse("data.csv", "comprehensive", context=context)["results"]
    written = Path(generate(context, results, format="markdown")["report_file"]).read_text("utf-8")
    head, *means = re.findall(
        r"^\| (?:Mean of|a|b) \|[^%\n]*(?:Explained|%) \|$", written, re.MULTILINE
    )
    table = [dict(zip(head.split(" | "), row.split(" | "), strict=True)) for row in means]
    assert {row["| Mean of"]: (row["north"], row["south"], row["west"]) for row in table} == {
        "| a": ("–", "202", "302"),
        "| b": ("2", "22", "–"),
    }


def test_groups_that_a_table_of_means_leaves_out_are_told(
    context: RecordingContext, analyses: dict[str, Any]
) -> None:
    results = json.loads(json.dumps(analyses["comprehensive"]))
    groups = results["groups"][0]["measures"][0]["groups"]
    groups += [{**groups[0], "group": f"more{n}"} for n in range(5)]
    written = Path(generate(context, results, format="markdown")["report_file"]).read_text("utf-8")
    assert "Adelie | Chinstrap | Gentoo | more0 | more1 | more2 | Explained" in written
    assert "Shown are the first 6 of 8 groups." in written


def test_text_is_never_mark_up_or_template(context: RecordingContext) -> None:
    data = {
        HOSTILE: HOSTILE,
        "rows": [{HOSTILE: HOSTILE, "n": 1}, {HOSTILE: HOSTILE + "2", "n": 2}],
        "list": [HOSTILE, HOSTILE],
        "numbers": {HOSTILE: 1, "$\\frac$": 2},
    }
    html = generate(context, data, format="html", title=HOSTILE)
    seen = html_seen(html)
    assert "script" not in seen.tags
    assert HOSTILE in seen.text
    pdf = generate(context, data, title=HOSTILE)
    assert "{{7*7}}" in pdf_text(pdf)
    assert "<script>" in pdf_text(pdf)
    markdown = Path(generate(context, data, format="markdown", title=HOSTILE)["report_file"])
    rendered = MarkdownIt("commonmark").enable("table").render(markdown.read_text("utf-8"))
    assert "<script>" not in rendered
    assert "href" not in rendered
    assert "{{7*7}}" in rendered


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("0.7 %", "0.7 %"),
        ("2.5", "2.5"),
        ("5-3", "5-3"),
        ("12) twelve", "12\\) twelve"),
        ("1. one", "1\\. one"),
        ("1.", "1\\."),
        ("1.one", "1.one"),
        ("- one", "\\- one"),
        ("-5", "\\-5"),
        ("+ one", "\\+ one"),
        ("=====", "\\====="),
    ],
)
def test_only_what_would_be_mark_up_is_escaped_in_markdown(
    context: RecordingContext, text: str, written: str
) -> None:
    data = {"list": [text], "text": f"{text}\n{text}", "table": [{"a": text, text: "b"}]}
    file = generate(context, data, format="markdown", title=text)["report_file"]
    source = Path(file).read_text("utf-8")
    lines = source.splitlines()
    assert lines[0] == f"# {text}"
    assert f"- {written}" in lines
    assert lines.count(f"{written}  ") == 2
    assert f"| {text} | b |" in lines
    tokens = MarkdownIt("commonmark").enable("table").parse(source)
    lists = [token.type for token in tokens if token.type.endswith("list_open")]
    assert lists == ["bullet_list_open"]
    shown = [t.content for token in tokens for t in token.children or () if t.type == "text"]
    assert [part for part in shown if part.startswith(text[:1])] == [text] * 6


def test_all_scripts_and_half_characters_can_be_written(context: RecordingContext) -> None:
    data = {
        "names": ["Ærøskøbing Ελλάδα Москва 北京 東京 서울 😀 \ud800 \u202e \x07"],
        "x": {"北": 1, "y": 2},
    }
    for form in ("pdf", "html", "markdown"):
        generate(context, data, format=form)
    assert "Ελλάδα Москва" in pdf_text(generate(context, data))


LONG = "The quick brown fox jumps over the lazy dog. " * 20
DEEP: list[Any] = []
for _ in range(5_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "data",
    [
        [{"id": n, **{f"text{c}": LONG for c in range(6)}} for n in range(3)],
        [{"id": n, **{f"a_heading_of_many_words_{c}" * 3: "x" for c in range(7)}} for n in (1, 2)],
        {"log": {"stdout": "line\n" * 300, "stderr": ""}},
        [{"log": "line\n" * 300, "n": 1}],
        [{"text": "北" * 600, **{f"t{c}": LONG for c in range(7)}}],
        {"values": [1e15, 1e30, 10**400, -(10**400)], "a": 1e30, "b": 10**400},
        [{"size": 1e15, "name": "a"}, {"size": 1e30, "name": "b"}, {"size": 1e299, "name": "c"}],
        [{}] * 150 + [{"a": 1}],
        {"\ud800": ["\ud800"], "x": {"\ud800": 1, "y": 2}, "z": [{"\ud800": "\ud800", "n": 1}] * 2},
        {"deep": DEEP, "rows": [{"deep": DEEP}]},
        [{"k" * 5_000: 1, "l" * 5_000: "a"}, {"k" * 5_000: 2, "l" * 5_000: "b"}],
    ],
    ids=[
        *("long-texts", "long-headings", "lines-in-object", "lines-in-table", "wide-letters"),
        *("huge-numbers", "huge-bars", "first-rows-empty", "surrogates", "deep", "long-keys"),
    ],
)
@pytest.mark.parametrize("form", ["pdf", "html", "markdown"])
def test_ordinary_and_odd_data_fits_into_a_report(
    context: RecordingContext, data: Any, form: str
) -> None:
    output = generate(context, data, format=form)
    if form == "pdf":
        assert len(PdfReader(output["report_file"]).pages) < 20


def test_a_cell_that_is_cut_says_so(context: RecordingContext) -> None:
    text = pdf_text(generate(context, [{"id": 7, "log": "line\n" * 300, "more": LONG}]))
    assert re.search(r"line line …", text)
    assert "quick brown fox" in text


def test_a_heading_stays_with_the_start_of_its_table(context: RecordingContext) -> None:
    """Tables of high rows go over pages, however much of a page is left for their start."""
    data = {}
    for n in range(9):
        data[f"before {n}"] = LONG[: 100 * n]
        data[f"part {n}"] = [{"log": f"first {n}\n" + "line\n" * 28}, {"log": "line\n" * 30}]
    pages = PdfReader(generate(context, data)["report_file"]).pages
    texts = [page.extract_text() for page in pages]
    for n in range(9):
        assert [f"first {n}" in text for text in texts] == [f"Part {n}" in text for text in texts]


def test_huge_numbers_are_written_short(
    context: RecordingContext, analyses: dict[str, Any]
) -> None:
    results = json.loads(json.dumps(analyses["comprehensive"]))
    results["columns"][2]["statistics"]["max"] = 1e30
    results["columns"][2]["statistics"]["min"] = -(10**15)
    results["outliers"][0]["high"] = 1.5e200
    text = pdf_text(generate(context, results))
    assert "1e+30" in text
    assert "−1e+15" in text
    assert "1.5e+200" in text
    text = pdf_text(generate(context, {"n": [1, "x"], "huge": 10**400, "less": -(10**20)}))
    assert "1e+400" in text
    assert "-1e+20" in text


@pytest.mark.parametrize("form", ["pdf", "html", "markdown"])
def test_the_analysis_of_a_table_without_columns_makes_a_report(
    context: RecordingContext, form: str
) -> None:
    (context.workspace.directory / "data.json").write_text("[{}, {}]")
    analyse = sophia.component.actions["analyze_data"].function
    results = analyse("data.json", "comprehensive", context=context)["results"]
    assert generate(context, results, format=form)["title"] == "Report on data"


def test_large_data_is_cut_and_said_to_be(context: RecordingContext) -> None:
    data = {
        "rows": [{f"c{n}": n * r for n in range(30)} for r in range(2000)],
        "text": "word " * 200_000,
        "list": ["item"] * 5000,
        "table": {f"k{n}": f"v{n}" for n in range(5000)},
        "cell": [{"a": "line\n" * 5000}],
        **{f"more{n}": [n] for n in range(100)},
    }
    output = generate(context, data)
    text = pdf_text(output)
    assert "the first 100 of 2,000 rows and the first 8 of 30 columns" in text
    assert "Only the first 100 of 5,000 items are shown." in text
    assert "more members are left out" in text
    assert len(PdfReader(output["report_file"]).pages) < 60


def test_the_file_goes_where_it_is_told_and_nowhere_else(
    context: RecordingContext, tmp_path: Path
) -> None:
    output = generate(context, "x", output_file="deep/er/report.pdf")
    assert output["report_file"] == str(tmp_path / "deep" / "er" / "report.pdf")
    for path in ("../report.pdf", "/etc/report.pdf", "a\0.pdf", "/dev/null"):
        with pytest.raises(ActionError) as error:
            generate(context, "x", output_file=path)
        assert error.value.code == "PATH_NOT_ALLOWED"


@pytest.mark.parametrize("name", ["nf.core:ALIGN (a/b)", "../../x", "...", "x" * 500])
def test_any_task_name_gives_a_file_name(tmp_path: Path, name: str) -> None:
    output = generate(context_in(tmp_path, task_name=name), "x")
    assert Path(output["report_file"]).parent == tmp_path


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"format": "docx"}, "format: Input should be 'pdf', 'html' or 'markdown'"),
        ({"template": "novel"}, "template: Input should be"),
        ({"title": ""}, "title"),
        ({"dat": 1}, "did you mean 'data'"),
    ],
)
def test_bad_input_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ActionError, match=re.escape(says)):
        ACTION.parse({"data": 1, **given})


def test_a_cancelled_report_stops(context: RecordingContext) -> None:
    context.cancel()
    with pytest.raises(ActionError) as error:
        ACTION.function("x", context=context)
    assert error.value.code == "CANCELLED"
    assert list(context.workspace.directory.iterdir()) == []


def test_progress_only_grows_and_ends_at_one(
    context: RecordingContext, analyses: dict[str, Any]
) -> None:
    generate(context, analyses["detailed"], format="markdown")
    fractions = [fraction for fraction, _ in context.reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
