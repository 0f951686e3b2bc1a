"""Rich Release Format of the UMLS Metathesaurus: files of up to 60 million rows, read by DuckDB in bounded memory.

    C0004057|ENG|P|L0004057|PF|S0011852|Y|A0000001||||MSH|MH|D001241|Aspirin|0|N|256|

UTF-8, one row a line, cells closed (not parted) by '|', no header, no quotation marks, no escapes (UMLS Reference Manual,
chapter 3, NLM, NBK9685). A file is a view of DuckDB that knows its columns and whether a row fits; a step of an SQL script
makes one table from it. Rows that do not fit are told to the intake with file and line, as any reader does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from staf.data.formats.sources import LONGEST_LINE, opened
from staf.data.read_report import MAX_REJECTED, ReadReport
from staf.errors import BadData, StafError

MEMORY = "1GB"
"""What DuckDB may hold; beyond it, it works in a temporary folder."""
THREADS = 2

_CONCEPT, _SUPPRESS, _TEXT = "C[0-9]{7}", "[NOEY]", r"[^\x00]*[^\s\x00][^\x00]*"
_STEP = re.compile(r"^-- table (\w+)(?: from (\w+))?$", re.MULTILINE)
_GLOB = re.compile(r"[*?\[]")
_PROBLEMS = {
    "MISSING COLUMNS": "too few cells",
    "TOO MANY COLUMNS": "too many cells",
    "LINE SIZE OVER MAXIMUM": f"longer than {LONGEST_LINE:,} bytes",
    "INVALID ENCODING": "not UTF-8 text",
    "INVALID UNICODE": "not UTF-8 text",
}


@dataclass(frozen=True)
class Layout:
    """The columns of a file, in order, and the pattern that a cell must match where a row is of no use without it."""

    columns: tuple[str, ...]
    patterns: Mapping[str, str]

    @cached_property
    def compiled(self) -> list[tuple[int, str, re.Pattern[str]]]:
        """Place, name and pattern of each column that has one."""
        return [(self.columns.index(name), name, re.compile(pattern)) for name, pattern in self.patterns.items()]

    def problem(self, line: str) -> str:
        """What is wrong with a line, or ''; too few or too many cells are DuckDB's to tell."""
        cells = line.split("|")
        if any(cells[len(self.columns) :]):
            return "too many cells"
        if len(cells) > len(self.columns):
            for place, name, pattern in self.compiled:
                if not pattern.fullmatch(cells[place]):
                    return f"column {name} is empty or not of its form"
        return ""


def _layout(columns: str, **patterns: str) -> Layout:
    return Layout(tuple(columns.split()), patterns)


LAYOUTS = {
    "MRCONSO": _layout(
        "CUI LAT TS LUI STT SUI ISPREF AUI SAUI SCUI SDUI SAB TTY CODE STR SRL SUPPRESS CVF",
        CUI=_CONCEPT,
        STR=_TEXT,
        SUPPRESS=_SUPPRESS,
    ),
    "MRDEF": _layout("CUI AUI ATUI SATUI SAB DEF SUPPRESS CVF", CUI=_CONCEPT, DEF=_TEXT, SUPPRESS=_SUPPRESS),
    "MRREL": _layout(
        "CUI1 AUI1 STYPE1 REL CUI2 AUI2 STYPE2 RELA RUI SRUI SAB SL RG DIR SUPPRESS CVF",
        CUI1=_CONCEPT,
        CUI2=_CONCEPT,
        SUPPRESS=_SUPPRESS,
    ),
    "MRSTY": _layout("CUI TUI STN STY ATUI CVF", CUI=_CONCEPT, TUI="T[0-9]{3}", STN="[AB][0-9.]*", STY=_TEXT),
}
"""Columns as in the tables of chapter 3 of the Reference Manual."""


def connect(scratch: Path, variables: Mapping[str, Any]) -> Any:
    """A DuckDB of its own, bounded in memory, that keeps what does not fit there in the folder `scratch`."""
    import duckdb

    connection = duckdb.connect(":memory:", config={"memory_limit": MEMORY, "threads": THREADS})
    connection.execute(f"SET temp_directory = {_quoted(str(scratch))}")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET enable_progress_bar = false")
    for name, value in variables.items():
        connection.execute(f"SET VARIABLE {name} = $1", [value])
    return connection


def run(connection: Any, script: str, paths: Mapping[str, Path], report: ReadReport) -> None:
    """Run an SQL script of steps, each headed '-- table NAME' or '-- table NAME from FILE' and making that table.

    A step that reads a file does so through the view of its name, in lower case: all columns of the file as text (an
    empty cell is NULL), and `fits`. It must keep the rows that do not fit, with `fits` as a column: they are told to the
    intake and taken out of the table.

    Raises:
        BadData: a row does not fit and is not to be skipped, or a file cannot be read.
        StafError: memory and temporary folder are too small.
    """
    for table, name, statement in _steps(script):
        if not name:
            _execute(connection, next(iter(paths.values())).parent, statement)
            continue
        path, layout = paths[name], LAYOUTS[name]
        _check_whole(path)
        _execute(connection, path, _view(name, layout, path))
        _execute(connection, path, statement)
        rejected = _refuse_rejected(connection, name, path, report)
        (unfit,) = connection.execute(f"SELECT count(*) FROM {table} WHERE NOT fits").fetchone()
        if unfit:
            if _refuse_unfit(layout, path, rejected, report) < unfit:
                raise BadData(f"{path}: some of its rows do not fit the format. Get it again.")
            connection.execute(f"DELETE FROM {table} WHERE NOT fits")


def _steps(script: str) -> Iterator[tuple[str, str, str]]:
    """Table, file ('' for none) and statement of each step."""
    heads = list(_STEP.finditer(script))
    ends = [head.start() for head in heads[1:]] + [len(script)]
    for head, end in zip(heads, ends, strict=True):
        yield head[1], head[2] or "", script[head.end() : end]


def _check_whole(path: Path) -> None:
    """Unpack a gzipped file once to see that it does not stop early: DuckDB 1.3 takes what there is for the whole."""
    if path.suffix == ".gz":
        with opened(path) as stream:
            while stream.read(1 << 20):
                pass


def _view(name: str, layout: Layout, path: Path) -> str:
    """The statement that makes the view of a file."""
    columns = ", ".join(f"'{column}': 'VARCHAR'" for column in (*layout.columns, "beyond"))
    fits = " AND ".join(
        f"regexp_full_match(coalesce({column}, ''), {_quoted(pattern)})" for column, pattern in layout.patterns.items()
    )
    literal = _quoted(_GLOB.sub(r"[\g<0>]", str(path)))
    return f"""
        CREATE VIEW {name.lower()} AS SELECT *, beyond IS NULL AND {fits} AS fits FROM read_csv(
            {literal}, auto_detect = false, header = false, delim = '|', quote = '', escape = '',
            columns = {{{columns}}}, null_padding = false, strict_mode = true, max_line_size = {LONGEST_LINE},
            store_rejects = true, rejects_limit = {MAX_REJECTED + 1},
            rejects_table = 'rejected_{name}', rejects_scan = 'scanned_{name}')
    """


def _execute(connection: Any, path: Path, statement: str) -> None:
    """Run a statement on a file, or on what was read from a folder; what DuckDB says may quote a row and is not passed on."""
    import duckdb

    try:
        connection.execute(statement)
    except duckdb.OutOfMemoryException:
        raise StafError(
            f"{path}: reading it needs more than {MEMORY} of memory and more room than the temporary folder has. "
            "Free some space there, or name another folder by TMPDIR."
        ) from None
    except duckdb.Error as error:
        raise BadData(
            f"{path} cannot be read ({type(error).__name__}): damaged, cut short or not text. Get it again."
        ) from None


def _refuse_rejected(connection: Any, name: str, path: Path, report: ReadReport) -> set[int]:
    """Tell the intake of the rows that DuckDB's reader rejected; returns their lines."""
    rejected = connection.execute(
        f"SELECT line, min(error_type::VARCHAR), any_value(csv_line) FROM rejected_{name} GROUP BY line ORDER BY line"
    ).fetchall()
    for line, error, content in rejected:
        problem = _PROBLEMS.get(error, "not a row of this format")
        report.reject(BadData(f"{path}, line {line}: {problem}."), (content or "").strip("\r\n"))
    return {line for line, _, _ in rejected}


def _refuse_unfit(layout: Layout, path: Path, rejected: set[int], report: ReadReport) -> int:
    """Tell the intake of the rows with a cell that does not fit, and return how many; called where DuckDB saw some."""
    found = 0
    with opened(path) as stream:
        for number, line in enumerate(stream, start=1):
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            if number not in rejected and (problem := layout.problem(text)):
                report.reject(BadData(f"{path}, line {number}: {problem}."), text)
                found += 1
    return found


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
