"""MMLU: one CSV file for each subject and split, without a header (github.com/hendrycks/test, folder data; Hendrycks and
others, ICLR 2021).
"""

from __future__ import annotations

import csv
from pathlib import Path

SUBJECTS = ("anatomy", "virology")
SIZES = {"dev": 5, "val": 6, "test": 12}


def question(subject: str, part: str, number: int) -> list[str]:
    """A question with its four options and the letter of the right one."""
    beast = f"{subject} beast {number} of {part}"
    return [f"What ails the\n{beast}?", "Its horn.", "Its hoof; both of them", "Its tail", "Both A and C", "ABCD"[number % 4]]


def table(subject: str, part: str) -> list[list[str]]:
    """The rows of a file; repeated questions within test and val, and between splits."""
    rows = [question(subject, part, number) for number in range(SIZES[part])]
    if part == "test":
        rows[3] = rows[2]
        rows[5] = ["Which cross gives a horn?", "HH hh", "Hh Hh", "hh hh", "HH HH", "B"]
    else:
        rows[1] = question(subject, "test", 1)
    if part == "dev":
        rows[4] = ["Which way does it run?", "left", "right", "left", "back", "D"]
    return rows


def write(folder: Path) -> None:
    """Two subjects in three splits."""
    for part in SIZES:
        (folder / "data" / part).mkdir(parents=True, exist_ok=True)
        for subject in SUBJECTS:
            path = folder / "data" / part / f"{subject}_{part}.csv"
            with path.open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream).writerows(table(subject, part))


WRITERS = {"mmlu-medical": write}
