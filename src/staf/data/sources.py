"""Source files of data sets, read row by row: text, JSON, XML and CSV.

A bad record is named by file and line, never by its text: the same code reads corpora that must not be quoted.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast
from xml.etree import ElementTree

from staf.data.read_report import ReadReport
from staf.errors import BadData

LONGEST_LINE = 8 << 20
"""Bytes of a line or of one member of a JSON file; more means another format or damage."""
MOST_PIECES = 64
"""A line may be this many times longer, to be skipped."""
NOT_UTF8 = "not UTF-8 text (save the file as such; of a Windows file: iconv -f WINDOWS-1252 -t UTF-8)"
LONGEST_CELL = 4 << 20
"""Characters of a CSV cell."""
MAX_RATIO = 200
"""A gzipped file may unpack to this many times its size, and `SMALL` more; text packs five- to twentyfold."""
SMALL = 64 << 20

NULLS = ("NULL", "null", "\\N", "NA", "<NA>", "NaN", "nan", "NaT", "None")
"""What tools write for an empty cell."""


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
    for number, problem, text in _lines(path):
        if problem:
            report.reject(BadData(f"{path}, line {number}: {problem}."), text)
        else:
            yield number, text


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Number, what is wrong ('' where nothing is) and text of each line."""
    with opened(path) as stream:
        number = 0
        while line := stream.readline(LONGEST_LINE + 1):
            number, problem, start = number + 1, "", line
            if len(line) > LONGEST_LINE:
                problem = f"longer than {LONGEST_LINE:,} bytes"
                yield number, problem, start.decode("utf-8", "backslashreplace")
                for _ in range(MOST_PIECES):
                    line = stream.readline(LONGEST_LINE)
                    if not line or line.endswith(b"\n"):
                        break
                else:
                    raise BadData(f"{path}, line {number}: no end of the line is found. This is no text file.")
                continue
            problem = "holds a NUL byte" if b"\0" in line else ""
            try:
                text = line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                problem, text = NOT_UTF8, line.decode("utf-8", "backslashreplace")
            yield number, problem, text.removeprefix("\ufeff") if number == 1 else text


def paragraphs(path: Path, report: ReadReport, mark: str = "") -> Iterator[tuple[str, int, list[str]]]:
    """Lines between blank lines, or lines that begin with `mark`: place of the first, number of marks before, and the lines."""
    lines, place, marks = list[str](), "", 0
    for number, line in text_lines(path, report):
        is_mark = bool(mark) and line.startswith(mark)
        if line.strip() and not is_mark:
            place = place if lines else f"{path}, line {number}"
            lines.append(line)
            continue
        if lines:
            yield place, marks, lines
            lines = []
        marks += is_mark
    if lines:
        yield place, marks, lines


def xml_records(path: Path, tag: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Elements of an XML file: attributes, and texts of the children, by name; a place has the number of the element.

    Raises:
        BadData: the file is not valid XML.
    """
    number = 0
    with opened(path) as stream:
        try:
            for _, element in ElementTree.iterparse(stream):
                if element.tag == tag:
                    number += 1
                    yield f"{path}, {tag} {number}", element.attrib | {child.tag: child.text or "" for child in element}
                    element.clear()
        except ElementTree.ParseError as error:
            raise BadData(f"{path}, line {error.position[0]}: not valid XML. Get it again.") from None


def csv_rows(
    path: Path,
    report: ReadReport,
    columns: Sequence[str],
    *,
    delimiter: str = ",",
    quoted: bool = True,
    header: bool = True,
    comment: str = "",
    called: str = "",
) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV file, plain or gzipped, as (place, cells by column); place is the first line of the row.

    Args:
        path: of the file.
        report: takes the rows that do not fit.
        columns: names that must be in the header, in any case and order, among others; without header, all names in order.
        delimiter: between cells.
        quoted: False where quotation marks are ordinary characters.
        header: whether the first row holds names.
        comment: start of lines to skip; '' for none.
        called: how messages call the file, where it is a copy.

    Raises:
        BadData: a column is missing, or a bad row is not to be skipped: another number of cells than names, a cell longer
            than `LONGEST_CELL`, a quote that is never closed.
    """
    called = called or str(path)
    rows = parsed_rows(path, columns, delimiter, quoted, header, comment)
    names = columns
    if header:
        _, first, problem, _ = next(rows, (1, [], "", ""))
        if problem:
            raise BadData(f"{called}, line 1: {problem}.")
        names = column_names(called, first, columns)
    for number, cells, problem, text in rows:
        if problem:
            report.reject(BadData(f"{called}, line {number}: {problem}."), text)
        elif cells:
            yield f"{called}, line {number}", dict(zip(names, cells, strict=True))


def parsed_rows(
    path: Path,
    columns: Sequence[str],
    delimiter: str = ",",
    quoted: bool = True,
    header: bool = True,
    comment: str = "",
) -> Iterator[tuple[int, list[str], str, str]]:
    """First line, cells, what is wrong ('' where nothing is) and text of each row, the header included."""
    csv.field_size_limit(LONGEST_CELL)
    width, spellings = 0 if header else len(columns), set(map(_spelling, columns))
    taken: list[tuple[int, str, str]] = []  # the lines of the current row
    lost = False  # after an open quote, until a line has enough cells to begin a row

    def lines() -> Iterator[str]:
        nonlocal lost
        for number, problem, line in _lines(path):
            if lost := lost and line.count(delimiter) < width - 1:
                continue
            is_comment = bool(comment) and not taken and line.startswith(comment)
            if not is_comment or not (width or spellings.difference(map(_spelling, line.split(delimiter)))):
                taken.append((number, problem, line))
                yield line + "\n"

    dialect: Any = {"strict": True} if quoted else {"quoting": csv.QUOTE_NONE}
    reader = csv.reader(lines(), delimiter=delimiter, **dialect)
    while True:
        taken.clear()
        try:
            cells, problem = next(reader, None), ""
        except csv.Error as error:
            cells, problem, lost = [], f"not a row of this format ({error})", width > 0
        if cells is None:
            return
        if cells and width and len(cells) != width:
            problem = f"{width} cells are expected, found {len(cells)}"
        width = width or len(cells)
        problem = next((of_line for _, of_line, _ in taken if of_line), problem)
        yield taken[0][0], cells, problem, "\n".join(line for _, _, line in taken)


def column_names(called: str, header: list[str], columns: Sequence[str]) -> list[str]:
    """The names of the header, as the reader asks for them where case or spelling differs; empty or repeated ones numbered."""
    wanted = {_spelling(name): name for name in columns}
    found = [wanted.get(_spelling(name), name.strip()) for name in header]
    found = [
        name if name and (name in columns or found.index(name) == place) else f"column {place + 1}"
        for place, name in enumerate(found)
    ]
    if missing := [name for name in columns if name not in found]:
        raise BadData(f"{called}, line 1: column {', '.join(missing)} is missing; the header has {len(header)} columns.")
    if twice := [name for name in columns if found.count(name) > 1]:
        raise BadData(f"{called}, line 1: column {', '.join(twice)} occurs twice.")
    return found


def _spelling(name: str) -> str:
    """A column's name as compared for sameness: 'HPO_ID', '#hpo_id' and 'hpo id' are one."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


@contextlib.contextmanager
def named(place: object) -> Iterator[None]:
    """Name the place in the message of what is refused there."""
    try:
        yield
    except BadData as problem:
        raise BadData(f"{place}: {problem}") from None


def listed(record: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A field that must be a list of objects; BadData where it is not."""
    value = record.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadData(f"field '{name}' is missing or not a list of objects.")
    return value


def text_field(record: Mapping[str, Any], name: str) -> str:
    """A field that must be text with something in it, single-spaced; BadData where it is not."""
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadData(f"field '{name}' is missing, empty or not text.")
    return single_spaced(value)


def one_of(record: Mapping[str, Any], name: str, values: Collection[str]) -> str:
    """A field that must be one of some texts; BadData where it is not."""
    if (value := text_field(record, name)) not in values:
        raise BadData(f"the field '{name}' must be one of {', '.join(values)}.")
    return value


def lines_field(record: Mapping[str, Any], name: str) -> str:
    """A field that must be text with something in it: its lines, each single-spaced, without empty ones."""
    text_field(record, name)
    return "\n".join(filter(None, map(single_spaced, record[name].splitlines())))


def decoded(content: bytes) -> str:
    """UTF-8 text without byte order mark; BadData where it is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadData("not UTF-8 text.") from None


def single_spaced(text: str) -> str:
    """Text on one line, with single spaces."""
    return " ".join(text.split())
