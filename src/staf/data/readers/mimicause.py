"""MIMICause (Khetan et al., 2022): the relation of two concepts in a clinical note.

    E1,E2,Text,Label
    Florin,swelling,"Took <e1>Florin</e1> , stopped for <e2>swelling</e2> .","Cause(E1,E2)"

The columns are those of the data card (huggingface.co/datasets/pensieves/mimicause). The file's name and the spelling of its
labels are not documented in public: any single CSV file is read, and a label by name in any case and spacing, or by its
number 0 to 8. There is no published split: pairs are split by text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key, normalise
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, pair
from staf.data.sources import csv_rows, find_one, single_spaced, text_field, vocabulary
from staf.data.splits import split_of
from staf.errors import BadData

NAME = "mimicause"
LAYOUTS = ("*.csv", "*/*.csv")
COLUMNS = ("E1", "E2", "Text", "Label")
RELATIONS: dict[str, str] = vocabulary("mimicause_relations")
LABELS = tuple(RELATIONS.values())

_BY_NUMBER = {str(number): label for number, label in enumerate(LABELS)}
_MARK = re.compile(r"</?e[12]>", re.IGNORECASE)


def files(folder: Path) -> list[Path]:
    """The CSV file; MissingData where it is not there, BadData where there are several."""
    return [find_one(folder, LAYOUTS, NAME)]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """Pairs as task type relation_extraction, split 80/10/10 by the hash of their text."""
    for path in files(folder):
        yield from report.each(csv_rows(path, COLUMNS, report), lambda place, row: _example(place, row, report))


def _example(place: str, row: dict[str, str], report: ReadReport) -> Iterator[Example]:
    first, second, marked, label = (text_field(row, name, place) for name in COLUMNS)
    answer = RELATIONS.get(re.sub(r"\s", "", label).casefold()) or _BY_NUMBER.get(label)
    if answer is None:
        raise BadData(f"{place}: the label is none of Cause, Enable, Prevent or Hinder with (E1,E2) or (E2,E1), or Other.")
    if not all(f"<e{number}>" in marked.casefold() for number in (1, 2)):
        raise BadData(f"{place}: the text does not mark both entities, by <e1>..</e1> and <e2>..</e2>.")
    text = single_spaced(_MARK.sub("", marked))
    group = normalise(text)
    origin = Origin(split_of(group), minhash_keys(text), dedup_key(group))
    yield pair(f"{NAME}/{place.rpartition(' ')[2]}", (first, second), text, answer, LABELS, origin)
