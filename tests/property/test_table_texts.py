"""Text in a file is read as it was written, in any script and wherever the file's head ends."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmonia_actors.components.analysis.tables import read_table

#: What is looked at first of a file: characters must not be cut at its end.
HEAD_BYTES = 65_536
#: Letters of one to four bytes in UTF-8.
SCRIPTS = (
    *("abcxyz", "éàõüßÆø", "ΑθήναΕλλάδα", "Москва", "ירושלים", "القاهرة", "दिल्ली", "กรุงเทพ"),
    *("名前北京東京", "서울부산", "ሰላም", "😀🎉𝔘𝒳"),
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")
#: Each is no UTF-8 before another of them and before ASCII.
WESTERN = "éàõüßñ"

words = st.sampled_from(SCRIPTS).flatmap(lambda script: st.text(script, min_size=1, max_size=12))
#: Bytes before the text: none, and so many that it lies across the head's end, or beyond it.
paddings = st.just(0) | st.integers(HEAD_BYTES - 60, HEAD_BYTES + 8) | st.just(3 * HEAD_BYTES)
each_in_one_directory = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def names_in(tmp_path: Path, content: bytes, suffix: str) -> list[str]:
    """What the column `name` holds of a file with this content."""
    file = tmp_path / f"data{suffix}"
    file.write_bytes(content)
    with file.open("rb") as opened:
        frame, _ = read_table(opened, file.name, None)
    return list(frame["name"])


def lines_of(padding: int, names: list[str]) -> str:
    """A table of one column: a filler first, so that the names begin after `padding` bytes."""
    filler = "x" * max(1, padding - len("name\n\n"))
    return "\n".join(["name", filler, *names]) + "\n"


@each_in_one_directory
@given(st.lists(words, min_size=1, max_size=6), paddings, st.sampled_from(ENCODINGS))
def test_csv_in_any_script_is_read_as_it_was_written(
    tmp_path: Path, names: list[str], padding: int, encoding: str
) -> None:
    content = lines_of(padding, names).encode(encoding)
    assert names_in(tmp_path, content, ".csv")[1:] == names


@each_in_one_directory
@given(st.lists(words, min_size=1, max_size=6), paddings, st.sampled_from(ENCODINGS))
def test_json_in_any_script_is_read_as_it_was_written(
    tmp_path: Path, names: list[str], padding: int, encoding: str
) -> None:
    rows = [{"name": name} for name in ("x" * padding, *names)]
    content = json.dumps(rows, ensure_ascii=False).encode(encoding)
    assert names_in(tmp_path, content, ".json")[1:] == names


@each_in_one_directory
@given(st.lists(st.text(WESTERN, min_size=1, max_size=5), min_size=1, max_size=6), paddings)
def test_files_of_old_windows_programs_are_read_too(
    tmp_path: Path, names: list[str], padding: int
) -> None:
    content = lines_of(padding, names).encode("cp1252")
    assert names_in(tmp_path, content, ".csv")[1:] == names
