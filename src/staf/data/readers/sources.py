"""What all readers share on the side of files: finding them, opening them, naming a bad record.

A bad record is named by file and number, never by its text: the same code reads corpora that may not be quoted.
"""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from staf.errors import BadData, MissingData


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


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a plain or gzipped file, as a stream.

    Raises:
        BadData: the gzip stream is damaged or stops early.
    """
    try:
        with cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb") as stream:
            yield stream
    except (EOFError, gzip.BadGzipFile) as error:
        raise BadData(f"{path} is damaged or cut short ({type(error).__name__}). Get it again.") from error


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines (from 1) of a UTF-8 file, plain or gzipped, without their ends.

    Raises:
        BadData: a line is not UTF-8, or the gzip stream is damaged.
    """
    with opened(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield number, line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise BadData(f"{path}, line {number}: not UTF-8 text.") from error


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records of a JSON-lines file, each with its place ('FILE, line N'); blank lines are passed over.

    Raises:
        BadData: a line is not a JSON object.
    """
    for number, line in text_lines(path):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise BadData(f"{place}: not valid JSON.") from error
        if not isinstance(record, dict):
            raise BadData(f"{place}: a JSON object is expected, found {type(record).__name__}.")
        yield place, record


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object that a whole file holds.

    Raises:
        BadData: the file is not JSON, or not an object.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise BadData(f"{path} is not valid JSON. Get it again.") from error
    if not isinstance(content, dict):
        raise BadData(f"{path}: a JSON object is expected, found {type(content).__name__}.")
    return content


def text_field(record: dict[str, Any], name: str, place: str) -> str:
    """A field that must be text with something in it, its white space made single.

    Raises:
        BadData: the field is missing, not text, or empty.
    """
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadData(f"{place}: field '{name}' is missing, empty or not text.")
    return single_spaced(value)


def single_spaced(text: str) -> str:
    """Text on one line, its white space made single."""
    return " ".join(text.split())
