"""Members of archives and sheets of workbooks, never written to disk.

An archive is refused entirely where a name in it leads outside, where it holds a link, or where it unpacks out of proportion.
"""

from __future__ import annotations

import lzma
import re
import stat
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from functools import partial
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any

from staf.data.layouts import is_hidden
from staf.data.read_report import ReadReport
from staf.data.sources import opened
from staf.errors import BadData

LARGEST_MEMBER = 256 << 20
LARGEST_TOTAL = 4 << 30
"""Bytes that a member, and all wanted members together, may unpack to."""
MOST_ROWS = 1 << 20
"""Rows that a sheet can have; a row number beyond it would make openpyxl yield empty rows without end."""

_UNSAVED = re.compile(rb"""<c (?![^>]*t="str")[^>]*?r="([A-Z]+\d+)"[^>]*><f\b[^>]*(?:/>|>[^<]*</f>)(?:<v ?/>|<v></v>)?</c>""")
"""A cell of a sheet with a formula and no value, as programs other than spreadsheets write it."""

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError, NotImplementedError, ValueError)
_DAMAGED_SHEET = (*_DAMAGE, SyntaxError, LookupError, ValueError, TypeError, AttributeError)
"""What openpyxl and the XML parsers below it raise at parts that are cut short, missing or of another format."""


def members(path: Path, pattern: str) -> Iterator[tuple[str, str, bytes]]:
    """Place, name and content of each member of an archive whose name matches; of another file, of the file itself.

    Args:
        path: a .tar(.gz) or a .zip, or one of the files that were unpacked from it.
        pattern: for POSIX paths, as in fnmatch ('*' also crosses folders); the order is that of the archive.

    Raises:
        BadData: the archive is damaged or encrypted, holds a path that leads outside or a link, or unpacks to too much.
    """
    is_tar = not {".tar", ".tgz"}.isdisjoint(path.suffixes)
    if not is_tar and path.suffix not in (".zip", ".whl"):
        if fnmatch(path.as_posix(), pattern):
            _checked_total(path, path.stat().st_size, 0)
            with opened(path) as stream:
                yield str(path), path.as_posix(), stream.read()
        return
    total, seen = 0, set[str]()
    try:
        for name, size, content in _tarred(path) if is_tar else _zipped(path):
            _check_name(path, name)
            if content is None or not fnmatch(name, pattern) or is_hidden(PurePosixPath(name)):
                continue
            if name in seen:
                raise BadData(f"{path}: a member comes twice; refused.")
            seen.add(name)
            total = _checked_total(path, size, total)
            data = content()
            if len(data) != size:
                raise BadData(f"{path}: a member is not of the size that it says; refused.")
            yield f"{path}, {name}", name, data
    except _DAMAGE as error:
        raise BadData(f"{path} is damaged or no archive ({type(error).__name__}). Get it again.") from error


_Member = tuple[str, int, Callable[[], bytes] | None]
"""Name, unpacked size and content of a member; no content of a folder."""


def _tarred(path: Path) -> Iterator[_Member]:
    with opened(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in archive:
            if entry.issym() or entry.islnk() or entry.isdev():
                raise BadData(f"{path} holds a symbolic link or a device; refused.")
            content = archive.extractfile(entry)
            yield entry.name, entry.size, content.read if content is not None else None
        while path.suffix != ".tar" and stream.read(1 << 20):  # to the end, where a file that was cut short shows
            pass


def _zipped(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.flag_bits & 1:
                raise BadData(f"{path} is encrypted. Unpack it, and put the files in its place.")
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise BadData(f"{path} holds a symbolic link or a device; refused.")
            yield entry.filename, entry.file_size, None if entry.is_dir() else partial(archive.read, entry)


def _check_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or ".." in parts or (parts and ":" in parts[0]):
        raise BadData(f"{path} holds a path that leads outside its folder; refused.")


def _checked_total(path: Path, size: int, total: int) -> int:
    """The total with one more member; BadData where it, or the member, is too large."""
    if size > LARGEST_MEMBER or total + size > LARGEST_TOTAL:
        raise BadData(f"{path} unpacks to more than {LARGEST_MEMBER:,} bytes a member or {LARGEST_TOTAL:,} in all; refused.")
    return total + size


def sheet_rows(
    path: Path, report: ReadReport, sheet: str | None, columns: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a sheet of an .xlsx workbook as (place, values by column), without empty rows and unnamed columns.

    Args:
        path: of the workbook.
        sheet: its name; None is the first one.
        columns: names that must be in the first row, in any order, among others.

    Raises:
        BadData: the file is damaged or no workbook, unpacks out of proportion, has no such sheet, lacks a column, or holds a
            formula whose value was not saved.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            total = 0
            for entry in archive.infolist():
                _check_name(path, entry.filename)
                total = _checked_total(path, entry.file_size, total)
    except _DAMAGE as error:
        raise BadData(f"{path} is damaged or no archive ({type(error).__name__}). Get it again.") from error
    values = _values(path, sheet)
    names = [str(value).strip() if value is not None else "" for value in next(values, ())]
    if missing := [column for column in columns if column not in names]:
        raise BadData(f"{path}, sheet {sheet}, row 1: column {', '.join(missing)} is missing.")
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise BadData(f"{path}: column '{twice[0]}' occurs twice in the first row. Give each its own name.")
    for number, row in enumerate(values, start=2):
        if number > MOST_ROWS:
            raise BadData(f"{path}, sheet {sheet}: more than {MOST_ROWS:,} rows; refused.")
        if any(value is not None for value in row):
            yield f"{path}, sheet {sheet}, row {number}", {n: v for n, v in zip_longest(names, row[: len(names)]) if n}


def _values(path: Path, sheet: str | None) -> Iterator[tuple[Any, ...]]:
    """Rows of a sheet as values; the dimensions that the sheet claims are ignored."""
    import openpyxl

    try:
        with path.open("rb") as stream:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about styles and extensions that it does not know
                workbook = openpyxl.load_workbook(stream, read_only=True, data_only=True)
            if sheet is None:
                sheet = workbook.sheetnames[0]
            if sheet not in workbook.sheetnames:
                raise BadData(f"{path}: no sheet {sheet} among its {len(workbook.sheetnames)}.")
            table: Any = workbook[sheet]
            table.reset_dimensions()
            with table._get_source() as source:
                if unsaved := _UNSAVED.search(source.read()):
                    raise BadData(
                        f"{path}: cell {unsaved[1].decode()} holds a formula without a saved value. Open the workbook in Excel "
                        "or LibreOffice and save it, or save the table as CSV."
                    )
            yield from table.iter_rows(values_only=True)
    except _DAMAGED_SHEET as error:
        raise BadData(f"{path} is damaged or no Excel workbook ({type(error).__name__}). Get it again.") from error
