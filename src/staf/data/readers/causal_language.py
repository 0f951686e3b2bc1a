"""Causal language in PubMed (Yu, Li and Wang, 2019): the kind of causal claim that a sentence makes.

    pubmed_causal_language_use.csv   sentence, label (0 none, 1 direct, 2 conditional, 3 correlation)

A repeated sentence is used once, and not at all where its labels contradict each other. Split 80/10/10 by sentence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from staf.data.dedup import minhash_keys
from staf.data.example import Example, normalise
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, example
from staf.data.sources import csv_rows, find_one, text_field
from staf.data.splits import split_of
from staf.errors import BadData

LAYOUTS = ("pubmed_causal_language_use.csv", "data/pubmed_causal_language_use.csv")
LABELS = ("no causation", "direct causation", "conditional causation", "correlation")
"""By code."""


def files(folder: Path) -> list[Path]:
    """The one file under `folder`; MissingData where it is not there."""
    return [find_one(folder, LAYOUTS, "pubmed-causal-language")]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """Sentences on causes as task type relation_extraction."""
    (path,) = files(folder)
    labels: dict[str, set[str]] = defaultdict(set)
    for _, row in csv_rows(path, ("sentence", "label"), ReadReport(skip_rejected=True)):
        labels[normalise(row["sentence"])].add(row["label"])
    seen: set[str] = set()

    def make(place: str, row: dict[str, str]) -> Iterator[Example]:
        sentence, wording = text_field(row, "sentence", place), normalise(row["sentence"])
        if row["label"] not in ("0", "1", "2", "3"):
            raise BadData(f"{place}: the label must be 0, 1, 2 or 3.")
        if len(labels[wording]) > 1:
            report.skip("a sentence with contradicting labels")
        elif wording in seen:
            report.skip("a repeated sentence")
        else:
            seen.add(wording)
            example_id = f"pubmed-causal-language/{place.rpartition(' ')[2]}"
            origin = Origin(split_of(wording), minhash_keys(sentence), wording)
            label = LABELS[int(row["label"])]
            yield example(example_id, "relation_extraction", "sentence", sentence, label, origin, LABELS)

    yield from report.each(csv_rows(path, ("sentence", "label"), report), make)
