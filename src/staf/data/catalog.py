"""The catalogue: every data set by name, in plain sight.

A new data set is one reader and one row, in the file of its category (`rows/`). `kinds` names the knowledge types that its
examples carry, and downstream tasks that are none of the twelve. What a row stands in for is the data set of the papers
that it replaces where that one needs credentials or cannot be fetched.

A data set comes from the user's data folder where that has a folder of its name, else from a package, else from what was
downloaded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from staf.data.card import DatasetCard
from staf.data.downloads import downloaded, downloads
from staf.data.example import KNOWLEDGE_TYPES
from staf.data.packages import fetched
from staf.data.rows import (
    health_records,
    knowledge_graph,
    question_answering,
    sequence_labeling,
    sequence_to_sequence,
    text_classification,
)
from staf.errors import BadData, MissingData, UnknownName

DATASETS = {
    row.name: row
    for room in (
        question_answering,
        text_classification,
        sequence_labeling,
        sequence_to_sequence,
        knowledge_graph,
        health_records,
    )
    for row in room.ROWS
}


def dataset(name: str) -> DatasetCard:
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


def locate(row: DatasetCard, data: Path | None) -> Path | None:
    """The folder to read a data set from: the user's own where there is one, else what was fetched, else None."""
    if data is not None and (data / row.name).is_dir():
        return data / row.name
    return fetched(row.package) if row.package is not None else downloaded(row.name)


def is_available(row: DatasetCard, data: Path | None) -> bool:
    """True where the files of a data set can be read without fetching anything."""
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
            "knowledge_types": [task_type for task_type in row.task_types if task_type in KNOWLEDGE_TYPES],
            "tasks": [task_type for task_type in row.task_types if task_type not in KNOWLEDGE_TYPES],
            "category": row.category,
            "licence": row.licence,
            "access": row.access,
            "proxy_for": row.proxy_for,
            "source": row.source,
            "size": row.size,
            "package": row.package.requirement if row.package is not None else None,
            "downloads": [file.url for file in downloads().get(row.name, ())],
            "steps": row.steps,
            "available": is_available(row, data),
        }
        for row in DATASETS.values()
    ]
