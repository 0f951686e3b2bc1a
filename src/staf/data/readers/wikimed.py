"""WikiMed (Vashishth et al., 2021): the types of medical concepts that a Wikipedia page mentions.

    WikiMed.json   one page a line: {"_id", "title", "text", "split": "train|valid|test", "mentions": [mention, ..]}
                   mention: {"mention", "start_offset", "end_offset", "link_id": "C0000001|C0000002"}
    MRSTY.RRF      semantic types by concept, from the UMLS

Labels are the coarse types (`semantic_types`) of the concepts that the first 2,000 characters of a page mention. Concepts
that MRSTY does not list are left out, and so is a page that has no others. The authors' splits are used (valid is
adaptation); a page without one is drawn 80/10/10 by its id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staf.data.answers import write_several
from staf.data.dedup import minhash_keys
from staf.data.example import Example
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import WINDOW, Origin, example
from staf.data.readers.umls import LAYOUTS
from staf.data.sources import csv_rows, find_one, json_lines, listed, single_spaced, text_field, vocabulary
from staf.data.splits import split_of
from staf.errors import BadData

LABELS = tuple(vocabulary("semantic_types"))
COARSE = {fine: coarse for coarse, fines in vocabulary("semantic_types").items() for fine in fines}
"""Coarse type of each semantic type of the UMLS."""
PAGES = ("WikiMed.json", "wikimed.json", "*/WikiMed.json", "*/wikimed.json")
TYPES = ("MRSTY.RRF", "MRSTY.RRF.gz", "**/META/MRSTY.RRF", "**/META/MRSTY.RRF.gz")
TYPE_COLUMNS = (*LAYOUTS["MRSTY"].split(), "")
"""Of MRSTY.RRF; every row ends in a bar, so that the last cell is empty."""
SPLITS = {"train": "train", "valid": "adaptation", "test": "test"}

_BITS = {label: 1 << place for place, label in enumerate(LABELS)}
_CONCEPT = re.compile(r"C(\d{7})")


@dataclass(frozen=True, slots=True)
class Page:
    """One line of WikiMed: of each mention its end in the text, and the numbers of its concepts."""

    id: str
    text: str
    split: str
    mentions: tuple[tuple[int, tuple[int, ...]], ...]

    @property
    def shown(self) -> int:
        """How many characters an example shows: at most `WINDOW`, cut before a space."""
        if len(self.text) <= WINDOW:
            return len(self.text)
        last = self.text.rfind(" ", 0, WINDOW + 1)
        return last if last > 0 else WINDOW


def files(folder: Path) -> list[Path]:
    """The pages and the UMLS's semantic types under `folder`; MissingData where one is not there."""
    return [find_one(folder, PAGES, "wikimed"), find_one(folder, TYPES, "wikimed")]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """WikiMed as task type document_classification."""
    pages, types = files(folder)
    known = concept_types(types, report)

    def make(place: str, record: dict[str, Any]) -> Iterator[Example]:
        page = _page(record, place)
        inside = [concepts for end, concepts in page.mentions if end <= page.shown]
        types = [int(np.bitwise_or.reduce(known[list(concepts)])) for concepts in inside]
        if types.count(0):
            report.skip("a mention of concepts that the UMLS file does not list", types.count(0))
        if inside and not any(types):
            report.skip("a page all of whose mentions are left out")
        else:
            yield _example(page, {label for label, bit in _BITS.items() if any(bit & held for held in types)})

    yield from report.each(json_lines(pages, report), make)


def concept_types(path: Path, report: ReadReport) -> NDArray[np.uint32]:
    """The coarse types of each concept, one bit a type, by the number of the concept; 0 is unknown."""
    held = np.zeros(10_000_000, dtype=np.uint32)  # every number that an id can have: 40 MB, and a dict would take far more
    for place, row in csv_rows(path, TYPE_COLUMNS, report, delimiter="|", quoted=False, header=False):
        concept, coarse = _CONCEPT.fullmatch(row["CUI"]), COARSE.get(row["STY"])
        if concept is None or coarse is None:
            report.reject(BadData(f"{place}: no concept id, or a semantic type that is none of the {len(COARSE)}."), row)
        else:
            held[int(concept[1])] |= _BITS[coarse]
    return held


def _page(record: dict[str, Any], place: str) -> Page:
    text_field(record, "text", place)
    page_id, split = text_field(record, "_id", place), record.get("split")
    if "split" in record and (not isinstance(split, str) or split not in SPLITS):
        raise BadData(f"{place}: the field 'split' must be one of {', '.join(SPLITS)}.")
    drawn = SPLITS[split] if isinstance(split, str) else split_of(f"wikimed/{page_id}")
    text = record["text"]
    mentions = tuple(_mention(mention, len(text), place) for mention in listed(record, "mentions", place))
    return Page(page_id, text, drawn, mentions)


def _mention(mention: dict[str, Any], length: int, place: str) -> tuple[int, tuple[int, ...]]:
    """Where a mention ends, and the numbers of its concepts."""
    start, end = mention.get("start_offset"), mention.get("end_offset")
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end <= length:
        raise BadData(f"{place}: a mention has no offsets, or they lie outside the text.")
    concepts = [_CONCEPT.fullmatch(concept) for concept in text_field(mention, "link_id", place).split("|")]
    numbers = tuple(int(concept[1]) for concept in concepts if concept is not None)
    if len(numbers) < len(concepts):
        raise BadData(f"{place}: the 'link_id' of a mention must be UMLS concept ids joined by '|'.")
    return end, numbers


def _example(page: Page, found: set[str]) -> Example:
    example_id, text = f"wikimed/{page.id}", single_spaced(page.text[: page.shown])
    origin = Origin(page.split, minhash_keys(text), example_id)
    answer = write_several(found, LABELS)
    return example(
        example_id, "document_classification", "semantic_types", text, answer, origin, LABELS, output_type="multi_label"
    )
