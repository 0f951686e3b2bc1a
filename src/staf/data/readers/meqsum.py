"""MeQSum (Ben Abacha and Demner-Fushman, ACL 2019): consumer health questions, each with a short question.

    MeQSum_ACL2019_BenAbacha_Demner-Fushman.xlsx, sheet QS   File, CHQ (consumer health question), Summary

`SUBJECT:` and `MESSAGE:` stay, each on a line of its own; misspellings stay. Split 80/10/10 by the question.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from staf.data.archives import sheet_rows
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, example
from staf.data.sources import find_one, lines_field, text_field
from staf.data.splits import split_of

LAYOUTS = ("MeQSum_ACL2019_BenAbacha_Demner-Fushman.xlsx", "*.xlsx")
SHEET = "QS"
COLUMNS = ("File", "CHQ", "Summary")


def files(folder: Path) -> list[Path]:
    """The workbook under `folder`; MissingData where it is not there."""
    return [find_one(folder, LAYOUTS, "meqsum")]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """MeQSum as task type summarization, split 80/10/10 by the hash of the question."""

    def make(place: str, row: dict[str, Any]) -> Iterator[Example]:
        question, summary = lines_field(row, "CHQ", place), text_field(row, "Summary", place)
        example_id = f"meqsum/{place.rpartition(' ')[2]}"
        group = dedup_key(question)
        origin = Origin(split_of(group), minhash_keys(question), group)
        yield example(example_id, "summarization", "question", question, summary, origin, output_type="generate_until")

    for path in files(folder):
        yield from report.each(sheet_rows(path, SHEET, COLUMNS), make)
