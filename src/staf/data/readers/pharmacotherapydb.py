"""PharmacotherapyDB: what a drug does for a disease, as judged by three physicians.

    doid_id      drugbank_id   disease               drug        category   n_curators   n_resources      (tabs)
    DOID:10652   DB00843       Alzheimer's disease   Donepezil   DM         2            1

    entity_relation   disease modifying (DM), symptomatic (SYM) or not indicated (NOT)

NOT is an indication that some source names and the physicians rejected. Split 80/10/10 by disease.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from staf.data.example import Example, dedup_key
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, between, example
from staf.data.sources import csv_rows, find_one, text_field
from staf.data.splits import split_of
from staf.errors import BadData

LAYOUTS = ("indications.tsv", "catalog/indications.tsv")
COLUMNS = ("doid_id", "drugbank_id", "disease", "drug", "category")
LABELS = {"DM": "disease modifying", "SYM": "symptomatic", "NOT": "not indicated"}


def files(folder: Path) -> list[Path]:
    """The table of pairs under `folder`; MissingData where it is not there."""
    return [find_one(folder, LAYOUTS, "pharmacotherapydb")]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """The pairs as task type entity_relation, split 80/10/10 by disease."""

    def make(place: str, row: dict[str, str]) -> Iterator[Example]:
        disease_id, drug_id, disease, drug, category = (text_field(row, name, place) for name in COLUMNS)
        if category not in LABELS:
            raise BadData(f"{place}: the category must be one of {', '.join(LABELS)}.")
        example_id = f"pharmacotherapydb/{disease_id}/{drug_id}"
        group = f"pharmacotherapydb/{disease_id}"
        origin = Origin(split_of(group), (dedup_key(disease),), group)
        yield example(
            example_id, "entity_relation", "between", between(drug, disease), LABELS[category], origin, tuple(LABELS.values())
        )

    yield from report.each(csv_rows(files(folder)[0], COLUMNS, report, delimiter="\t", quoted=False), make)
