"""How long work tells of itself: a bar that the caller draws, lines in a log, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """One piece of work in progress."""

    def advance(self, done: int, note: str = "") -> None:
        """`done` more units are finished."""


class Watcher(Protocol):
    """Whoever watches the work."""

    def bar(self, title: str, total: int) -> AbstractContextManager[Bar]:
        """A bar of `total` units for the time of a `with` block."""

    def say(self, text: str) -> None:
        """One line about what was done or skipped."""


class _Silent:
    def advance(self, done: int, note: str = "") -> None:
        """Nobody watches."""


class Silence:
    """A watcher that shows nothing."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """A bar that is not drawn."""
        yield _Silent()

    def say(self, text: str) -> None:
        """A line that is not printed."""


class Lines:
    """A bar as lines, one for every tenth of the work."""

    def __init__(self, say: Callable[[str], None], title: str, total: int) -> None:
        self.say, self.title, self.total, self.done, self.told = say, title, total, 0, 0
        self.started = time.perf_counter()

    def advance(self, done: int, note: str = "") -> None:
        """`done` more units are finished."""
        self.done += done
        tenth = self.done * 10 // max(self.total, 1)
        if tenth > self.told:
            self.told = tenth
            seconds = time.perf_counter() - self.started
            left = seconds * (self.total - self.done) / self.done
            self.say(f"{self.title}: {self.done}/{self.total}, {seconds:.0f} s, {left:.0f} s left  {note}".rstrip())


class Log:
    """A watcher that writes lines to stderr, for processes whose output is gathered."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """A bar as lines."""
        yield Lines(self.say, title, total)

    def say(self, text: str) -> None:
        """One line."""
        print(text, file=sys.stderr, flush=True)
