"""What all readers share on the side of files: finding them, opening them, naming a bad record.

A bad record is named by file and number, never by its text: the same code reads corpora that may not be quoted.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from staf.data.read_report import ReadReport
from staf.errors import BadData, MissingData

LONGEST_LINE = 8 << 20
"""Bytes; a longer line is no record of any corpus, but a file of another format or a damaged one."""
MAX_RATIO = 200
"""A gzipped file may unpack to this many times its size, and `SMALL` more; text packs five- to twentyfold."""
SMALL = 64 << 20

Content = TypeVar("Content", dict[str, Any], list[Any])
_JSON_NAMES: dict[type, str] = {dict: "a JSON object", list: "a JSON array"}


def find(folder: Path, layouts: Sequence[str], dataset: str) -> list[Path]:
    """The files of the first layout (a glob pattern) that matches anything under `folder`, sorted by name.

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
        BadData: several files match, so that which one is meant is a guess.
    """
    found = find(folder, layouts, dataset)
    if len(found) > 1:
        raise BadData(
            f"{dataset}: {folder} holds {len(found)} files where one is expected "
            f"({', '.join(path.name for path in found[:3])}). Leave the one that is meant."
        )
    return found[0]


class _Bounded(io.RawIOBase):
    """An unpacked stream that stops where it grows beyond all proportion to its file."""

    def __init__(self, stream: BinaryIO, path: Path, packed: int) -> None:
        self._stream, self._path = stream, path
        self._limit, self._read = packed * MAX_RATIO + SMALL, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._stream.read(len(buffer))
        buffer[: len(part)] = part
        self._read += len(part)
        if self._read > self._limit:
            raise BadData(f"{self._path} unpacks to more than {MAX_RATIO} times its size; refused. Unpack it by hand.")
        return len(part)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a plain or gzipped file, as a stream.

    Raises:
        BadData: the gzip stream is damaged, stops early, or unpacks beyond all proportion.
    """
    try:
        if path.suffix not in (".gz", ".tgz"):
            with path.open("rb") as stream:
                yield stream
        else:
            with gzip.open(path, "rb") as packed:
                bounded = _Bounded(cast(BinaryIO, packed), path, path.stat().st_size)
                yield cast(BinaryIO, io.BufferedReader(bounded, 1 << 20))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadData(f"{path} is damaged or cut short ({type(error).__name__}). Get it again.") from error


def text_lines(path: Path, report: ReadReport) -> Iterator[tuple[int, str]]:
    """Numbered lines (from 1) of a UTF-8 file, plain or gzipped, without their ends; the byte order mark is dropped.

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
    """Records of a JSON-lines file, each with its place ('FILE, line N'); blank lines are passed over.

    A line that is not a JSON object is a bad row.

    Raises:
        BadData: a bad row that is not to be skipped.
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
    """What a whole JSON file holds, plain or gzipped: an object (dict) or an array (list).

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


def listed(record: dict[str, Any], name: str, place: str) -> list[dict[str, Any]]:
    """A field that must be a list of objects.

    Raises:
        BadData: the field is missing or something else.
    """
    value = record.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadData(f"{place}: field '{name}' is missing or not a list of objects.")
    return value


def text_field(record: dict[str, Any], name: str, place: str) -> str:
    """A field that must be text with something in it, its white space made single.

    Raises:
        BadData: the field is missing, not text, or empty.
    """
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadData(f"{place}: field '{name}' is missing, empty or not text.")
    return single_spaced(value)


def lines_field(record: dict[str, Any], name: str, place: str) -> str:
    """A field that must be text with something in it, its lines kept as `lines_of` keeps them.

    Raises:
        BadData: the field is missing, not text, or empty.
    """
    text_field(record, name, place)
    return lines_of(record[name])


def lines_of(text: str) -> str:
    """Text with its lines kept, each single-spaced; empty ones dropped."""
    return "\n".join(filter(None, (single_spaced(line) for line in text.splitlines())))


def single_spaced(text: str) -> str:
    """Text on one line, its white space made single."""
    return " ".join(text.split())
