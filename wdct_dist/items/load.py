"""Item files, read one record at a time: WDCT CSV, JSONL, Parquet and Arrow.

The only file that knows the columns of the public test: `Type`, `id`, `speak` (the word question: its stem, then one line
an option, `A. text`), `act` (the deed question, likewise) and `correct_answer` (a label, or empty). A file may add
translations in columns such as `speak_zh` and `act_zh`; other columns are not read.

CSV and JSONL need nothing but the standard library; pyarrow is imported for the other two.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, AnyStr

from wdct_dist.cache import cache_root
from wdct_dist.errors import DataError, WdctError
from wdct_dist.items.fetch import WDCT_CSV
from wdct_dist.items.record import Record, RecordReader, is_language, option_of_label, read_record, shown, unreadable
from wdct_dist.items.types import Side

BUNDLED = Path(__file__).parent / "data" / "bundled.jsonl"
"""The items that come with the package."""

TABLE_SUFFIXES = (".parquet", ".arrow", ".feather", ".ipc")
SUFFIXES = (".csv", ".jsonl", *TABLE_SUFFIXES)

_COLUMN_OF_SIDE: tuple[tuple[Side, str], ...] = (("word", "speak"), ("deed", "act"))
_REQUIRED_COLUMNS = ("Type", "id", "speak", "act")

# White space after the point is part of the form: a stem's last line may begin with `U.S. law`.
_OPTION_LINE = re.compile(r"([A-Z])\.(?:\s+(.*))?")
_LINE_END = re.compile(r"\r\n|\r|\n")

_LONGEST_LINE = 1 << 24
"""Characters or bytes of a line. The longest of the public test is under 2,000; a longer one is a file of another kind."""
_ROWS_AT_ONCE = 256
"""Rows of a table that are Python objects at one time."""


def locate(path_setting: str) -> Path:
    """The file that `data.path` means: `bundled`, `wdct` (once fetched, its hash checked again), or a path.

    Raises DataError where there is no such file, or where its suffix is not one that is read.
    """
    if path_setting == "bundled":
        if not BUNDLED.is_file():
            raise WdctError(f"The bundled items are not at {BUNDLED}: the installation is not whole; install wdct_dist again.")
        return BUNDLED
    if path_setting == "wdct":
        path = cache_root() / WDCT_CSV.name
        if not path.is_file():
            raise DataError(f"data.path is wdct, and {path} is not there; run `wdct fetch wdct` once, where there is a network.")
        if not WDCT_CSV.is_at(path):
            raise DataError(f"{path} is not the published file (its SHA-256 differs); run `wdct fetch wdct` again.")
        return path
    path = Path(path_setting).expanduser()
    allowed = f"an item file ({', '.join(SUFFIXES)}), `bundled` or `wdct`"
    if not path.exists():
        looked = f" (looked for {shown(str(path.absolute()), None)})" if not path.is_absolute() else ""
        raise DataError(f"There is no item file {shown(path_setting, None)}{looked}; data.path is {allowed}.")
    if not path.is_file():
        raise DataError(f"{shown(path_setting, None)} is not a file; data.path is {allowed}.")
    if path.suffix.lower() not in SUFFIXES:
        came = f"has the suffix `{path.suffix}`" if path.suffix else "has no suffix"
        raise DataError(f"{shown(path_setting, None)} {came}, so its format is not known; data.path is {allowed}.")
    return path


def position_word(path: Path) -> str:
    """What `Record.position` counts in this file: "line" or "row"."""
    return "row" if path.suffix.lower() in TABLE_SUFFIXES else "line"


def read_records(path: Path) -> Iterator[Record]:
    """The records of an item file, in file order, one in memory at a time.

    What is wrong with one record is in that record. Raises DataError where the file as a whole cannot be read: it is not
    there, not of the format that its suffix says, or lacks a column.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".csv":
            yield from _csv_records(path)
        elif suffix == ".jsonl":
            yield from _jsonl_records(path)
        elif suffix in TABLE_SUFFIXES:
            yield from _table_records(path)
        else:
            raise DataError(f"{path} is not an item file; a suffix that is read is one of {', '.join(SUFFIXES)}.")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def _csv_records(path: Path) -> Iterator[Record]:
    # Bytes that are not UTF-8 become lone surrogates here, so that only their own record is lost.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        rows = csv.reader(_lines(stream, path), strict=True)
        try:
            whole = [column.strip() for column in next(rows, [])]
        except csv.Error as error:
            raise DataError(f"{path}: the first line is not CSV: {error}.") from None
        header = _without_blank_end(whole)
        _check_columns(path, header)
        while True:
            position = rows.line_num + 1
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield unreadable(position, f"not CSV: {error} (a quote that is not closed, or not doubled?)")
                continue
            if not any(cell.strip() for cell in cells):  # spreadsheets end with rows of nothing but commas
                continue
            if len(cells) == len(whole):
                cells = [*cells[: len(header)], *_without_blank_end(cells[len(header) :])]
            if len(cells) == len(header):
                yield _wdct_record(position, dict(zip(header, cells, strict=True)))
            else:
                yield unreadable(position, f"has {len(cells)} columns; the first line has {len(header)}")


def _without_blank_end(cells: list[str]) -> list[str]:
    """Return the cells without the blank ones at the end: spreadsheets write columns that have neither a name nor a value."""
    end = next((number for number in range(len(cells), 0, -1) if cells[number - 1].strip()), 0)
    return cells[:end]


def _jsonl_records(path: Path) -> Iterator[Record]:
    with path.open("rb") as stream:
        for position, line in enumerate(_lines(stream, path), start=1):
            if position == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                raw = json.loads(line.decode("utf-8").rstrip())
            except UnicodeDecodeError as error:
                came = f"byte {error.start} of the line is not UTF-8: {line[error.start]:#04x}"
                yield unreadable(position, came, "encoding")
            except (ValueError, RecursionError) as error:
                said = f"{error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else error
                yield unreadable(position, f"not JSON: {said} (a .jsonl file has one whole object on each line)")
            else:
                yield read_record(position, raw)


def _table_records(path: Path) -> Iterator[Record]:
    import pyarrow as pa

    position = 0
    try:
        for batch in _table_batches(path):
            if position == 0:
                nested = "word" in batch.schema.names
                if not nested and "speak" not in batch.schema.names:
                    came = shown(", ".join(batch.schema.names), None)
                    raise DataError(f"{path} has the columns {came}; it must have item_id, domain, word, deed or {_wdct_columns()}.")
                if not nested:
                    _check_columns(path, batch.schema.names)
            for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
                for row in _rows(batch.slice(start, _ROWS_AT_ONCE)):
                    position += 1
                    if isinstance(row, UnicodeDecodeError):
                        yield unreadable(position, f"a text is not UTF-8: {row.reason}", "encoding")
                    else:
                        yield read_record(position, row) if nested else _wdct_record(position, row)
    except pa.ArrowException as error:
        said = shown(str(error).partition("\n")[0], 200)
        raise DataError(f"{path} cannot be read as {path.suffix.lower()[1:]}: {said}.") from None


def _table_batches(path: Path) -> Iterator[Any]:
    """The record batches of a Parquet file, or of an Arrow IPC file or stream (Feather is an IPC file)."""
    import pyarrow as pa

    if path.suffix.lower() == ".parquet":
        from pyarrow import parquet

        with parquet.ParquetFile(path) as table:
            yield from table.iter_batches(batch_size=_ROWS_AT_ONCE, use_threads=False)
        return
    with pa.memory_map(str(path)) as source:
        try:
            file = pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            yield from pa.ipc.open_stream(source)
        else:
            for index in range(file.num_record_batches):
                yield file.get_batch(index)


def _rows(batch: Any) -> Iterator[Any]:
    """The rows of a batch as mappings; in the place of one whose bytes are not UTF-8, the error."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            try:
                yield from batch.slice(index, 1).to_pylist()
            except UnicodeDecodeError as error:
                yield error


def _check_columns(path: Path, columns: list[str]) -> None:
    lacking = [column for column in _REQUIRED_COLUMNS if column not in columns]
    if lacking:
        if not columns:
            raise DataError(f"{path} is empty; its first line must name the columns {_wdct_columns()}.")
        came = shown(", ".join(columns), 200)
        raise DataError(
            f"{path} lacks the column{'s' * (len(lacking) > 1)} {', '.join(lacking)}; it has: {came}. {_otherwise_written(columns)}"
            f"It must have {_wdct_columns()}, separated by commas, in UTF-8."
        )
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise DataError(f"{path} has the column {shown(repeated[0])!r} more than once; name each column once.")


def _otherwise_written(columns: list[str]) -> str:
    """A sentence on what spreadsheets make of a CSV, where the names of its columns look like that."""
    if columns[0].startswith(("\udcff\udcfe", "\udcfe\udcff")):
        return "It is in UTF-16; save it as UTF-8. "
    apart = next((name for name, mark in (("semicolons", ";"), ("tabs", "\t")) if len(columns) == 1 and mark in columns[0]), None)
    if apart is not None:
        return f"It is separated by {apart}. "
    lower = {column.lower() for column in columns}
    return "Capitals count. " if all(column.lower() in lower for column in _REQUIRED_COLUMNS) else ""


def _wdct_columns() -> str:
    return f"{', '.join(_REQUIRED_COLUMNS)} and, if there are right answers, correct_answer"


def _wdct_record(position: int, row: Mapping[str, Any]) -> Record:
    """The record of one row of the public test's columns: brought to the plain form, then read like any other."""
    labels = RecordReader()
    translations: dict[str, dict[Side, Any]] = {}
    plain: dict[str, Any] = {
        "item_id": row["id"],
        "domain": row["Type"],
        "correct_answer": row.get("correct_answer"),
        "translations": translations,
    }
    for side, column in _COLUMN_OF_SIDE:
        plain[side] = _plain_side(labels, row[column], side, "the question")
        for name, value in row.items():
            language = name.removeprefix(f"{column}_")
            given = value is not None and not (isinstance(value, str) and not value.strip())
            # a column such as `act_id` is a translation only if the other side has one in the same language
            is_translation = all(f"{other}_{language}" in row for _, other in _COLUMN_OF_SIDE)
            if given and language != name and is_language(language) and is_translation:
                translated = _plain_side(labels, value, side, f"the {language} translation")
                translations.setdefault(language, {})[side] = translated
    record = read_record(position, plain)
    return replace(record, faults=record.faults + tuple(labels.faults))


def _plain_side(labels: RecordReader, value: object, side: Side, where: str) -> dict[str, Any] | None:
    """Stem and options of a cell; the options are its last lines, as many as begin with a label."""
    if value is None:
        return None
    if not isinstance(value, str):
        return {"question": value, "options": []}
    stem, options = split_options(value)
    if not all(option_of_label(label) == index for index, (label, _) in enumerate(options)):
        came = ", ".join(label for label, _ in options)
        labels.fault(side, f"labels of {where} are {came}; they must be A, B and so on, each once", "label-order")
    return {"question": stem, "options": [text for _, text in options]}


def split_options(value: str) -> tuple[str, list[tuple[str, str]]]:
    """The stem of a question as the public test writes it, and its options as (label, text): its last lines that have a label."""
    lines = _LINE_END.split(value.strip())
    options: list[tuple[str, str]] = []
    while lines:
        match = _OPTION_LINE.fullmatch(lines[-1].strip())
        if match:
            options.insert(0, (match[1], match[2] or ""))
        elif lines[-1].strip():
            break
        lines.pop()
    return "\n".join(lines), options


def _lines(stream: IO[AnyStr], path: Path) -> Iterator[AnyStr]:
    while line := stream.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise DataError(
                f"{path} has a line of more than {_LONGEST_LINE >> 20} MiB; an item file has one item on a line (.jsonl) "
                "or one row an item (.csv)."
            )
        yield line
