"""Tables of patients, too large for memory: CSV files into DuckDB, cohorts by SQL, rows out in batches.

A file is looked through once before DuckDB reads it (a damaged or ever-growing gzip stream, NUL bytes), then read with a
fixed dialect, never a guessed one: commas, double quotes, quoted line ends, every cell as text, names in lower case. What
does not fit is named by file and line; no message holds a cell. Empty cells beyond the last column pass: where a row can be
shifted by them, say what its cells must be. What a cohort is stands in `staf/data/sql/*.sql`.

Tables that outgrow `MEMORY` go to a private folder in the cache, which is deleted at the end.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from staf.data.formats.delimited import rows as delimited_rows
from staf.data.formats.sources import LONGEST_LINE, opened
from staf.data.packages import cache_folder
from staf.data.read_report import MAX_REJECTED, ReadReport
from staf.errors import BadData, StafError

if TYPE_CHECKING:
    import duckdb

MEMORY = "1GB"
THREADS = 2
BATCH = 500
"""Rows in memory at a time."""
BLOCK = 1 << 20

_DIALECT = "header=true, auto_detect=false, strict_mode=true, delim=',', quote='\"', escape='\"'"
_REASONS = {
    "MISSING COLUMNS": "fewer cells than columns",
    "TOO MANY COLUMNS": "more cells than columns",
    "INVALID ENCODING": "not UTF-8 text",
    "UNQUOTED VALUE": "a quote that is not closed at the end of its cell",
    "LINE SIZE OVER MAXIMUM": f"longer than {LONGEST_LINE:,} bytes",
}
_FORMS = {
    "number": ("NOT regexp_full_match({column}, '[0-9]+')", "not a whole number"),
    "time": ("try_cast({column} AS TIMESTAMP) IS NULL", "not a date and time"),
    "text": ("trim({column}) = ''", "empty"),
}
"""What is wrong with a cell that must be a number, a time or some text: as SQL, and in words."""


class Tables:
    """A database of one reading."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, report: ReadReport) -> None:
        self._connection, self._report = connection, report

    def load(
        self,
        name: str,
        path: Path,
        columns: Sequence[str],
        forms: Mapping[str, str | tuple[str, ...]] | None = None,
        where: str = "true",
        place: str = "",
    ) -> None:
        """A table of some columns of a CSV file, plain or gzipped, every cell as text, an empty one as NULL.

        Args:
            name: of the new table.
            path: of the file.
            columns: that must be in the header, in any case and order; others may be there.
            forms: what a column's cells must be: a 'number', a 'time', some 'text', or one of several words; never empty.
            where: the rows to keep, in SQL; applied as they are read.
            place: what messages call the file, where it is a copy.

        Raises:
            BadData: the file is damaged, a column is missing, or a bad row is not to be skipped.
        """
        source = _Source(path, place or str(path))
        names = _header(source, columns)
        keep = where
        if _holds_nul(source, self._report):
            keep = f"({where}) AND NOT contains(concat({', '.join(map(_quoted, names))}), chr(0))"
        types = ", ".join(f"{_quoted(column)}: 'VARCHAR'" for column in names)
        chosen = ", ".join(map(_quoted, columns))
        self.run(
            f"CREATE TABLE {name} AS SELECT {chosen} FROM read_csv({_text(glob.escape(str(path)))}, {_DIALECT}, "
            f"columns={{{types}}}, max_line_size={LONGEST_LINE}, store_rejects=true, rejects_limit={MAX_REJECTED + 1}, "
            f"rejects_table='{name}_rejects', rejects_scan='{name}_scans') WHERE {keep}",
            path,
        )
        self._refuse_rejected(name, source)
        for column, form in (forms or {}).items():
            self._refuse_unlike(name, source, column, form)

    def empty(self, name: str, columns: Sequence[str]) -> None:
        """A table without a row, in the place of an optional file that is not there."""
        self.run(f"CREATE TABLE {name} ({', '.join(f'{_quoted(column)} VARCHAR' for column in columns)})")

    def fill(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A small table of given cells."""
        self.empty(name, columns)
        with _without_text(None):
            self._connection.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})", rows)

    def script(self, name: str) -> None:
        """Run a file of `staf/data/sql`."""
        self.run(resources.files("staf.data").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8"))

    def run(self, statements: str, path: Path | None = None) -> None:
        """Run SQL that gives no rows; `path` is the file that it reads, if any.

        Raises:
            BadData: the file, or what was made of it, does not fit.
            StafError: memory or disk ran out.
        """
        with _without_text(path):
            self._connection.execute(statements)

    def rows(self, question: str) -> Iterator[dict[str, Any]]:
        """The rows of a query by column, read in batches from a cursor of their own."""
        with _without_text(None):
            cursor = self._connection.cursor()
            cursor.execute(question)
            names = [column[0] for column in cursor.description or ()]
        while True:
            with _without_text(None):
                batch = cursor.fetchmany(BATCH)
            if not batch:
                return
            for row in batch:
                yield dict(zip(names, row, strict=True))

    def number(self, question: str) -> int:
        """The one number that a query gives."""
        return int(next(iter(next(self.rows(question)).values())) or 0)

    def count(self, facts: Mapping[str, str]) -> None:
        """Tell the intake some facts, each by its query."""
        for fact, question in facts.items():
            self._report.count(fact, self.number(question))

    def skip(self, reasons: Mapping[str, str]) -> None:
        """Tell the intake what is left out, each reason by the query that counts it."""
        for reason, question in reasons.items():
            self._report.skip(reason, self.number(question))

    def _refuse_rejected(self, name: str, source: _Source) -> None:
        question = f"SELECT line_byte_position, error_type::VARCHAR, csv_line FROM {name}_rejects ORDER BY ALL"
        rejected = {offset: (problem, line) for offset, problem, line in self._connection.execute(question).fetchall()}
        numbers = _lines_at(source.path, list(rejected))
        for number, (problem, line) in zip(numbers, rejected.values(), strict=True):
            self._report.reject(BadData(f"{source.name}, line {number}: {_REASONS.get(problem, problem.lower())}."), line)

    def _refuse_unlike(self, name: str, source: _Source, column: str, form: str | tuple[str, ...]) -> None:
        """Refuse the rows whose cell is not of the form; the file is read again only where there are some."""
        if isinstance(form, tuple):
            test, problem = f"{{column}} NOT IN ({', '.join(map(_text, form))})", f"not one of {', '.join(form)}"
        else:
            test, problem = _FORMS[form]
        unlike = f"coalesce({test.format(column=_quoted(column))}, true)"
        question = f"SELECT {_quoted(column)} AS cell, count(*) AS rows FROM {name} WHERE {unlike} GROUP BY 1"
        cells = {row["cell"] or "": row["rows"] for row in self.rows(question)}
        if not cells:
            return
        unfit, left = ReadReport(skip_rejected=True), sum(cells.values())
        for place, row in delimited_rows(source.path, (column,), unfit):
            if row[column] in cells:
                self._report.reject(BadData(f"{source.named(place)}: column '{column}' is {problem}."), row)
                left -= 1
        for bad in unfit.rejected if left > 0 else ():  # DuckDB is more lenient: here are the rest
            self._report.reject(BadData(source.named(bad.problem)), bad.content)
        self.run(f"DELETE FROM {name} WHERE {unlike}")


@dataclass(frozen=True, slots=True)
class _Source:
    """A file, and what messages call it."""

    path: Path
    name: str

    def named(self, message: str) -> str:
        """A message that begins with the path, with the name in its place."""
        return self.name + message.removeprefix(str(self.path))


@contextlib.contextmanager
def tables(report: ReadReport) -> Iterator[Tables]:
    """An empty database, deleted with all that it holds at the end.

    Raises:
        StafError: duckdb is not installed, or memory or disk ran out.
    """
    try:
        import duckdb
    except ImportError:
        raise StafError("tables of patients are read with duckdb, which is not installed. Get it: pip install duckdb") from None

    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tables-", dir=cache_folder()) as working:
        settings: dict[str, Any] = {
            "memory_limit": MEMORY,
            "threads": THREADS,
            "temp_directory": working,
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        with duckdb.connect(config=settings) as connection:
            yield Tables(connection, report)


@contextlib.contextmanager
def _without_text(path: Path | None) -> Iterator[None]:
    """Errors of DuckDB as ours; its own messages quote cells."""
    import duckdb

    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        raise StafError(
            f"reading {path or 'the tables'} stopped ({type(error).__name__}): memory or disk ran out. "
            f"DuckDB works with {MEMORY} of memory and with the disk under {cache_folder()}; free some of either."
        ) from None
    except (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException):
        raise  # a mistake of ours in SQL, which quotes no cell
    except duckdb.Error as error:
        where = path or "the tables"
        raise BadData(f"{where}: not in the published format ({type(error).__name__}). Get the files again.") from None


def _header(source: _Source, columns: Sequence[str]) -> list[str]:
    """The names in a file's first line, in lower case."""
    with opened(source.path) as stream:
        line = stream.readline(LONGEST_LINE).decode("utf-8", "replace").removeprefix("\ufeff")
    names = [name.strip().lower() for name in next(csv.reader([line]), [])]
    if missing := [name for name in columns if name not in names]:
        raise BadData(f"{source.name}, line 1: column {', '.join(missing)} is missing; the header has {len(names)} columns.")
    if len(set(names)) != len(names):
        raise BadData(f"{source.name}, line 1: a column name occurs twice.")
    return names


def _holds_nul(source: _Source, report: ReadReport) -> bool:
    """Look through a file; its lines with a NUL byte are bad rows."""
    with opened(source.path) as stream:
        if not any(b"\0" in block for block in iter(lambda: stream.read(BLOCK), b"")):
            return False
    with opened(source.path) as stream:
        for number, line in enumerate(stream, start=1):
            if b"\0" in line:
                report.reject(BadData(f"{source.name}, line {number}: holds a NUL byte."), line)
    return True


def _lines_at(path: Path, offsets: Sequence[int]) -> list[int]:
    """The line numbers, from 1, of ascending offsets (from 1, in bytes unpacked)."""
    lines, line, place = list[int](), 1, 0
    if offsets:
        with opened(path) as stream:
            for offset in offsets:
                while place < offset - 1 and (block := stream.read(min(BLOCK, offset - 1 - place))):
                    line += block.count(b"\n")
                    place += len(block)
                lines.append(line)
    return lines


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
