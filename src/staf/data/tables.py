"""Tables too large for memory: delimited files into DuckDB, cohorts by SQL, rows out in batches.

DuckDB reads a file with a fixed dialect, every cell as text. Where it refuses the file, or a cell is not of its form, the rows
are read one by one instead (`csv_rows`), so that bad ones are named by file and line; no message contains a cell. Cohorts are
in `staf/data/sql/*.sql`.
"""

from __future__ import annotations

import contextlib
import glob
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from staf.data.fetch import cache_folder
from staf.data.read_report import ReadReport
from staf.data.sources import LONGEST_LINE, NULLS, column_names, csv_rows, opened, parsed_rows
from staf.errors import BadData, StafError

if TYPE_CHECKING:
    import duckdb

MEMORY = "1GB"
THREADS = 2
BATCH = 500
"""Rows in memory at a time."""
CHECKED_BATCH = 20_000
BLOCK = 1 << 20

Form = str | Sequence[str]
"""What a cell must be: a 'number', a 'time', either with '?' where it may be empty, some 'text', 'empty', a regular expression,
or one of several words."""

_CSV = "header=true, delim=',', quote='\"', escape='\"'"
_RRF = "header=false, delim='|', quote='', escape=''"
_BEYOND, _PLACE = "beyond", "place"
"""Names of the cell after the last column of an RRF row, and of the column of file and line where rows are read one by one."""


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
        key: str = "",
        layout: Sequence[str] = (),
        nulls: Sequence[str] = NULLS,
        called: str = "",
    ) -> None:
        """Create a table from some columns of a file, plain or gzipped; cells are text, empty ones NULL.

        Args:
            name: of the new table.
            path: of a CSV file with a header, or where `layout` is given of an RRF file.
            columns: to keep; the header must have them, in any case and order.
            forms: what the cells of a column must be; never empty unless 'empty'.
            where: condition in SQL for the rows to keep; rows of a wrong form are found before it applies.
            key: column in which no cell of these rows may occur twice.
            layout: all columns in order, of a file without header and quotes whose cells each end in '|'.
            nulls: what stands for an empty cell.
            called: how messages call the file, where it is a copy.

        Raises:
            BadData: the file is damaged, a column is missing, a key occurs twice, or a bad row is not to be skipped.
        """
        called, forms = called or str(path), dict(forms or {}) | ({_BEYOND: "empty"} if layout else {})
        names = [*layout, _BEYOND] if layout else _header(path, called, columns)
        nulls = ("",) if layout else ("", *nulls)
        kept = ", ".join(map(_quoted, dict.fromkeys((*columns, *forms))))
        unfit = " OR ".join(_unlike(column, form) for column, form in forms.items()) or "false"
        types = ", ".join(f"{_quoted(column)}: 'VARCHAR'" for column in names)
        source = (
            f"read_csv({_text(glob.escape(str(path)))}, {_RRF if layout else _CSV}, auto_detect=false, strict_mode=true, "
            f"columns={{{types}}}, nullstr=[{', '.join(map(_text, nulls))}], max_line_size={LONGEST_LINE})"
        )
        if not self._is_read(
            f"CREATE TABLE {name} AS SELECT {kept} FROM {source} WHERE ({where}) OR {unfit}", path, name, unfit
        ):
            self._read_one_by_one(f"checked_{name}", path, called, names, nulls, bool(layout), forms)
            self.run(f"CREATE OR REPLACE TABLE {name} AS SELECT {kept} FROM checked_{name} WHERE {where}", path)
            self.run(f"DROP TABLE checked_{name}")
        if key and (twice := self.number(f"SELECT count({key}) - count(DISTINCT {key}) FROM {name}")):
            raise BadData(f"{called}: {twice} rows have a {key} that another row has. Are rows of two copies in it?")

    def _is_read(self, statement: str, path: Path, name: str, unfit: str) -> bool:
        """True where DuckDB read a file and all cells of the new table are of their form."""
        with opened(path) as stream:  # DuckDB sees neither NUL bytes nor all damage of a gzip stream
            if any(b"\0" in block for block in iter(lambda: stream.read(BLOCK), b"")):
                return False
        try:
            self.run(statement, path)
        except BadData:
            return False
        return not self.number(f"SELECT count(*) FROM {name} WHERE {unfit}")

    def _read_one_by_one(
        self,
        name: str,
        path: Path,
        called: str,
        names: Sequence[str],
        nulls: Sequence[str],
        is_rrf: bool,
        forms: Mapping[str, Form],
    ) -> None:
        """Create a table of all rows that fit, the others rejected by file and line."""
        dialect: dict[str, Any] = {"delimiter": "|", "quoted": False, "header": False} if is_rrf else {}
        wanted = names if is_rrf else [name for name in names if not name.startswith("column ")]
        rows = csv_rows(path, self._report, wanted, called=called, **dialect)
        schema = pa.schema([(column, pa.string()) for column in (*names, _PLACE)])
        self.empty(name, schema.names)
        while batch := list(islice(rows, CHECKED_BATCH)):
            cells = [
                {c: None if cell in nulls else cell for c, cell in zip(names, row.values(), strict=True)} | {_PLACE: place}
                for place, row in batch
            ]
            with _without_text(path):
                self._connection.register("batch", pa.Table.from_pylist(cells, schema))
                self._connection.execute(f"INSERT INTO {name} FROM batch")
        tests = " ".join(f"WHEN {_unlike(column, form)} THEN {_text(column)}" for column, form in forms.items())
        self.run(
            f"ALTER TABLE {name} ADD COLUMN problem VARCHAR; UPDATE {name} SET problem = CASE {tests} WHEN false THEN '' END"
        )
        for row in self.rows(f"FROM {name} WHERE problem IS NOT NULL ORDER BY rowid"):
            place, column = row.pop(_PLACE), row.pop("problem")
            problem = "more cells than columns" if column == _BEYOND else f"column '{column}' is {_problem(forms[column])}"
            content = "|".join(cell or "" for cell in row.values()) if is_rrf else row
            self._report.reject(BadData(f"{place}: {problem}."), content)
        self.run(f"DELETE FROM {name} WHERE problem IS NOT NULL")

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
    """Names in the first line of a file; those that are not asked for are numbered, so that they never enter SQL."""
    names = column_names(called, next(parsed_rows(path, columns), (1, [], "", ""))[1], columns)
    return [name if name in columns else f"column {number}" for number, name in enumerate(names, start=1)]


def _unlike(column: str, form: Form) -> str:
    """Condition in SQL that a cell is not of its form."""
    name = _quoted(column)
    if form in ("number?", "time?"):
        return f"({name} IS NOT NULL AND {_unlike(column, str(form)[:-1])})"
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
    problems = {"number": "not an integer", "time": "not a date and time", "text": "empty"}
    return problems.get(form.rstrip("?"), "empty or malformed")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
