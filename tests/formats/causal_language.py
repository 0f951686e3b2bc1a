"""Causal language: sentences with a code (README of github.com/junwang4/causal-language-use-in-science; Yu et al., 2019)."""

from __future__ import annotations

import csv
from pathlib import Path

from corpora import COLOURS, PARTS

NAME = "pubmed_causal_language_use.csv"


def write_rows(folder: Path, rows: list[tuple[str, str]]) -> None:
    """The file of the given sentences and codes."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("sentence", "label"), *rows])


def write(folder: Path) -> None:
    """Eighty sentences, of the four codes in turn."""
    claims = ("has", "causes", "may cause", "goes with")
    pairs = [(colour, part) for colour in COLOURS for part in PARTS]
    write_rows(folder, [(f"A {c} {p} {claims[n % 4]} a cold, rain or not.", str(n % 4)) for n, (c, p) in enumerate(pairs)])


WRITERS = {"pubmed-causal-language": write}
