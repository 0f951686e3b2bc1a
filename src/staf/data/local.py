"""Examples of a task on local CSV, JSON or Parquet files, by the templates of its task file.

Jinja runs in a sandbox; no message holds a cell's text.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.split_schemes import LEFT_OUT, Item, apart
from staf.data.task import Task, TestSplit
from staf.errors import BadData, MissingData

SHOWN = 5
"""Rows that a message names."""


def local_examples(task: Task) -> tuple[list[Example], Counter[str]]:
    """All examples of a task on local files, and how many rows were left out, by reason.

    With `test_split` every other row is for adaptation; without it all rows are for training an expert.

    Raises:
        MissingData: a file is not there. BadData: rows that the templates do not fit, named by file and number.
    """
    rows = list(_rows(task))
    if not rows:
        raise BadData(f"task '{task.name}': its data files hold no rows. Check data_files and the names of its splits.")
    found: list[Example] = []
    problems: list[str] = []
    for place, split, row in rows:
        try:
            found.append(_example(task, len(found) + len(problems) + 1, split, row))
        except BadData as problem:
            problems.append(f"{place}: {problem}")
    if problems:
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise BadData(
            f"task '{task.name}': {len(problems)} of {len(rows)} rows do not fit.\n  " + "\n  ".join(problems[:SHOWN]) + more
        )
    splits = _drawn(found, task.test_split.size) if isinstance(task.test_split, TestSplit) else [e.split for e in found]
    items = [
        Item(e.task_type, split, e.group, tuple(int(k, 16) for k in e.dedup_keys))
        for e, split in zip(found, splits, strict=True)
    ]
    settled = apart(items, splits)
    kept = [replace(e, split=split) for e, split in zip(found, settled, strict=True) if split != LEFT_OUT]
    return kept, Counter({"about something in another split": settled.count(LEFT_OUT)})


def _drawn(examples: list[Example], size: float) -> list[str]:
    """Splits by group: groups in the order of their hash are test until its share is reached."""
    members = Counter(example.group for example in examples)
    test, left = set(), round(size * len(examples))
    for group in sorted(members, key=lambda g: hashlib.sha256(f"split:{g}".encode()).digest()):
        if left <= 0:
            break
        test.add(group)
        left -= members[group]
    return ["test" if example.group in test else "adaptation" for example in examples]


def _rows(task: Task) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(file and number, split, row) of each row."""
    given = task.dataset_kwargs.data_files if task.dataset_kwargs is not None else ()
    by_split = given if isinstance(given, dict) else {"train": given}
    other = "train" if task.test_split is None else "adaptation"
    wanted = {task.training_split, task.validation_split} - {None}
    for name, paths in by_split.items():
        split = "test" if name == task.test_split else other
        if split != "test" and wanted and name not in wanted and isinstance(given, dict):
            continue
        for path in (paths,) if isinstance(paths, str) else paths:
            file = (task.folder or Path()) / path
            for number, row in enumerate(_read(file, task.dataset_path[0]), 1):
                yield f"{file}, row {number}", split, row


def _read(path: Path, file_format: str) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise MissingData(f"no data file {path}. Paths in a task file are relative to it: check data_files.")
    try:
        if file_format == "parquet":
            import pyarrow.parquet as pq

            yield from pq.read_table(path).to_pylist()
        elif file_format == "csv":
            with path.open(encoding="utf-8-sig", newline="") as stream:
                yield from csv.DictReader(stream, strict=True)
        else:
            text = path.read_text(encoding="utf-8")
            yield from (
                json.loads(text) if text.lstrip().startswith("[") else map(json.loads, filter(str.strip, text.splitlines()))
            )
    except (ValueError, csv.Error, OSError) as error:
        raise BadData(f"{path} is not a {file_format} file ({type(error).__name__}). Check its format and encoding.") from error


def _example(task: Task, number: int, split: str, row: dict[str, Any]) -> Example:
    query = "\n".join(part for part in (task.description.strip(), _text(task.doc_to_text, row, "doc_to_text")) if part)
    context = _text(task.doc_to_context, row, "doc_to_context")
    if not query and not context:
        raise BadData("the text is empty")
    labels = _labels(task, row) if task.output_type == "multiple_choice" else ()
    answer = _answer(task, row, labels)
    about = minhash_keys(context or query)
    group = f"{task.name}/{number}"
    if task.group_column is not None:
        if row.get(task.group_column) in (None, ""):
            raise BadData(f"column '{task.group_column}' (group_column) is missing or empty")
        group = dedup_key(f"{task.name} group {row[task.group_column]}")
        about = (group, *about)
    return Example(
        f"{task.name}/{number}", task.task_type, query, context, answer, labels, split, about, task.output_type, group
    )


def _labels(task: Task, row: dict[str, Any]) -> tuple[str, ...]:
    given: Any = task.doc_to_choice
    if isinstance(given, str):
        given = row[given] if given in row else _rendered(given, row, "doc_to_choice")
        if isinstance(given, str):
            try:
                given = json.loads(given.replace("'", '"'))
            except ValueError as error:
                raise BadData("doc_to_choice gives no list") from error
    labels = tuple(str(label).strip() for label in given)
    if len(labels) < 2 or len(set(labels)) < len(labels) or not all(labels):
        raise BadData("doc_to_choice needs two or more labels, each once, none empty")
    return labels


def _answer(task: Task, row: dict[str, Any], labels: tuple[str, ...]) -> str:
    target = task.doc_to_target
    value: Any = (
        target if isinstance(target, int) else row[target] if target in row else _rendered(target, row, "doc_to_target")
    )
    text = "" if value is None else str(value).strip()
    if task.output_type != "multiple_choice":
        if not text:
            raise BadData("doc_to_target is empty")
        return text
    if text in labels:
        return text
    if text.isdigit() and int(text) < len(labels):
        return labels[int(text)]
    if isinstance(target, str) and target not in row and "{" not in target:
        raise BadData(f"doc_to_target '{target}' is no column and no template; the columns are {', '.join(map(str, row))}")
    raise BadData(f"doc_to_target is neither one of the {len(labels)} labels nor the index of one")


def _text(template: str, row: dict[str, Any], key: str) -> str:
    value = row[template] if template in row else _rendered(template, row, key)
    return "" if value is None else str(value).strip()


def _rendered(template: str, row: dict[str, Any], key: str) -> str:
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    try:
        return environment.from_string(template).render(**row)
    except TemplateError as error:
        raise BadData(f"{key}: {type(error).__name__}; the columns are {', '.join(map(str, row))}") from error
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise BadData(f"{key} cannot be rendered ({type(error).__name__})") from error
