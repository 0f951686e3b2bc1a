"""Members of an archive, or the same files unpacked: read one by one, never written to disk.

A tar or zip archive is refused as a whole where a name in it leads outside, where it holds a link, or where it unpacks
beyond all proportion; nothing of such an archive is to be trusted.
"""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from staf.data.formats.sources import opened
from staf.errors import BadData

LARGEST_MEMBER = 256 << 20
LARGEST_TOTAL = 4 << 30
"""Bytes that a member, and all wanted members together, may unpack to."""


def members(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Each file whose path fits `pattern` (as in fnmatch; '*' also crosses folders), as (name, content).

    A folder, a .tar(.gz) or a .zip; in the order of the archive, or sorted for a folder. Names are POSIX paths.

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
        yield from _zipped(path, pattern) if path.suffix == ".zip" else _tarred(path, pattern)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise BadData(f"{path} is damaged or no archive ({type(error).__name__}). Get it again.") from error


def check_zip(path: Path) -> None:
    """See that a file that is a zip archive within, such as a workbook, holds no outside path and not too much.

    The sizes that its members declare are what zipfile reads of them at most.

    Raises:
        BadData: the file is damaged or no zip archive, holds a path that leads outside, or unpacks to too much.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise BadData(f"{path} is damaged or no archive ({type(error).__name__}). Get it again.") from error
    total = 0
    for entry in entries:
        _check_name(path, entry.filename)
        total = _check_size(path, entry.file_size, total)


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
    total = 0
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            _check_name(path, entry.filename)
        for entry in archive.infolist():
            if not entry.is_dir() and fnmatch(entry.filename, pattern):
                total = _check_size(path, entry.file_size, total)
                with archive.open(entry) as stream:
                    content = stream.read(entry.file_size + 1)
                if len(content) != entry.file_size:
                    raise BadData(f"{path}: a member unpacks to more than it says; refused.")
                yield entry.filename, content


def _check_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or ".." in parts or (parts and ":" in parts[0]):
        raise BadData(f"{path} holds a path that leads outside its folder; refused.")


def _check_size(path: Path, size: int, total: int) -> int:
    if size > LARGEST_MEMBER or total + size > LARGEST_TOTAL:
        raise BadData(f"{path} unpacks to more than {LARGEST_MEMBER:,} bytes a member or {LARGEST_TOTAL:,} in all; refused.")
    return total + size
