"""CSV and TSV files, plain or gzipped, row by row under their column names, or with names given where there is no header."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from staf.data.formats.sources import LONGEST_LINE, text_lines
from staf.data.read_report import ReadReport
from staf.errors import BadData

LONGEST_CELL = 4 << 20
"""Characters."""


def rows(
    path: Path,
    columns: Sequence[str],
    report: ReadReport,
    *,
    delimiter: str = ",",
    quoted: bool = True,
    header: bool = True,
    comment: str = "",
) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row as (place, cells by column); cells may hold quoted delimiters, quotes and line ends.

    Args:
        path: of the file.
        columns: names that must be in the header (others may be there, in any order), or, without a header, the names of
            all columns in order.
        report: takes the rows that do not fit.
        delimiter: between cells.
        quoted: False where quotation marks are ordinary characters.
        header: whether the first row holds names.
        comment: lines that begin with it are passed over; '' where there are none.

    Raises:
        BadData: a column is missing, or a bad row is not to be skipped: another number of cells than names, a cell longer
            than `LONGEST_CELL`, a quote that is never closed.
    """
    csv.field_size_limit(LONGEST_LINE)  # cells are checked below, where the row is known
    current = _Lines(path, report, comment)
    if quoted:
        reader = csv.reader(current, delimiter=delimiter, strict=True)
    else:
        reader = csv.reader(current, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    names = _names(path, next(reader, []), columns) if header else list(columns)
    while True:
        current.begin()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            report.reject(BadData(f"{current.place}: not a row of this format ({error})."), current.text)
            continue
        if cells is None:
            return
        if problem := _problem(cells, names):
            report.reject(BadData(f"{current.place}: {problem}."), current.text)
        elif cells:
            yield current.place, dict(zip(names, cells, strict=True))


class _Lines:
    """Lines for the csv module that know where the current row began."""

    def __init__(self, path: Path, report: ReadReport, comment: str) -> None:
        self._path, self._lines, self._comment = path, text_lines(path, report), comment
        self._start, self._taken, self._size = 0, list[str](), 0

    def begin(self) -> None:
        self._taken.clear()
        self._size = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        number, line = next(self._lines)
        while self._comment and not self._taken and line.startswith(self._comment):
            number, line = next(self._lines)
        if not self._taken:
            self._start = number
        self._size += len(line)
        if self._size > LONGEST_LINE:
            raise BadData(f"{self.place}: a quoted cell is never closed, or longer than {LONGEST_LINE:,} characters.")
        self._taken.append(line)
        return line + "\n"

    @property
    def place(self) -> str:
        """File and line of the current row's beginning."""
        return f"{self._path}, line {self._start}"

    @property
    def text(self) -> str:
        """The current row as it stands in the file."""
        return "\n".join(self._taken)


def _names(path: Path, header: list[str], columns: Sequence[str]) -> list[str]:
    """The names of the header, as the reader asks for them where case differs."""
    wanted = {name.casefold(): name for name in columns}
    found = [wanted.get(name.strip().casefold(), name.strip()) for name in header]
    if missing := [name for name in columns if name not in found]:
        raise BadData(f"{path}, line 1: column {', '.join(missing)} is missing; the header has {len(header)} columns.")
    return found


def _problem(cells: list[str], names: list[str]) -> str:
    if cells and len(cells) != len(names):
        return f"{len(names)} cells are expected, found {len(cells)}"
    return f"a cell is longer than {LONGEST_CELL:,} characters" if any(len(cell) > LONGEST_CELL for cell in cells) else ""
