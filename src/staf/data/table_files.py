"""Rows of one file of a table, one at a time, by the ending of its name: CSV, TSV, JSON, Parquet or an Excel workbook.

A CSV, TSV or JSON file may be gzipped. A bad row is named by file and line, never by its text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from staf.data.archives import sheet_rows
from staf.data.json_files import json_items, json_lines
from staf.data.local import delimiter_of, table_format
from staf.data.read_report import ReadReport
from staf.data.sources import csv_rows, opened
from staf.errors import BadData, MissingData

BATCH = 1_000
"""Rows of a Parquet file in memory at a time."""
START = 1 << 16
"""Bytes of a file that say how it is written."""

Row = tuple[str, dict[str, Any]]
"""Place ('FILE, line N') and values by column."""


def table_rows(path: Path, report: ReadReport) -> Iterator[Row]:
    """Rows of a file, each with where it stands; of a workbook those of the first sheet, formulas as their last values.

    Raises:
        MissingData: no such file. ConfigError: another ending. BadData: the file is damaged or of another format, or a row
            does not fit and is not to be skipped.
    """
    file_format = table_format(path)
    if not path.is_file():
        raise MissingData(f"no file {path}. Check the path.")
    if file_format == "csv":
        yield from csv_rows(path, report, (), delimiter=delimiter_of(path, _start(path).partition("\n")[0]))
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
