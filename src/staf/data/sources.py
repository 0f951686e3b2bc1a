"""Source files of data sets: finding them, and reading text, JSON and CSV row by row.

A bad record is named by file and line, never by its text: the same code reads corpora that must not be quoted.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import yaml

from staf.data.read_report import ReadReport
from staf.errors import BadData, MissingData

LONGEST_LINE = 8 << 20
"""Bytes of a line or of one member of a JSON file; more means another format or damage."""
DEEPEST = 1_000
"""Levels of a JSON value."""
LONGEST_CELL = 4 << 20
"""Characters of a CSV cell."""
MAX_RATIO = 200
"""A gzipped file may unpack to this many times its size, and `SMALL` more; text packs five- to twentyfold."""
SMALL = 64 << 20

Content = TypeVar("Content", dict[str, Any], list[Any])
_JSON_NAMES: dict[type, str] = {dict: "a JSON object", list: "a JSON array"}


def find(folder: Path, layouts: Sequence[str], dataset: str) -> list[Path]:
    """Files of the first layout (a glob pattern) that matches anything under `folder`, sorted by name.

    Raises:
        MissingData: no layout matches.
    """
    for pattern in layouts:
        if found := sorted(path for path in folder.glob(pattern) if path.is_file()):
            return found
    raise MissingData(
        f"{dataset} not found in {folder} (looked for {', '.join(layouts)}). "
        f"Get it: staf data fetch {dataset}, or name the folder that holds it."
    )


def find_one(folder: Path, layouts: Sequence[str], dataset: str) -> Path:
    """The one file of the first layout that matches.

    Raises:
        MissingData: no layout matches.
        BadData: several files match.
    """
    found = find(folder, layouts, dataset)
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:3])
        raise BadData(f"{dataset}: {folder} holds {len(found)} files where one is expected ({names}). Keep only one of them.")
    return found[0]


class _Bounded(io.RawIOBase):
    """An unpacked stream that raises BadData where it grows out of proportion to its file."""

    def __init__(self, stream: BinaryIO, path: Path, packed: int) -> None:
        self._stream, self._path = stream, path
        self._left = packed * MAX_RATIO + SMALL

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._stream.read(len(buffer))
        buffer[: len(part)] = part
        self._left -= len(part)
        if self._left < 0:
            raise BadData(f"{self._path} unpacks to more than {MAX_RATIO} times its size; refused. Unpack it by hand.")
        return len(part)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """Bytes of a plain or gzipped file, as a stream.

    Raises:
        BadData: the gzip stream is damaged, stops early, or unpacks out of proportion.
    """
    try:
        if path.suffix not in (".gz", ".tgz"):
            with path.open("rb") as stream:
                yield stream
        else:
            with gzip.open(path, "rb") as packed:
                yield io.BufferedReader(_Bounded(cast(BinaryIO, packed), path, path.stat().st_size), 1 << 20)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadData(f"{path} is damaged or cut short ({type(error).__name__}). Get it again.") from error


def text_lines(path: Path, report: ReadReport) -> Iterator[tuple[int, str]]:
    """Numbered lines (from 1) of a UTF-8 file, plain or gzipped, without line ends and byte order mark.

    A line that is not UTF-8, holds a NUL byte or is longer than `LONGEST_LINE` is a bad row.

    Raises:
        BadData: a bad row that is not to be skipped, or a damaged gzip stream.
    """
    with opened(path) as stream:
        number = 0
        while line := stream.readline(LONGEST_LINE + 1):
            number += 1
            start = line
            while len(line) > LONGEST_LINE and not line.endswith(b"\n"):
                line = stream.readline(LONGEST_LINE + 1)
            problem, text = _as_line(start)
            if problem:
                report.reject(BadData(f"{path}, line {number}: {problem}."), start)
            else:
                yield number, text.removeprefix("\ufeff") if number == 1 else text


def _as_line(line: bytes) -> tuple[str, str]:
    """What is wrong with a line, and its text; one of the two is empty."""
    if len(line) > LONGEST_LINE:
        return f"longer than {LONGEST_LINE:,} bytes", ""
    if b"\0" in line:
        return "holds a NUL byte", ""
    try:
        return "", line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        return "not UTF-8 text", ""


def json_lines(path: Path, report: ReadReport) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records of a JSON-lines file, each with its place ('FILE, line N'); blank lines are skipped.

    Raises:
        BadData: a line is not a JSON object and not to be skipped.
    """
    for number, line in text_lines(path, report):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            report.reject(BadData(f"{place}: not valid JSON."), line)
            continue
        if isinstance(record, dict):
            yield place, record
        else:
            report.reject(BadData(f"{place}: a JSON object is expected, found {type(record).__name__}."), line)


def json_file(path: Path, expected: type[Content]) -> Content:
    """The content of a JSON file, plain or gzipped: an object (dict) or an array (list).

    Raises:
        BadData: the file is not JSON in UTF-8, or something else than expected.
    """
    try:
        with opened(path) as stream:
            content = json.loads(stream.read())
    except (ValueError, RecursionError) as error:
        place = f"{path}, line {error.lineno}" if isinstance(error, json.JSONDecodeError) else str(path)
        raise BadData(f"{place}: not valid JSON. Get it again.") from None
    if not isinstance(content, expected):
        raise BadData(f"{path}: {_JSON_NAMES[expected]} is expected, found {type(content).__name__}.")
    return content


def json_members(path: Path) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Members (name, value) of a JSON object too large for memory, one by one, each with its place.

    Raises:
        BadData: the file is not one JSON object in UTF-8, is cut short, or a member is longer than `LONGEST_LINE`.
    """
    yield from _streamed(path, "map")


def json_items(path: Path) -> Iterator[tuple[str, Any]]:
    """Items of a JSON array too large for memory, one by one, each with its place; errors as `json_members`."""
    for place, (_, item) in _streamed(path, "array"):
        yield place, item


def _streamed(path: Path, kind: str) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Place, name ('' in an array) and value of each member of the outermost 'map' or 'array'."""
    import ijson
    from ijson.common import ObjectBuilder

    number, depth, name, builder = 1, 0, "", ObjectBuilder()
    with opened(path) as stream:
        if stream.peek(3)[:3] == codecs.BOM_UTF8:
            stream.read(3)
        limited = _Limited(stream)
        try:
            for event, value in ijson.basic_parse(limited, buf_size=1 << 16):
                depth -= event.startswith("end_")
                if depth == 0:  # the outermost value begins or ends
                    if event not in (f"start_{kind}", f"end_{kind}"):
                        raise ValueError
                elif depth == 1 and event == "map_key":
                    name, builder = value, ObjectBuilder()
                else:
                    builder.event(event, float(value) if isinstance(value, Decimal) else value)
                    if depth == 1 and not event.startswith("start_"):
                        yield f"{path}, record {number}", (name, builder.value)
                        number, limited.left, builder = number + 1, LONGEST_LINE, ObjectBuilder()
                depth += event.startswith("start_")
                if depth > DEEPEST:
                    raise ValueError
        except (ijson.JSONError, ValueError):
            what = "object" if kind == "map" else "array"
            raise BadData(f"{path}, record {number}: not a valid JSON {what}, cut short, or too long. Get it again.") from None


class _Limited:
    """A stream that raises ValueError where more than `left` bytes are read; ijson needs only `read`."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream, self.left = stream, LONGEST_LINE

    def read(self, size: int) -> bytes:
        part = self._stream.read(size)
        self.left -= len(part)
        if self.left < 0:
            raise ValueError
        return part


def csv_rows(
    path: Path,
    columns: Sequence[str],
    report: ReadReport,
    *,
    delimiter: str = ",",
    quoted: bool = True,
    header: bool = True,
    comment: str = "",
) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV file, plain or gzipped, as (place, cells by column); place is the first line of the row.

    Args:
        path: of the file.
        columns: names that must be in the header, in any case and order, among others; without header, all names in order.
        report: takes the rows that do not fit.
        delimiter: between cells.
        quoted: False where quotation marks are ordinary characters.
        header: whether the first row holds names.
        comment: start of lines to skip; '' for none.

    Raises:
        BadData: a column is missing, or a bad row is not to be skipped: another number of cells than names, a cell longer
            than `LONGEST_CELL`, a quote that is never closed.
    """
    csv.field_size_limit(LONGEST_LINE)  # cells are checked below, where the row is known
    current = _Lines(path, report, comment)
    dialect: Any = {"strict": True} if quoted else {"quoting": csv.QUOTE_NONE}
    reader = csv.reader(current, delimiter=delimiter, **dialect)
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
        if cells and len(cells) != len(names):
            problem = f"{len(names)} cells are expected, found {len(cells)}"
            report.reject(BadData(f"{current.place}: {problem}."), current.text)
        elif any(len(cell) > LONGEST_CELL for cell in cells):
            report.reject(BadData(f"{current.place}: a cell is longer than {LONGEST_CELL:,} characters."), current.text)
        elif cells:
            yield current.place, dict(zip(names, cells, strict=True))


class _Lines:
    """Lines for the csv module, which remember where the current row began."""

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
        """File and first line of the current row."""
        return f"{self._path}, line {self._start}"

    @property
    def text(self) -> str:
        """The current row as it is in the file."""
        return "\n".join(self._taken)


def _names(path: Path, header: list[str], columns: Sequence[str]) -> list[str]:
    """The names of the header, as the reader asks for them where case differs."""
    wanted = {name.casefold(): name for name in columns}
    found = [wanted.get(name.strip().casefold(), name.strip()) for name in header]
    if missing := [name for name in columns if name not in found]:
        raise BadData(f"{path}, line 1: column {', '.join(missing)} is missing; the header has {len(header)} columns.")
    return found


@cache
def vocabulary(name: str) -> Any:
    """A section of `readers/vocabularies.yaml`: columns, labels or words of a corpus."""
    text = resources.files("staf.data").joinpath("readers", "vocabularies.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)[name]


def listed(record: dict[str, Any], name: str, place: str) -> list[dict[str, Any]]:
    """A field that must be a list of objects; BadData where it is not."""
    value = record.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadData(f"{place}: field '{name}' is missing or not a list of objects.")
    return value


def text_field(record: dict[str, Any], name: str, place: str) -> str:
    """A field that must be text with something in it, single-spaced; BadData where it is not."""
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadData(f"{place}: field '{name}' is missing, empty or not text.")
    return single_spaced(value)


def lines_field(record: dict[str, Any], name: str, place: str) -> str:
    """A field that must be text with something in it, as `lines_of` gives it; BadData where it is not."""
    text_field(record, name, place)
    return lines_of(record[name])


def decoded(content: bytes, place: str) -> str:
    """UTF-8 text of a member of an archive, without byte order mark; BadData where it is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadData(f"{place}: not UTF-8 text.") from None


def lines_of(text: str) -> str:
    """Text with its lines kept, each single-spaced, without empty ones."""
    return "\n".join(filter(None, (single_spaced(line) for line in text.splitlines())))


def single_spaced(text: str) -> str:
    """Text on one line, with single spaces."""
    return " ".join(text.split())
