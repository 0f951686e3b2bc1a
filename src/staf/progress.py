"""How long work tells of itself: a bar that the caller draws, or nobody does."""

from __future__ import annotations

from collections.abc import Iterator
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
