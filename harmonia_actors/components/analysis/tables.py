"""Reading CSV, JSON and Parquet into a table, with every failure told as an ActionError.

This module must not know where files may lie: it is given an open file.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import os
import re
from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypedDict

from harmonia_actors.components.contract import ActionError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CELLS_MAX", "FILE_BYTES_MAX", "TableFormat", "read_table"]

TableFormat = Literal["csv", "json", "parquet"]

#: Largest file that is read.
FILE_BYTES_MAX = 512_000_000
#: Rows times columns of a table: about 8 bytes each in memory, text more.
CELLS_MAX = 100_000_000
#: Bytes looked at to tell format, encoding and separator.
_HEAD_BYTES = 65_536

_BY_SUFFIX: dict[str, TableFormat] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_DATE_FORMATS = ("ISO8601", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d")
_DATE_SAMPLE = 200
#: UTF-32 before UTF-16: the mark of the one begins with the mark of the other.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


def read_table(
    opened: BinaryIO, name: str, wanted: TableFormat | None
) -> tuple[pd.DataFrame, TableFormat]:
    """The table in an open file, and the format it had. Closes nothing.

    Raises ActionError: EMPTY_DATA, DATA_TOO_LARGE or UNREADABLE_DATA.
    """
    size = os.fstat(opened.fileno()).st_size
    if size > FILE_BYTES_MAX:
        raise _refused(
            name, "DATA_TOO_LARGE", f"it has {size:,} bytes; at most {FILE_BYTES_MAX:,} are read"
        )
    head = opened.read(_HEAD_BYTES)
    opened.seek(0)
    if not head.strip():
        raise _refused(name, "EMPTY_DATA", "the file is empty")
    found = wanted or _format_of(name, head)
    try:
        frame = {"csv": _read_csv, "json": _read_json, "parquet": _read_parquet}[found](
            opened, name, head
        )
    except ActionError:
        raise
    except (ValueError, ArithmeticError, LookupError, TypeError, RuntimeError, OSError) as error:
        reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        raise _refused(name, "UNREADABLE_DATA", f"not readable as {found}: {reason}") from None
    _check_size(name, len(frame), len(frame.columns))
    frame.columns = _distinct(
        [str(column).encode("utf-8", "replace").decode() for column in frame.columns]
    )
    return _with_dates(frame), found


def _format_of(name: str, head: bytes) -> TableFormat:
    if head.startswith(b"PAR1"):
        return "parquet"
    by_suffix = _BY_SUFFIX.get(PurePosixPath(name).suffix.lower())
    if by_suffix is not None:
        return by_suffix
    return "json" if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[") else "csv"


class _CsvOptions(TypedDict):
    """Options of pandas' reader, the same for each look at a file."""

    sep: str
    encoding: str
    encoding_errors: Literal["replace"]
    low_memory: Literal[False]
    index_col: Literal[False]


def _read_csv(opened: BinaryIO, name: str, head: bytes) -> pd.DataFrame:
    import pandas as pd

    encoding = _encoding(opened, head)
    text = head.decode(encoding, "replace")
    _refuse_other_content(name, text)
    options: _CsvOptions = {
        "sep": _separator(text),
        "encoding": encoding,
        "encoding_errors": "replace",
        "low_memory": False,
        "index_col": False,
    }
    try:
        # Of a first row that is longer than the header, pandas would lose the end without a word;
        # without a header it refuses it, as it does every later row that is too long.
        pd.read_csv(opened, header=None, nrows=2, **options)
        opened.seek(0)
        return pd.read_csv(opened, **options)
    except pd.errors.EmptyDataError:
        raise _refused(name, "EMPTY_DATA", "the file has no columns") from None
    except pd.errors.ParserError as error:
        return _read_uneven(opened, name, options, error)


def _read_uneven(
    opened: BinaryIO, name: str, options: _CsvOptions, refusal: ValueError
) -> pd.DataFrame:
    """A table some of whose rows are longer than the header, if they only end in separators."""
    import pandas as pd

    opened.seek(0)
    width = len(pd.read_csv(opened, header=None, nrows=1, **options).columns)
    opened.seek(0)
    text = io.TextIOWrapper(opened, options["encoding"], "replace", newline="")
    reader = csv.reader(text, delimiter=options["sep"])
    longest = width
    try:
        for row in reader:
            longest = max(longest, len(row))
            if any(cell.strip() for cell in row[width:]):
                why = (
                    f"line {reader.line_num} has {len(row)} fields, but the header has {width}; "
                    f"name each column in the first line, and quote values that hold "
                    f"{options['sep']!r}"
                )
                raise _refused(name, "UNREADABLE_DATA", why)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None
    finally:
        text.detach()
        opened.seek(0)
    if longest == width:
        raise refusal
    return pd.read_csv(opened, usecols=range(width), **options)


def _refuse_other_content(name: str, text: str) -> None:
    start = text.lstrip()[:100].lower()
    if start.startswith(("<!doctype", "<html", "<?xml")):
        raise _refused(
            name,
            "UNREADABLE_DATA",
            "it is an HTML or XML page, not data; was an error page downloaded? "
            "(curl --fail ends in an error then)",
        )
    if "\0" in text:
        raise _refused(name, "UNREADABLE_DATA", "it holds NUL bytes, so it is no text")


def _encoding(opened: BinaryIO, head: bytes) -> str:
    """What the file's mark says; else UTF-8 unless it cannot be that; else cp1252.

    ASCII says nothing, so the file is read on until there is something else.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    decoder = codecs.getincrementaldecoder("utf-8")()
    block = head
    opened.seek(len(head))
    try:
        while decoder.decode(block, final=not block).isascii() and block:
            block = opened.read(_HEAD_BYTES)
    except UnicodeDecodeError:
        return "cp1252"
    finally:
        opened.seek(0)
    return "utf-8-sig"


def _separator(text: str) -> str:
    lines = text.splitlines()[:50]
    # The last line of the head may be cut.
    sample = "\n".join(lines[:-1] if len(lines) > 2 else lines)
    with contextlib.suppress(csv.Error):
        return csv.Sniffer().sniff(sample, delimiters=",;\t|").delimiter
    first = lines[0] if lines else ""
    return max(",;\t|", key=first.count)


def _read_json(opened: BinaryIO, name: str, head: bytes) -> pd.DataFrame:
    import pandas as pd

    text = opened.read().decode(_encoding(opened, head))
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        value = _json_lines(text, error)
    if _HALF_CHARACTER.search(text):
        # Half of a surrogate pair is no text that anything else could take.
        whole = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        value = json.loads(whole)
    records = _records(value)
    if records is None:
        raise _refused(
            name,
            "UNREADABLE_DATA",
            "the JSON is no table: expected an array of objects, an object of arrays, "
            "or one object a line",
        )
    if isinstance(records, dict):
        return pd.DataFrame(records)
    return pd.json_normalize(records, max_level=3)


def _json_lines(text: str, error: json.JSONDecodeError) -> list[Any]:
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2:
        raise error
    return [json.loads(line) for line in lines]


def _records(value: Any) -> list[dict[str, Any]] | dict[str, list[Any]] | None:
    """The rows or columns in a JSON value; for an object, also one level down."""
    if isinstance(value, list):
        return _rows(value)
    if not isinstance(value, dict):
        return None
    if _are_columns(list(value.values())):
        return value
    for member in value.values():
        if isinstance(member, list) and member and all(isinstance(i, dict) for i in member):
            return member
    return [value] if value else None


def _rows(items: list[Any]) -> list[dict[str, Any]] | dict[str, list[Any]] | None:
    if items and all(isinstance(item, dict) for item in items):
        return items
    if items and not any(isinstance(item, (dict, list)) for item in items):
        return {"value": items}
    return None


def _are_columns(members: list[Any]) -> bool:
    if not members or not all(isinstance(member, list) for member in members):
        return False
    nested = any(isinstance(item, (dict, list)) for member in members for item in member)
    return not nested and len({len(member) for member in members}) == 1


def _read_parquet(opened: BinaryIO, name: str, _head: bytes) -> pd.DataFrame:
    from pyarrow import parquet

    # The file says in its footer how large it gets; compressed, that may be a thousandfold.
    file = parquet.ParquetFile(opened)
    _check_size(name, file.metadata.num_rows, file.metadata.num_columns)
    groups = (file.metadata.row_group(index) for index in range(file.metadata.num_row_groups))
    if sum(group.total_byte_size for group in groups) > 4 * FILE_BYTES_MAX:
        raise _refused(name, "DATA_TOO_LARGE", "it is too large when uncompressed")
    frame: pd.DataFrame = _measurable(file.read()).to_pandas(date_as_object=False)
    return _with_index(frame)


def _measurable(table: Any) -> Any:
    """The table with numbers for decimals, and plain values for those of a dictionary."""
    import pyarrow as pa

    for position, field in enumerate(table.schema):
        column = table.column(position)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        if column.type != field.type:
            table = table.set_column(position, field.name, column)
    return table


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """The index as columns, unless it only numbers the rows."""
    import pandas as pd

    index = frame.index
    counts = index.nlevels == 1 and pd.api.types.is_integer_dtype(index)
    if index.name is None and counts:
        return frame.reset_index(drop=True)
    return frame.reset_index(allow_duplicates=True)


def _check_size(name: str, rows: int, columns: int) -> None:
    if rows * columns > CELLS_MAX:
        raise _refused(
            name,
            "DATA_TOO_LARGE",
            f"it has {rows:,} rows and {columns:,} columns; at most {CELLS_MAX:,} cells are read",
        )


def _distinct(names: list[str]) -> list[str]:
    """The names, with a number after those that others before them have: a, a.1."""
    given = set(names)
    taken: dict[str, None] = {}
    repeats: Counter[str] = Counter()
    for name in names:
        chosen = name
        while chosen in taken or (chosen != name and chosen in given):
            repeats[name] += 1
            chosen = f"{name}.{repeats[name]}"
        taken[chosen] = None
    return list(taken)


def _with_dates(frame: pd.DataFrame) -> pd.DataFrame:
    """Text columns that hold dates throughout become date columns."""
    import pandas as pd

    for position in range(len(frame.columns)):
        values = frame.iloc[:, position]
        if not isinstance(values.dtype, pd.StringDtype):
            continue
        sample = values.dropna().head(_DATE_SAMPLE)
        if sample.empty or not sample.str.fullmatch(r"\d{1,4}[-/.]\d\d?[-/.]\d{1,4}.*").all():
            continue
        for form in _DATE_FORMATS:
            if pd.to_datetime(sample, format=form, errors="coerce", utc=True).isna().any():
                continue
            dates = pd.to_datetime(values, format=form, errors="coerce", utc=True)
            if dates.isna().sum() == values.isna().sum():
                frame.isetitem(position, dates.dt.tz_localize(None).array)
                break
    return frame


def _refused(name: str, code: str, why: str) -> ActionError:
    return ActionError(
        f"cannot analyse '{name}': {why}", code=code, details={"file": name}, retriable=False
    )
