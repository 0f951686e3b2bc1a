"""Report of one reading: what was left out and why, and which rows do not fit the format.

A row that does not fit stops the reading, with its file and line. Only where the user asks for it (`--skip-invalid`) is it
counted and kept in a side file, to be looked at; its text goes nowhere else.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from staf.data.example import Example
from staf.errors import BadData

Record = TypeVar("Record")
Made = TypeVar("Made")

MAX_REJECTED = 10_000
"""With more bad rows than this the file is not of the format that it is read as."""
MAX_KEPT = 100_000
"""Characters of a bad row that are kept in the side file."""
HALF_CHARACTER = "a text holds half of a surrogate pair, which is no character."


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that does not fit its format."""

    problem: str
    """File, line and what is wrong; never the row's text."""
    content: str
    """The row itself, for the side file only."""


@dataclass
class ReadReport:
    """Skipped items and bad rows of one reading."""

    skip_rejected: bool = False
    """Go on after a bad row."""
    scratch: Path | None = None
    """A folder for temporary files; None takes the cache."""
    skipped: Counter[str] = field(default_factory=Counter)
    """What was left out on purpose, by reason."""
    rows: dict[str, list[str]] = field(default_factory=dict)
    """Numbers of the rows of own tables that were left out, by reason; of several files with their names."""
    rejected: list[RejectedRow] = field(default_factory=list)
    """Rows that do not fit, in order; empty unless `skip_rejected`."""

    def skip(self, reason: str, number: int = 1) -> None:
        """Note what is left out on purpose."""
        if number:
            self.skipped[reason] += number

    def skip_row(self, reason: str, row: str) -> None:
        """Note that a row of an own table is left out on purpose."""
        self.skip(reason)
        self.rows.setdefault(reason, []).append(row)

    def reject(self, problem: BadData, content: object) -> None:
        """Raise the problem of a bad row, or keep the row for the side file where that is wanted and there are not too many."""
        if not self.skip_rejected:
            raise problem
        if len(self.rejected) >= MAX_REJECTED:
            raise BadData(f"more than {MAX_REJECTED:,} bad rows, the last one {problem} Is this file of another format?")
        self.rejected.append(RejectedRow(str(problem), _as_text(content)[:MAX_KEPT]))

    def each(self, records: Iterable[tuple[str, Record]], make: Callable[[str, Record], Iterable[Made]]) -> Iterator[Made]:
        """What `make` makes of each (place, record), mostly examples; a record that it refuses is rejected, with its place."""
        for place, record in records:
            try:
                made = list(make(place, record))
                for example in (item for item in made if isinstance(item, Example)):
                    f"{example.id}{example.query}{example.context}{example.answer}".encode()
            except BadData as problem:
                self.reject(BadData(f"{place}: {problem}"), record)
            except UnicodeEncodeError:
                self.reject(BadData(f"{place}: {HALF_CHARACTER}"), record)
            else:
                yield from made


def _as_text(content: Any) -> str:
    if isinstance(content, bytes):
        return content.decode("utf-8", "backslashreplace")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace").decode()
