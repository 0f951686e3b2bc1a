"""The time of a row of a comparison: it is ended between two steps, where the next one would be too late."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from staf.errors import StafError
from staf.log import Bar, Progress


class OutOfTime(StafError):
    """A row of a comparison takes more time than it has."""


class Deadline(Progress):
    """Progress that ends what it shows: `advance` raises OutOfTime where another step like the last one would be too late.

    Args:
        shown: the progress that shows it. seconds: from now on.
    """

    def __init__(self, shown: Progress, seconds: float) -> None:
        self.shown, self.last = shown, time.perf_counter()
        self.end = self.last + seconds

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """A bar of `total` units; it is not ended after the last one."""
        with self.shown.bar(title, total) as bar:
            yield _EndedBar(bar, total, self)

    def log(self, text: str) -> None:
        """Show one line."""
        self.shown.log(text)


class _EndedBar(Bar):
    def __init__(self, bar: Bar, total: int, deadline: Deadline) -> None:
        self.bar, self.left, self.deadline, self.begun = bar, total, deadline, False

    def advance(self, done: int, note: str = "") -> None:
        """`done` more units are finished; with 0 a step begins, and what is before the first one, such as loading, is none."""
        self.bar.advance(done, note)
        self.left -= done
        now, deadline = time.perf_counter(), self.deadline
        step, deadline.last = now - deadline.last if done or self.begun else 0.0, now
        self.begun = True
        if self.left > 0 and now + step > deadline.end:
            raise OutOfTime("there is no time for the next step.")
