"""Excel workbooks (.xlsx), row by row under the names of the first row; the file is checked before it is opened."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from staf.data.formats.archives import check_zip
from staf.errors import BadData

MOST_ROWS = 1 << 20
"""Rows that a sheet of a workbook can have; a number beyond it would make openpyxl give empty rows without end."""

_DAMAGE = (BadZipFile, zlib.error, SyntaxError, LookupError, ValueError, TypeError, AttributeError, EOFError, OSError)
"""What openpyxl and the XML parsers below it raise at parts that are cut short, missing or of another format."""


def sheet_rows(path: Path, sheet: str, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a sheet as (place, values by column); empty rows and columns without a name are passed over.

    Args:
        path: of the workbook.
        sheet: its name.
        columns: names that must be in the first row; others may be there, in any order.

    Raises:
        BadData: the file is damaged or no workbook, unpacks beyond all proportion, has no such sheet or lacks a column.
    """
    check_zip(path)
    values = _values(path, sheet)
    names = [str(value).strip() if value is not None else "" for value in next(values, ())]
    if missing := [column for column in columns if column not in names]:
        raise BadData(f"{path}, sheet {sheet}, row 1: column {', '.join(missing)} is missing.")
    for number, row in enumerate(values, start=2):
        if number > MOST_ROWS:
            raise BadData(f"{path}, sheet {sheet}: more than {MOST_ROWS:,} rows; refused.")
        if any(value is not None for value in row):
            yield f"{path}, sheet {sheet}, row {number}", {n: v for n, v in zip(names, row, strict=False) if n}


def _values(path: Path, sheet: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a sheet as values, as long as they really are: the size that the sheet claims is not believed."""
    import openpyxl

    try:
        with path.open("rb") as stream:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of styles and extensions that it does not know
                workbook = openpyxl.load_workbook(stream, read_only=True, data_only=True)
            if sheet not in workbook.sheetnames:
                raise BadData(f"{path}: no sheet {sheet} among its {len(workbook.sheetnames)}.")
            table = workbook[sheet]
            table.reset_dimensions()
            yield from table.iter_rows(values_only=True)
    except _DAMAGE as error:
        raise BadData(f"{path} is damaged or no Excel workbook ({type(error).__name__}). Get it again.") from error
