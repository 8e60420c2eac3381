"""Each value of a CSV file stands under its own heading, or the file is refused."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmonia_actors.components.analysis.tables import read_table
from harmonia_actors.components.contract import ActionError

#: Never empty, a number or a date, nor one of the words that mean "missing".
values = st.text("abcd", min_size=1, max_size=3)
rows_of = st.lists(st.tuples(st.lists(values, min_size=1, max_size=5), st.integers(0, 3)))


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    # A header of one column holds no separator that could be told from it.
    st.just((1, ",")) | st.tuples(st.integers(2, 4), st.sampled_from(",;\t|")),
    rows_of,
    st.sampled_from(["utf-8", "utf-16"]),
)
def test_no_value_gets_lost_or_under_another_heading(
    tmp_path: Path,
    shape: tuple[int, str],
    rows: list[tuple[list[str], int]],
    encoding: str,
) -> None:
    width, separator = shape
    head = [f"column{number}" for number in range(width)]
    lines = [separator.join(cells) + separator * empty for cells, empty in rows]
    file = tmp_path / "data.csv"
    file.write_text("\n".join([separator.join(head), *lines]) + "\n", encoding=encoding)
    too_long = [line for line, (cells, _) in enumerate(rows, start=2) if len(cells) > width]
    try:
        with file.open("rb") as opened:
            frame, _ = read_table(opened, file.name, "csv")
    except ActionError as error:
        assert error.code == "UNREADABLE_DATA"
        assert f"line {too_long[0]} has" in error.message
        return
    assert not too_long
    assert list(frame.columns) == head
    assert [list(frame.iloc[at].dropna()) for at in range(len(frame))] == [c for c, _ in rows]
