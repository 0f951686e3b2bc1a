"""A JSON file that is one large object or array, part by part: only a piece of it is in memory at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from staf.data.formats.sources import LONGEST_LINE, opened
from staf.errors import BadData

PIECE = 1 << 20
"""Characters that are read at a time."""


def json_members(path: Path) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Members of the object in a plain or gzipped file, in order, each as (place, (name, value)).

    Behind a member that is not JSON the next one cannot be found, so that such a file is refused from there on.

    Raises:
        BadData: the file is not one JSON object in UTF-8, is cut short, or has a member of more than `LONGEST_LINE` characters.
    """
    with opened(path) as stream:
        text = _Text(stream, path)
        text.take("{")
        while text.next_character() != "}":
            if text.number:
                text.take(",")
            text.number += 1
            name = text.value()
            if not isinstance(name, str):
                raise text.problem()
            text.take(":")
            yield f"{path}, record {text.number}", (name, text.value())
        text.take("}")
        if text.next_character():
            raise text.problem()


def json_items(path: Path) -> Iterator[tuple[str, Any]]:
    """Items of the array in a plain or gzipped file, in order, each as (place, item); refused as `json_members` refuses.

    Raises:
        BadData: the file is not one JSON array in UTF-8, is cut short, or has an item of more than `LONGEST_LINE` characters.
    """
    with opened(path) as stream:
        text = _Text(stream, path)
        if text.next_character() != "[":
            raise BadData(f"{path}: a JSON array is expected.")
        text.take("[")
        while text.next_character() != "]":
            if text.number:
                text.take(",")
            text.number += 1
            yield f"{path}, record {text.number}", text.value()
        text.take("]")
        if text.next_character():
            raise text.problem()


class _Text:
    """A JSON text of which one piece is in memory, and the place in it that is read next."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path = io.TextIOWrapper(stream, "utf-8-sig", newline=""), path
        self._decoder = json.JSONDecoder()
        self._piece, self._start, self._ended = "", 0, False
        self.number = 0
        """Of the member that is read, from 1."""

    def next_character(self) -> str:
        """The next character that is no white space, which stays to be read; '' at the end of the file."""
        while True:
            while self._piece[self._start : self._start + 1] in (" ", "\n", "\t", "\r"):
                self._start += 1
            if self._start < len(self._piece) or self._ended:
                return self._piece[self._start : self._start + 1]
            self._read_on()

    def take(self, expected: str) -> None:
        """Go on behind this character; BadData where another one is next."""
        if self.next_character() != expected:
            raise self.problem()
        self._start += 1

    def value(self) -> Any:
        """The JSON value that is next; BadData where there is none."""
        self.next_character()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._piece, self._start)
            except (ValueError, RecursionError):
                end = 0
            if end and (end < len(self._piece) or self._ended):
                self._start = end
                return value
            if self._ended or len(self._piece) - self._start > LONGEST_LINE:
                raise self.problem()
            self._read_on()

    def problem(self) -> BadData:
        """What to raise where the text is not as expected."""
        return BadData(f"{self._path}, record {self.number}: not valid JSON, cut short, or too long. Get it again.")

    def _read_on(self) -> None:
        """Drop what has been read and double the rest, so that a long value is not scanned for every piece of it."""
        rest = self._piece[self._start :]
        try:
            more = self._stream.read(max(PIECE, len(rest)))
        except UnicodeDecodeError:
            raise BadData(f"{self._path}, near record {self.number}: not UTF-8 text. Get it again.") from None
        self._piece, self._start, self._ended = rest + more, 0, not more
