"""MIMICause: a CSV of E1, E2, Text and Label.

Columns, marks and relations as in the author's card (https://huggingface.co/datasets/pensieves/mimicause, README.md) and in
Khetan et al., 2022 (https://doi.org/10.18653/v1/2022.findings-acl.63); the name of the file is ours.
"""

from __future__ import annotations

import csv
from pathlib import Path

from corpora import COLOURS, PARTS

COLUMNS = ("E1", "E2", "Text", "Label")
RELATIONS = (
    *(f"{verb}({pair})" for verb in ("Cause", "Enable", "Prevent", "Hinder") for pair in ("E1,E2", "E2,E1")),
    "Other",
)


def write_rows(path: Path, rows: list[tuple[str, ...]]) -> None:
    """Rows under the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])


def write(folder: Path) -> None:
    """Eighty pairs, all relations in turn; texts may run over two lines."""
    names = [(colour, part) for part in PARTS for colour in COLOURS]
    rows = [
        (f"{c} salve", f"{p} ache", f"<e1>{c} salve</e1> on day {n} ,\nthen <e2>{p} ache</e2> .", RELATIONS[n % 9])
        for n, (c, p) in enumerate(names)
    ]
    write_rows(folder / "mimicause.csv", rows)


WRITERS = {"mimicause": write}
