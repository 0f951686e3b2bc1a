"""What every reader does with a record that does not fit: stop and name it, or keep it aside where that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from staf.data.example import Example
from staf.data.read_report import ReadReport
from staf.errors import BadData

SECRET = "the secret beast"
"""Stands in records that do not fit, and never in a message."""


def refused(read: Callable[[Path, ReadReport], Iterator[Example]], folder: Path, message: str) -> None:
    """Reading stops with this message and no text of the record; with `skip_rejected` it goes on and keeps one bad row."""
    with pytest.raises(BadData, match=message) as caught:
        list(read(folder, ReadReport()))
    assert "secret" not in str(caught.value)
    report = ReadReport(skip_rejected=True)
    list(read(folder, report))
    assert [row.problem for row in report.rejected] == [str(caught.value)]
