"""What a reader tells of its sources: what it found, what it left out and why, and which rows do not fit the format.

A bad row stops the reading, with its file and line. Only where the user asks for it (`--skip-bad`) is it counted and kept in
a side file, to be looked at and mended; its text goes nowhere else.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from staf.errors import BadData

Record = TypeVar("Record")
Made = TypeVar("Made")

MOST_BAD = 10_000
"""With more bad rows than this the file is not of the format that it is read as."""
LONGEST_KEPT = 100_000
"""Characters of a bad row that are kept in the side file."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that does not fit its format."""

    problem: str
    """File, line and what is wrong; never the row's text."""
    content: str
    """The row itself, for the side file alone."""


@dataclass
class Intake:
    """Counts and bad rows of one reading."""

    skip_bad: bool = False
    """Go on after a bad row."""
    facts: Counter[str] = field(default_factory=Counter)
    """What the source files hold, in the words of their documentation."""
    skipped: Counter[str] = field(default_factory=Counter)
    """What was left out on purpose, by reason."""
    bad: list[BadRow] = field(default_factory=list)
    """Rows that do not fit, in order; empty unless `skip_bad`."""

    def count(self, fact: str, number: int = 1) -> None:
        """Note what a source file holds."""
        self.facts[fact] += number

    def skip(self, reason: str, number: int = 1) -> None:
        """Note what is left out on purpose."""
        self.skipped[reason] += number

    def refuse(self, problem: BadData, content: object) -> None:
        """Stop at a bad row, or keep it for the side file where that is wanted.

        Raises:
            BadData: bad rows are not to be skipped, or there are too many.
        """
        if not self.skip_bad:
            raise problem
        if len(self.bad) >= MOST_BAD:
            raise BadData(f"more than {MOST_BAD:,} bad rows, the last one {problem} Is this file of another format?")
        self.bad.append(BadRow(str(problem), _as_text(content)[:LONGEST_KEPT]))

    def each(self, records: Iterable[tuple[str, Record]], make: Callable[[str, Record], Iterable[Made]]) -> Iterator[Made]:
        """What `make` makes of each (place, record), mostly examples; a record that it refuses is a bad row as a whole."""
        for place, record in records:
            try:
                made = list(make(place, record))
            except BadData as problem:
                self.refuse(problem, record)
            else:
                yield from made


def _as_text(content: Any) -> str:
    if isinstance(content, bytes):
        return content.decode("utf-8", "backslashreplace")
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
