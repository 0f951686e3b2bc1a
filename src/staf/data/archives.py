"""Members of archives (or of the folder they were unpacked to) and sheets of workbooks, never written to disk.

An archive is refused entirely where a name in it leads outside, where it holds a link, or where it unpacks out of proportion.
"""

from __future__ import annotations

import lzma
import stat
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from staf.data.sources import opened
from staf.errors import BadData

LARGEST_MEMBER = 256 << 20
LARGEST_TOTAL = 4 << 30
"""Bytes that a member, and all wanted members together, may unpack to."""
MOST_ROWS = 1 << 20
"""Rows that a sheet can have; a row number beyond it would make openpyxl yield empty rows without end."""

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError)
_DAMAGED_SHEET = (*_DAMAGE, SyntaxError, LookupError, ValueError, TypeError, AttributeError)
"""What openpyxl and the XML parsers below it raise at parts that are cut short, missing or of another format."""


def members(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file whose path matches `pattern` (as in fnmatch; '*' also crosses folders).

    Args:
        path: a folder, a .tar(.gz) or a .zip.
        pattern: for POSIX paths; the order is that of the archive, or sorted for a folder.

    Raises:
        BadData: the archive is damaged, holds a path that leads outside or a link, or unpacks to too much.
    """
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path).as_posix()
            if file.is_file() and fnmatch(name, pattern):
                yield name, file.read_bytes()
        return
    try:
        yield from _zipped(path, pattern) if path.suffix in (".zip", ".whl") else _tarred(path, pattern)
    except _DAMAGE as error:
        raise BadData(f"{path} is damaged or no archive ({type(error).__name__}). Get it again.") from error


def _tarred(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    total = 0
    with opened(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in archive:
            _check_name(path, entry.name)
            if entry.issym() or entry.islnk() or entry.isdev():
                raise BadData(f"{path} holds a link or a device; refused.")
            if entry.isfile() and fnmatch(entry.name, pattern):
                total = _check_size(path, entry.size, total)
                content = archive.extractfile(entry)
                if content is not None:
                    yield entry.name, content.read()
        while stream.read(1 << 20):  # to the end, where a file that was cut short shows
            pass


def _zipped(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        wanted = [e for e in archive.infolist() if not e.is_dir() and fnmatch(e.filename, pattern)]
        _check_zip(path, archive.infolist(), wanted)
        for entry in wanted:
            with archive.open(entry) as stream:
                content = stream.read(entry.file_size + 1)
            if len(content) != entry.file_size:
                raise BadData(f"{path}: a member unpacks to more than it says; refused.")
            yield entry.filename, content


def _check_zip(path: Path, entries: Iterable[zipfile.ZipInfo], wanted: Iterable[zipfile.ZipInfo]) -> None:
    """Check the names of all members, and the declared sizes of those that are unpacked (zipfile reads no more)."""
    for entry in entries:
        _check_name(path, entry.filename)
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise BadData(f"{path} holds a symbolic link; refused.")
    total = 0
    for entry in wanted:
        total = _check_size(path, entry.file_size, total)


def _check_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or ".." in parts or (parts and ":" in parts[0]):
        raise BadData(f"{path} holds a path that leads outside its folder; refused.")


def _check_size(path: Path, size: int, total: int) -> int:
    if size > LARGEST_MEMBER or total + size > LARGEST_TOTAL:
        raise BadData(f"{path} unpacks to more than {LARGEST_MEMBER:,} bytes a member or {LARGEST_TOTAL:,} in all; refused.")
    return total + size


def sheet_rows(path: Path, sheet: str, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a sheet of an .xlsx workbook as (place, values by column), without empty rows and unnamed columns.

    Args:
        path: of the workbook.
        sheet: its name.
        columns: names that must be in the first row, in any order, among others.

    Raises:
        BadData: the file is damaged or no workbook, unpacks out of proportion, has no such sheet or lacks a column.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_zip(path, archive.infolist(), archive.infolist())
    except _DAMAGE as error:
        raise BadData(f"{path} is damaged or no archive ({type(error).__name__}). Get it again.") from error
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
    """Rows of a sheet as values; the dimensions that the sheet claims are ignored."""
    import openpyxl

    try:
        with path.open("rb") as stream:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about styles and extensions that it does not know
                workbook = openpyxl.load_workbook(stream, read_only=True, data_only=True)
            if sheet not in workbook.sheetnames:
                raise BadData(f"{path}: no sheet {sheet} among its {len(workbook.sheetnames)}.")
            table = workbook[sheet]
            table.reset_dimensions()
            yield from table.iter_rows(values_only=True)
    except _DAMAGED_SHEET as error:
        raise BadData(f"{path} is damaged or no Excel workbook ({type(error).__name__}). Get it again.") from error
