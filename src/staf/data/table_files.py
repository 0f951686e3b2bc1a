"""Rows of one file of a table, one at a time, by the ending of its name: CSV, TSV, JSON, Parquet or an Excel workbook.

A CSV, TSV or JSON file may be gzipped. A bad row is named by file and line, never by its text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from staf.data.archives import sheet_rows
from staf.data.json_files import json_items, json_lines
from staf.data.read_report import ReadReport
from staf.data.sources import csv_rows, opened, parsed_rows
from staf.errors import BadData, ConfigError, MissingData

BATCH = 1_000
"""Rows of a Parquet file in memory at a time."""
START = 1 << 16
"""Bytes of a file that say how it is written."""

SUFFIXES = {
    ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".xlsx": "xlsx"
}  # fmt: skip
"""Format of a table by the ending of its name."""

Row = tuple[str, dict[str, Any]]
"""Place ('FILE, line N') and values by column."""


def _ending(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def is_table(path: Path) -> bool:
    """Whether the ending of a name is that of a table."""
    return _ending(path) in SUFFIXES


def table_format(path: Path) -> str:
    """The format of a table by the ending of its name: csv, json, parquet or xlsx; raises ConfigError for another one."""
    if not is_table(path):
        raise ConfigError(
            f"{path}: the name of a table ends in {', '.join(SUFFIXES)} (or .gz after it), which says its format."
        )
    return SUFFIXES[_ending(path)]


def table_rows(path: Path, report: ReadReport, file_format: str | None = None) -> Iterator[Row]:
    """Rows of a file, each with where it stands; of a workbook those of the first sheet, formulas as their last values.

    Raises:
        MissingData: no such file. ConfigError: another ending. BadData: the file is damaged or of another format, or a row
            does not fit and is not to be skipped.
    """
    file_format = file_format or table_format(path)
    if not path.is_file():
        raise MissingData(f"no file {path}. Check the path.")
    if file_format == "csv":
        yield from _csv_rows(path, report)
    elif file_format == "parquet":
        yield from _parquet_rows(path)
    elif file_format == "xlsx":
        yield from sheet_rows(path, report, None, ())
    elif _start(path).startswith("["):
        for place, item in json_items(path, report):
            if isinstance(item, dict):
                yield place, item
            else:
                report.reject(BadData(f"{place}: a JSON object is expected, found {type(item).__name__}."), item)
    else:
        yield from json_lines(path, report)


def delimiter_of(path: Path, first: str) -> str:
    """What separates the cells of a CSV file with this first line."""
    tabs = path.name.lower().removesuffix(".gz").endswith(".tsv")
    return "\t" if tabs else next((mark for mark in ",\t;" if mark in first), ",")


def _csv_rows(path: Path, report: ReadReport) -> Iterator[Row]:
    delimiter = delimiter_of(path, _start(path).partition("\n")[0])
    _, names, _, _ = next(parsed_rows(path, (), delimiter), (1, [], "", ""))
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise BadData(f"{path}: column '{twice[0]}' occurs twice in the first row. Give each its own name.")
    yield from csv_rows(path, report, (), delimiter=delimiter)


def _start(path: Path) -> str:
    with opened(path) as stream:
        return stream.read(START).decode("utf-8-sig", "replace").lstrip("\r\n ")


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(BATCH):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except (OSError, ValueError) as error:
        raise BadData(f"{path} is not a Parquet file ({type(error).__name__}). Write it again.") from error
