"""MMLU: eleven medical subjects.

    data/<split>/<subject>_<split>.csv     question,A,B,C,D,letter of the answer     (no header; dev, val and test)

Dev is train, val is adaptation. A question that occurs twice with the same options counts once, in test before val before
dev. Case is kept: some options are genotypes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from staf.data.example import Example, dedup_key
from staf.data.read_report import ReadReport
from staf.data.readers.multiple_choice import option_text, question_example
from staf.data.sources import csv_rows, find, text_field
from staf.errors import BadData

SPLITS = {"test": "test", "val": "adaptation", "dev": "train"}
"""Ours by theirs, in the order in which they are read."""
LETTERS = ("A", "B", "C", "D")


def files(folder: Path) -> list[Path]:
    """The files under `folder`, split by split, one a subject; MissingData where a split has none."""
    return [path for part in SPLITS for path in find(folder, (f"data/{part}/*_{part}.csv",), "mmlu-medical")]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """MMLU as task type multiple_choice, in its authors' split."""
    seen: dict[str, str] = {}
    for path in files(folder):
        yield from _subject(path, seen, report)


def _subject(path: Path, seen: dict[str, str], report: ReadReport) -> Iterator[Example]:
    """Examples of one file; `seen` holds the questions of those before, and the split of each."""
    name, _, part = path.stem.rpartition("_")

    def make(place: str, row: dict[str, str]) -> Iterator[Example]:
        question, letter = text_field(row, "question", place), text_field(row, "answer", place)
        lettered = {one: option_text(text_field(row, one, place)) for one in LETTERS}
        if letter not in lettered:
            raise BadData(f"{place}: the answer must be one of {', '.join(LETTERS)}.")
        options = list(lettered.values())
        key = dedup_key(" ".join([question, *options]))
        if key in seen:
            report.skip("the same question with the same options is there already")
            return
        seen[key] = part
        if len(set(options)) < len(options):
            report.skip("an option is listed twice")
        else:
            number = place.rpartition(" ")[2]
            yield question_example(f"mmlu-medical/{part}/{name}/{number}", question, options, lettered[letter], SPLITS[part])

    columns = ("question", *LETTERS, "answer")
    yield from report.each(csv_rows(path, columns, report, header=False), make)
