"""What a table holds that a task is made of: what columns look like, labels, repeated texts, texts on both sides of a split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import Any

from staf.data.dedup import minhash_keys
from staf.data.example import dedup_key
from staf.data.row_templates import LABEL_TYPES, as_list, text_of
from staf.data.targets import labels_of
from staf.data.task import Task
from staf.errors import BadData

_GROUP_NAME = re.compile(
    r"patient|subject|person|participant|visit|encounter|admission|hadm|stay|mrn|episode|case|doc|report|article|(^|_)p?id$",
    re.IGNORECASE,
)
"""Names of columns that say what a row is about."""
_FLAGS = ({"0", "1"}, {"0.0", "1.0"}, {"False", "True"}, {"false", "true"})
_TAG = re.compile(r"[BIESULM]-.")
_MOST_LABELS = 50
_LONG_NAME = 60


@dataclass(frozen=True, slots=True)
class Column:
    """What one column of a table holds."""

    name: str
    filled: int
    """Rows in which it is not empty."""
    distinct: int
    """Different values."""
    words: float
    """Median of the words in a filled cell."""
    role: str
    """What it looks like: text, label or group; '' for anything else."""
    separator: str = ""
    """What seems to separate several labels in its cells."""
    listed: str = ""
    """Output type that its cells are answers of, where they are lists."""
    is_flag: bool = False
    """Its cells are 1 or 0, so that it may be one label of several."""


@dataclass(frozen=True, slots=True)
class TableProfile:
    """What the columns of a task hold."""

    rows: int
    missing: dict[str, int]
    """Rows in which a used column is empty."""
    labels: dict[str, int]
    """Rows that have each label, the most frequent first."""
    constant: dict[str, float]
    """Scores of the best constant answer, by metric."""
    repeated: int
    """Rows whose text an earlier row has."""
    none: int
    """Rows whose cells of labels are filled and have none: 'none', an empty list, or 0."""
    contradictory: int
    """Texts that occur with two or more answers."""
    shared: dict[str, int]
    """By text column: rows outside the test split whose text is the same or almost the same as a test row's."""


def profile_columns(rows: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    """The columns of a table in their order, each with what it looks like; nothing in them is a cell's text."""
    return tuple(_column(name, [row.get(name) for row in rows]) for name in dict.fromkeys(name for row in rows for name in row))


def _column(name: str, cells: Sequence[Any]) -> Column:
    texts = [text for cell in cells if (text := text_of(cell))]
    values = Counter(texts)
    words = median(len(text.split()) for text in texts) if texts else 0
    if listed := _listed(cells):
        return Column(name, len(texts), len(values), words, "label", listed=listed)
    if set(values) in _FLAGS:
        return Column(name, len(texts), len(values), words, "label", is_flag=True)
    separator, kinds = _separator(values)
    role = _role(name, len(texts), values, kinds, words)
    return Column(name, len(texts), len(values), words, role, separator if role == "label" else "")


def _listed(cells: Sequence[Any]) -> str:
    """Of cells that are lists, or texts of some: ner where they hold offsets or tags, else multi_label; '' of others."""
    items, lists = list[Any](), 0
    for cell in cells:
        value = cell.get("entities") if isinstance(cell, Mapping) else cell
        if isinstance(value, str) and text_of(value) and not value.lstrip().startswith("["):
            return ""
        if isinstance(value, list | tuple) or (isinstance(value, str) and text_of(value)):
            try:
                items += as_list(value, " ", "")
            except BadData:  # a text may begin with a bracket
                return ""
            lists += 1
    tags = [isinstance(item, str) and (item == "O" or bool(_TAG.match(item))) for item in items]
    mentions = any(isinstance(item, list | tuple | Mapping) for item in items) or (bool(items) and all(tags))
    return "" if not lists else "ner" if mentions else "multi_label"


def _separator(values: Collection[str]) -> tuple[str, int]:
    """The mark by which values have parts in common, or '', and the number of different parts."""
    kinds = {mark: len({part.strip() for value in values for part in value.split(mark)}) for mark in ";|,"}
    mark = min(kinds, key=lambda mark: kinds[mark])
    return (mark, kinds[mark]) if kinds[mark] < len(values) else ("", len(values))


def _role(name: str, filled: int, values: Counter[str], kinds: int, words: float) -> str:
    """What a column of plain cells looks like by its name, its number of different values or parts, and their length."""
    few, short = max(2, min(_MOST_LABELS, filled // 4)), words <= 3
    if words >= 6 and kinds > few:
        return "text"
    if not values or len(values) == filled:
        return ""
    if _GROUP_NAME.search(name) and short and len(values) > few / 4:
        return "group"
    if 2 <= kinds <= few:
        return "label"
    numbers = all(re.fullmatch(r"[-+.,:/\d\sTZ]+", value) for value in values)  # and dates
    repeats = filled / 5 < len(values) <= filled * 0.95 and max(values.values()) <= filled / 10
    return "group" if repeats and short and not numbers else ""


def looks_headless(rows: Sequence[Mapping[str, Any]]) -> bool:
    """True where the first row of a table seems to be one of its rows: a long name, or one that its own column holds."""
    return any(
        len(name) > _LONG_NAME or len(name.split()) > 6 or (name and any(text_of(row.get(name)) == name for row in rows))
        for name in map(str, rows[0])
    )


def profile_table(rows: Sequence[Mapping[str, Any]], task: Task, test: AbstractSet[int]) -> TableProfile:
    """What the columns of a task hold in these rows; `test` has the indices of the rows in its test split."""
    text = (task.doc_to_context,) if isinstance(task.doc_to_context, str) else task.doc_to_context
    targets = task.doc_to_target if isinstance(task.doc_to_target, tuple) else (str(task.doc_to_target),)
    used = [*text, *targets, *([task.group_column] if task.group_column else [])]
    answers = [_answer(task, row) for row in rows]
    by_text: dict[str, set[tuple[str, ...]]] = {}
    texts = 0
    for row, found in zip(rows, answers, strict=True):
        if any(cells := [text_of(row.get(name)) for name in (*text, task.doc_to_text)]):
            by_text.setdefault(dedup_key("\n".join(cells)), set()).add(found)
            texts += 1
    labels, constant = {}, {}
    if task.output_type in LABEL_TYPES:
        labels = label_counts(answers)
        constant = constant_scores(
            task.output_type, labels, texts if task.output_type == "multi_label" else sum(labels.values())
        )
    return TableProfile(
        rows=len(rows),
        missing={name: sum(not text_of(row.get(name)) for row in rows) for name in used},
        labels=labels,
        constant=constant,
        repeated=texts - len(by_text),
        none=sum(
            not found and any(text_of(row.get(name)) for name in targets) for row, found in zip(rows, answers, strict=True)
        )
        * (task.output_type == "multi_label"),
        contradictory=sum(len(found - {()}) > 1 for found in by_text.values()),
        shared={name: _shared(rows, name, test) for name in text},
    )


def _answer(task: Task, row: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels in a row's answer, sorted; of free text the answer; () where there is none or it does not fit."""
    with suppress(BadData):
        return tuple(sorted(set(labels_of(task, row))))
    return ()


def label_counts(answers: Iterable[Iterable[str]]) -> dict[str, int]:
    """How many answers have each label, the most frequent first."""
    counts = Counter(label for found in answers for label in found)
    return {label: counts[label] for label in sorted(counts, key=lambda label: (-counts[label], label))}


def constant_scores(output_type: str, labels: Mapping[str, float], rows: int) -> dict[str, float]:
    """Scores of the best constant answer by metric: one label, or of multi_label one set; {} for other output types.

    Args:
        labels: how many rows have each, or their share. rows: that have an answer; 1 with shares.
    """
    counts = sorted(labels.values(), reverse=True)
    if not counts or output_type not in ("multiple_choice", "multi_label"):
        return {}
    if output_type == "multi_label":
        return {"micro_f1": max(2 * sum(counts[:k]) / (k * rows + sum(counts)) for k in range(1, len(counts) + 1))}
    share = counts[0] / rows
    return {"accuracy": share, "macro_f1": 2 * share / (1 + share) / len(counts)}


def _shared(rows: Sequence[Mapping[str, Any]], name: str, test: AbstractSet[int]) -> int:
    keys = [minhash_keys(text) if (text := text_of(row.get(name))) else () for row in rows]
    held_out = {key for index in test for key in keys[index]}
    return sum(not held_out.isdisjoint(found) for index, found in enumerate(keys) if index not in test)
