"""The named errors that a user can meet.

Each message has four parts: what was asked, what was found, what was expected, what to do.
Only the command line turns them into an exit code; nothing else catches them. No message ever holds text of a patient.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StafError(Exception):
    """User-fixable error: printed as one message, exit code 1."""


class ConfigError(StafError):
    """Settings that are unknown, out of range or contradictory; all mistakes are listed at once."""


class UnknownName(StafError):
    """A task, data set, expert or model kind that does not exist."""

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str]) -> UnknownName:
        """The error for `name`, with the nearest known names first and then all of them."""
        names = sorted(set(known))
        near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
        hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        return cls(f"no {kind} '{name}'.{hint}  Available: {', '.join(names) or 'none'}")


class MissingData(StafError):
    """A file or package that is needed and is not there."""


class BadData(StafError):
    """A corpus file whose content does not fit its format; names file and line, never the text."""


class DamagedFile(StafError):
    """A file of ours that is truncated, altered, not a number, or of a kind that is not read."""


class BaseMismatch(StafError):
    """An expert or router meets another base model than the one it was made on."""


class ExpertMismatch(StafError):
    """Experts that cannot be stacked, or a router made for other experts."""


class TrainingFailed(StafError):
    """Training stopped because the loss was not a number, or its settings cannot be carried out."""


class TestLeak(StafError):
    """A test item was seen in training; nothing is scored until it is resolved."""

    __test__ = False  # pytest would take the name for a test class
