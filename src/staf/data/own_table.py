"""A table that a task is made of in Python: a file, a data frame, a `datasets.Dataset` or rows; imports no package of these."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from staf.data.annotations import IOB_SUFFIXES, annotation_format
from staf.data.local import files_of, read_rows
from staf.data.table_files import SUFFIXES, is_table, table_format
from staf.errors import ConfigError

MOST_LABELS = 100
LONGEST_LABEL = 100
"""Labels of one choice, and characters of a label; a column with more values, or longer ones, is hardly one of labels."""
QUERIES = {
    "multiple_choice": "Which label fits the text: {labels}?",
    "multi_label": "Which labels fit the text, if any: {labels}?",
    "span": "Which words of the text give the {column}?",
    "ner": "List every mention in the text of these types, as type and words, or none: {labels}.",
    "generate_until": "Write the {column}.",
}
"""Queries by output type where none is given."""
_TESTS = ("test", "validation", "valid", "dev")
"""Splits that are tested on, the first that is there."""

Rows = list[dict[str, Any]]


class OwnTable(NamedTuple):
    """A table and what a task file would say of it."""

    name: str
    keys: dict[str, Any]
    """of the task"""
    splits: dict[str, Rows]
    in_memory: bool


def format_of(path: Path) -> str:
    """The format of a table, of CoNLL-style columns (iob), or of a folder of texts with brat's annotations.

    Raises:
        ConfigError: the path is none of these.
    """
    if not is_table(path) and not annotation_format(path):
        if path.is_dir():
            raise ConfigError(
                f"{path} is a folder without .ann files. Give the file of one table, or a folder of .txt and .ann."
            )
        raise ConfigError(
            f"{path}: the name of a table ends in {', '.join(SUFFIXES)} (or .gz after it), that of a file in CoNLL columns in "
            f"{', '.join(IOB_SUFFIXES)}. Rename it, or write the task file yourself: dataset_path: iob, docs/own-task.md."
        )
    return annotation_format(path) or table_format(path)


def own_table(source: Any, test_size: float | None) -> OwnTable:
    """The rows of a path, a pandas frame, a `datasets` Dataset or DatasetDict, or a list of rows.

    Raises:
        ConfigError: it is none of these. MissingData, BadData: as `read_rows`.
    """
    drawn: dict[str, Any] = {} if test_size is None else {"test_split": {"size": test_size}}
    if isinstance(source, str | Path):
        path = Path(source).absolute()
        kind = format_of(path)
        keys = {"dataset_path": kind, "dataset_kwargs": {"data_files": path.name}, "folder": path.parent}
        rows = [row for file in files_of(path) for row in read_rows(file, kind)]
        return OwnTable(path.name.partition(".")[0], keys | drawn, {"train": rows}, False)
    if isinstance(source, Mapping):
        splits = {str(name): _rows(part) for name, part in source.items()}
        named = next((name for name in _TESTS if name in splits), None)
        drawn = {"test_split": named} if named else drawn
    else:
        splits = {"train": _rows(source)}
    text = json.dumps(splits, sort_keys=True, default=str, ensure_ascii=False)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return OwnTable("own_table", {"dataset_path": "memory", "rows_digest": digest, **drawn}, splits, True)


def _rows(table: Any) -> Rows:
    if hasattr(table, "to_dict") and type(table).__module__.startswith("pandas"):
        return list(table.convert_dtypes().to_dict("records"))  # numbers next to empty cells stay integers
    if isinstance(table, Mapping) or not isinstance(table, Iterable):
        raise ConfigError(f"a {type(table).__name__} is no table: give a path, a data frame, a Dataset or a list of rows.")
    names = {name: found for name, kind in (getattr(table, "features", None) or {}).items() if (found := _names(kind))}
    rows = [dict(row) for row in table]
    return [row | {name: _named(row[name], found) for name, found in names.items()} for row in rows] if names else rows


def _names(feature: Any) -> Sequence[str] | None:
    """The names of a `datasets.ClassLabel`, or of a list of them."""
    return getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return names[value] if isinstance(value, int) and value >= 0 else None


def columns_of(text: Any, label: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of the texts and those of the labels; raises ConfigError where they are no names, or not different ones."""
    texts, labels = (tuple(given) if isinstance(given, list | tuple) else (given,) for given in (text, label))
    if not all(isinstance(column, str) for column in (*texts, *labels)) or not set(texts).isdisjoint(labels):
        raise ConfigError("text and label are names of different columns; either may be a list of names.")
    return texts, labels


def check_columns(table: OwnTable, columns: Iterable[str]) -> None:
    """Raise ConfigError where a column is in no row."""
    known = list(dict.fromkeys(str(name) for rows in table.splits.values() for row in rows for name in row))
    if missing := [column for column in columns if column not in known]:
        raise ConfigError(
            f"the table has no column '{missing[0]}'; its columns are {', '.join(known) or 'none: it has no rows'}."
        )


def check_labels(column: str, labels: Sequence[str], rows: int, output_type: str) -> None:
    """Raise ConfigError, without naming them, where values found in a column are hardly labels."""
    most = max(20, min(rows // 2, MOST_LABELS if output_type == "multiple_choice" else rows))
    if len(labels) > most or any(len(label) > LONGEST_LABEL for label in labels):
        raise ConfigError(
            f"column '{column}' has {len(labels)} different values in {rows} rows, which are no labels. Several labels in a "
            "cell: type multi_label and its separator, such as ';'. Free text as the answer: type generate_until; words of the "
            "text: type span. In Python, labels=[...] takes them as they are."
        )


def check_described(described: Iterable[str], labels: Sequence[str]) -> None:
    """Raise ConfigError where something is described that is no label."""
    if unknown := [each for each in described if each not in labels]:
        raise ConfigError(
            f"label_descriptions describes '{unknown[0]}', which is no label. The labels are {', '.join(labels)}."
        )


def task_name(name: str) -> str:
    """A name as tasks have it."""
    return re.sub(r"\W+", "_", name).strip("_") or "own_table"
