"""Tables too large for memory: delimited files into DuckDB, cohorts by SQL, rows out in batches.

A file is scanned once before DuckDB reads it (damaged gzip stream, NUL bytes), then read with a fixed dialect, every cell as
text. Bad rows are named by file and line; no message contains a cell. Empty cells beyond the last column are accepted, so say
by `forms` what cells must be wherever a row could be shifted by them. Cohorts are in `staf/data/sql/*.sql`.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from staf.data.fetch import cache_folder
from staf.data.read_report import MAX_REJECTED, ReadReport
from staf.data.sources import LONGEST_LINE, csv_rows, opened
from staf.errors import BadData, StafError

if TYPE_CHECKING:
    import duckdb

MEMORY = "1GB"
THREADS = 2
BATCH = 500
"""Rows in memory at a time."""
BLOCK = 1 << 20

Form = str | Sequence[str]
"""What a cell must be: a 'number', a 'time', some 'text', 'empty', a regular expression, or one of several words."""

_CSV = "header=true, delim=',', quote='\"', escape='\"'"
_RRF = "header=false, delim='|', quote='', escape=''"
_MORE, _FEWER = "more cells than columns", "fewer cells than columns"
_REASONS = {
    "MISSING COLUMNS": _FEWER,
    "TOO MANY COLUMNS": _MORE,
    "INVALID ENCODING": "not UTF-8 text",
    "INVALID UNICODE": "not UTF-8 text",
    "UNQUOTED VALUE": "a quote that is not closed at the end of its cell",
    "LINE SIZE OVER MAXIMUM": f"longer than {LONGEST_LINE:,} bytes",
}
_BEYOND = "beyond"
"""Name of the cell after the last column of an RRF row."""


class Tables:
    """A database for one reading."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, report: ReadReport) -> None:
        self._connection, self._report = connection, report
        self.scratch = report.scratch or cache_folder()

    def load(
        self,
        name: str,
        path: Path,
        columns: Sequence[str],
        forms: Mapping[str, Form] | None = None,
        where: str = "true",
        *,
        layout: Sequence[str] = (),
        called: str = "",
    ) -> None:
        """Create a table from some columns of a file, plain or gzipped; cells are text, empty ones NULL.

        Args:
            name: of the new table.
            path: of a CSV file with a header, or where `layout` is given of an RRF file.
            columns: to keep; the header must have them, in any case and order.
            forms: what the cells of a column must be; never empty unless 'empty'.
            where: condition in SQL for the rows to keep; rows of a wrong form are found before it applies.
            layout: all columns in order, of a file without header and quotes whose cells each end in '|'.
            called: how messages call the file, where it is a copy.

        Raises:
            BadData: the file is damaged, a column is missing, or a bad row is not to be skipped.
        """
        called, forms = called or str(path), dict(forms or {})
        names = [*layout, _BEYOND] if layout else _header(path, called, columns)
        if layout:
            forms[_BEYOND] = "empty"
        types = ", ".join(f"{_quoted(column)}: 'VARCHAR'" for column in names)
        kept = dict.fromkeys((*columns, *forms))
        unfit = " OR ".join(_unlike(column, form) for column, form in forms.items()) or "false"
        where = f"(({where}) OR {unfit})"
        if self._holds_nul(path, called):
            where += f" AND NOT contains(concat({', '.join(map(_quoted, names))}), chr(0))"
        self.run(
            f"CREATE TABLE {name} AS SELECT {', '.join(map(_quoted, kept))} FROM read_csv({_text(glob.escape(str(path)))}, "
            f"{_RRF if layout else _CSV}, auto_detect=false, strict_mode=true, columns={{{types}}}, "
            f"max_line_size={LONGEST_LINE}, store_rejects=true, rejects_limit={MAX_REJECTED + 1}, "
            f"rejects_table='{name}_rejects', rejects_scan='{name}_scans') WHERE {where}",
            path,
        )
        self._refuse_rejected(name, path, called)
        if count := self.number(f"SELECT count(*) FROM {name} WHERE {unfit}"):
            self._refuse_unfit(name, path, called, forms, names if layout else [], count)
            self.run(f"DELETE FROM {name} WHERE {unfit}")

    def empty(self, name: str, columns: Sequence[str]) -> None:
        """Create a table without rows, for an optional file that is not there."""
        self.run(f"CREATE TABLE {name} ({', '.join(f'{_quoted(column)} VARCHAR' for column in columns)})")

    def fill(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Create a small table of given cells."""
        self.empty(name, columns)
        with _without_text(None):
            self._connection.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})", rows)

    def script(self, name: str) -> None:
        """Run a file of `staf/data/sql`."""
        self.run(resources.files("staf.data").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8"))

    def run(self, statements: str, path: Path | None = None) -> None:
        """Run SQL that returns no rows; `path` is the file that it reads, if any.

        Raises:
            BadData: the file, or what was made of it, does not fit.
            StafError: memory or disk ran out.
        """
        with _without_text(path):
            self._connection.execute(statements)

    def rows(self, question: str) -> Iterator[dict[str, Any]]:
        """Rows of a query by column, read in batches with a cursor of their own."""
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
        """The single number that a query returns."""
        return int(next(iter(next(self.rows(question)).values())) or 0)

    def skip(self, reasons: Mapping[str, str]) -> None:
        """Report what is left out: by reason, the query that counts it."""
        for reason, question in reasons.items():
            self._report.skip(reason, self.number(question))

    def _holds_nul(self, path: Path, called: str) -> bool:
        """Scan a file; its lines with a NUL byte are bad rows."""
        with opened(path) as stream:
            if not any(b"\0" in block for block in iter(lambda: stream.read(BLOCK), b"")):
                return False
        with opened(path) as stream:
            for number, line in enumerate(stream, start=1):
                if b"\0" in line:
                    self._report.reject(BadData(f"{called}, line {number}: holds a NUL byte."), line)
        return True

    def _refuse_rejected(self, name: str, path: Path, called: str) -> None:
        """Refuse the rows that DuckDB rejected."""
        question = f"SELECT line_byte_position, error_type::VARCHAR, csv_line FROM {name}_rejects ORDER BY ALL"
        rejected = {offset: (problem, line) for offset, problem, line in self._connection.execute(question).fetchall()}
        numbers = _lines_at(path, list(rejected))
        for number, (problem, line) in zip(numbers, rejected.values(), strict=True):
            reason = _REASONS.get(problem, "not a row of this format")
            self._report.reject(BadData(f"{called}, line {number}: {reason}."), (line or "").rstrip("\r\n"))

    def _refuse_unfit(
        self, name: str, path: Path, called: str, forms: Mapping[str, Form], names: Sequence[str], count: int
    ) -> None:
        """Refuse the `count` rows with a cell of a wrong form; the file is read again to find their lines."""
        unlike = {
            column: {
                row["cell"] or "" for row in self.rows(f"SELECT DISTINCT {_quoted(column)} AS cell FROM {name} WHERE {test}")
            }
            for column, test in ((column, _unlike(column, form)) for column, form in forms.items())
        }
        wanted, lenient = [column for column in unlike if unlike[column]], ReadReport(skip_rejected=True)
        dialect: dict[str, Any] = {"delimiter": "|", "quoted": False, "header": False} if names else {}
        for place, row in csv_rows(path, names or wanted, lenient, **dialect):
            if column := next((column for column in wanted if row[column] in unlike[column]), ""):
                where = place.removeprefix(str(path))
                problem = _MORE if column == _BEYOND else f"column '{column}' is {_problem(forms[column])}"
                self._report.reject(BadData(f"{called}{where}: {problem}."), _row_text(row, names))
                count -= 1
        for bad in lenient.rejected if count > 0 else ():  # rows that DuckDB accepts and the csv module does not
            self._report.reject(BadData(called + bad.problem.removeprefix(str(path))), bad.content)


@contextlib.contextmanager
def tables(report: ReadReport, variables: Mapping[str, Any] | None = None) -> Iterator[Tables]:
    """An empty database with variables for `getvariable`; deleted at the end with all that it holds.

    Raises:
        StafError: memory or disk ran out.
    """
    import duckdb

    scratch = report.scratch or cache_folder()
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tables-", dir=scratch) as working:
        settings: dict[str, Any] = {
            "memory_limit": MEMORY,
            "threads": THREADS,
            "temp_directory": working,
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        with duckdb.connect(config=settings) as connection:
            for name, value in (variables or {}).items():
                connection.execute(f"SET VARIABLE {name} = $1", [value])
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
        raise  # an error in our SQL, which quotes no cell
    except duckdb.Error as error:
        where = path or "the tables"
        raise BadData(f"{where}: not in the published format ({type(error).__name__}). Get the files again.") from None


def _header(path: Path, called: str, columns: Sequence[str]) -> list[str]:
    """Names in the first line of a file, in lower case."""
    with opened(path) as stream:
        line = stream.readline(LONGEST_LINE).decode("utf-8", "replace").removeprefix("\ufeff")
    names = [name.strip().lower() for name in next(csv.reader([line]), [])]
    if missing := [name for name in columns if name not in names]:
        raise BadData(f"{called}, line 1: column {', '.join(missing)} is missing; the header has {len(names)} columns.")
    if len(set(names)) != len(names):
        raise BadData(f"{called}, line 1: a column name occurs twice.")
    return names


def _unlike(column: str, form: Form) -> str:
    """Condition in SQL that a cell is not of its form."""
    name = _quoted(column)
    if not isinstance(form, str):
        test = f"{name} NOT IN ({', '.join(map(_text, form))})"
    elif form == "empty":
        return f"{name} IS NOT NULL"
    elif form == "time":
        test = f"try_cast({name} AS TIMESTAMP) IS NULL"
    elif form == "text":
        test = f"trim({name}) = ''"
    else:
        test = f"NOT regexp_full_match({name}, {_text('[0-9]+' if form == 'number' else form)})"
    return f"coalesce({test}, true)"


def _problem(form: Form) -> str:
    if not isinstance(form, str):
        return f"not one of {', '.join(form)}"
    return {"number": "not an integer", "time": "not a date and time", "text": "empty"}.get(form, "empty or malformed")


def _row_text(row: Mapping[str, str], names: Sequence[str]) -> object:
    """A row for the side file: as it is in an RRF file, else by column."""
    return "|".join(row.values()) if names else row


def _lines_at(path: Path, offsets: Sequence[int]) -> list[int]:
    """Line numbers, from 1, of ascending offsets (from 1, in unpacked bytes)."""
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
