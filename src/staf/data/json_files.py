"""JSON files: lines, one object, and objects or arrays too large for memory.

A bad record is named by file and line or number, never by its text.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from staf.data.read_report import ReadReport
from staf.data.sources import LONGEST_LINE, opened, text_lines
from staf.errors import BadData

PIECE = 1 << 20
"""Characters of a JSON file that are read at once."""


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
            record = json.loads(line, object_pairs_hook=_each_name_once)
        except (ValueError, RecursionError):
            report.reject(BadData(f"{place}: not valid JSON."), line)
            continue
        if isinstance(record, dict):
            yield place, record
        else:
            report.reject(BadData(f"{place}: a JSON object is expected, found {type(record).__name__}."), line)


def _each_name_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(members)
    if len(content) < len(members):
        raise ValueError("a name occurs twice in one object")
    return content


def _refused_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_each_name_once, parse_constant=_refused_constant)


def json_object(path: Path) -> dict[str, Any]:
    """The content of a JSON file, plain or gzipped, that holds one object.

    Raises:
        BadData: the file is not JSON in UTF-8, or something else than an object.
    """
    try:
        with opened(path) as stream:
            if stream.peek(1)[:1] == b"\0":  # a sparse file may be larger than the memory
                raise ValueError
            content = json.loads(stream.read(), object_pairs_hook=_each_name_once)
    except (ValueError, RecursionError) as error:
        place = f"{path}, line {error.lineno}" if isinstance(error, json.JSONDecodeError) else str(path)
        raise BadData(f"{place}: not valid JSON. Get it again.") from None
    if not isinstance(content, dict):
        raise BadData(f"{path}: a JSON object is expected, found {type(content).__name__}.")
    return content


def json_members(path: Path) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Members (name, value) of a JSON object too large for memory, one by one, each with its place.

    Raises:
        BadData: the file is not one JSON object in UTF-8, is cut short, or a member is longer than `LONGEST_LINE`.
    """
    yield from _streamed(path, "{}", "object")


def json_items(path: Path, report: ReadReport) -> Iterator[tuple[str, Any]]:
    """Items of a JSON array too large for memory, one by one, each with its place; errors as `json_members`."""
    for place, (_, item) in _streamed(path, "[]", "array"):
        yield place, item


def _streamed(path: Path, brackets: str, kind: str) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Place, name ('' in an array) and value of each member of the outermost object or array.

    (ijson would read half of a surrogate pair as '?'.)
    """
    number, position = 1, 0
    with opened(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig")
        try:
            buffer = text.read(PIECE).lstrip()
            if buffer[:1] != brackets[0]:
                raise ValueError
            if "".join(buffer.split(maxsplit=2)) == brackets:
                return
            while True:
                try:
                    name, value, end = _member(buffer, position + 1, brackets)
                except (ValueError, IndexError):  # an error, or more text is needed
                    more = text.read(PIECE)
                    if not more or len(buffer) - position > LONGEST_LINE:
                        raise ValueError from None
                    buffer, position = buffer[position:] + more, 0
                    continue
                if end - position > LONGEST_LINE:
                    raise ValueError
                yield f"{path}, record {number}", (name, value)
                number += 1
                if buffer[end] == brackets[1]:
                    break
                position = end
            if (buffer[end + 1 :] + text.read(PIECE)).strip():
                raise ValueError
        except (ValueError, RecursionError):
            raise BadData(f"{path}, record {number}: not a valid JSON {kind}, cut short, or too long. Get it again.") from None


def _member(text: str, start: int, brackets: str) -> tuple[str, Any, int]:
    """Name and value of the member at `start`, and where the comma or bracket after it stands; ValueError, IndexError."""
    name, place = "", _after_space(text, start)
    if brackets == "{}":
        name, place = _DECODER.raw_decode(text, place)
        place = _after_space(text, place)
        if not isinstance(name, str) or text[place] != ":":
            raise ValueError
        place = _after_space(text, place + 1)
    value, place = _DECODER.raw_decode(text, place)
    place = _after_space(text, place)
    if text[place] not in (",", brackets[1]):
        raise ValueError
    return name, value, place


def _after_space(text: str, place: int) -> int:
    while text[place] in " \t\r\n":
        place += 1
    return place
