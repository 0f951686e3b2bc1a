"""MedNLI (Romanov and Shivade, 2018): entailment between sentences of clinical notes.

    mli_train_v1.jsonl, mli_dev_v1.jsonl (adaptation), mli_test_v1.jsonl
    {"gold_label", "pairID", "sentence1", "sentence2", and parses, which are not used}

Pairs of one premise (sentence1) form a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, example
from staf.data.sources import find_one, json_lines, text_field
from staf.errors import BadData

PARTS = {"train": "train", "dev": "adaptation", "test": "test"}
"""Our split of each of theirs."""
LABELS = ("entailment", "neutral", "contradiction")


def files(folder: Path) -> list[Path]:
    """The three files under `folder`, at its top or below; MissingData where one is not there."""
    return [find_one(folder, (name, f"**/{name}"), "mednli") for name in map("mli_{}_v1.jsonl".format, PARTS)]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """MedNLI as task type natural_language_inference."""
    for part, path in zip(PARTS, files(folder), strict=True):
        yield from _pairs(path, part, report)


def _pairs(path: Path, part: str, report: ReadReport) -> Iterator[Example]:
    def make(place: str, record: dict[str, Any]) -> Iterator[Example]:
        premise, hypothesis = text_field(record, "sentence1", place), text_field(record, "sentence2", place)
        label = text_field(record, "gold_label", place)
        example_id = f"mednli/{text_field(record, 'pairID', place)}"
        if label not in LABELS:
            raise BadData(f"{place}: the field 'gold_label' must be one of {', '.join(LABELS)}.")
        context = f"Premise: {premise} Hypothesis: {hypothesis}"
        origin = Origin(PARTS[part], (*minhash_keys(premise), dedup_key(context)), dedup_key(premise))
        yield example(example_id, "natural_language_inference", "sentences", context, label, origin, LABELS)

    yield from report.each(json_lines(path, report), make)
