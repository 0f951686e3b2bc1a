"""Examples of a task on local CSV, JSON or Parquet files, by the templates of its task file.

Jinja runs in a sandbox; no message holds a cell's text.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.splits import LEFT_OUT, separate
from staf.data.task import Task, TestSplit
from staf.errors import BadData, MissingData

SHOWN = 5
"""Rows that a message names."""
MISSING = {"", "nan", "null", "<na>", "#n/a"}
"""Spellings of an empty cell, in lower case, as other programs write it."""


def local_examples(task: Task) -> list[Example]:
    """All examples of a task on local files, without those about something that is in another split too.

    With `test_split` every other row is for adaptation; without it all rows are for training an expert.

    Raises:
        MissingData: a file is not there. BadData: rows that the templates do not fit, named by file and number.
    """
    found: list[Example] = []
    problems: list[str] = []
    for place, split, row in _rows(task):
        try:
            found.append(_example(task, len(found) + len(problems) + 1, split, row))
        except BadData as problem:
            problems.append(f"{place}: {problem}")
    if problems:
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        listed = "\n  ".join(problems[:SHOWN]) + more
        raise BadData(f"task '{task.name}': {len(problems)} of {len(problems) + len(found)} rows do not fit.\n  {listed}")
    if not found:
        raise BadData(f"task '{task.name}': its data files hold no rows. Check data_files and the names of its splits.")
    splits = _drawn(found, task.test_split.size) if isinstance(task.test_split, TestSplit) else [e.split for e in found]
    settled = separate([example.dedup_keys for example in found], splits)
    return [replace(e, split=split) for e, split in zip(found, settled, strict=True) if split != LEFT_OUT]


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
    wanted = {task.training_split, task.validation_split} - {None} if isinstance(given, dict) else set()
    for name, paths in by_split.items():
        split = "test" if name == task.test_split else "train" if task.test_split is None else "adaptation"
        if split == "test" or not wanted or name in wanted:
            for path in (paths,) if isinstance(paths, str) else paths:
                file = (task.folder or Path()) / path
                for number, row in enumerate(read_rows(file, task.dataset_path[0]), 1):
                    yield f"{file}, row {number}", split, row


def read_rows(path: Path, file_format: str) -> Iterator[dict[str, Any]]:
    """Rows of a CSV, JSON (an array, or lines) or Parquet file as values by column.

    Raises:
        MissingData: it is not there. BadData: it is not of that format, or a column occurs twice.
    """
    if not path.is_file():
        raise MissingData(f"no data file {path}. Paths in a task file are relative to it: check data_files.")
    try:
        if file_format == "parquet":
            import pyarrow.parquet as pq

            yield from pq.read_table(path).to_pylist()
        elif file_format == "csv":
            csv.field_size_limit(sys.maxsize)  # notes can be long
            with path.open(encoding="utf-8-sig", newline="") as stream:
                table = csv.DictReader(stream, strict=True)
                if twice := [name for name, count in Counter(table.fieldnames or ()).items() if count > 1]:
                    raise BadData(f"{path}: column '{twice[0]}' occurs twice in the first row. Give each its own name.")
                for number, row in enumerate(table, 1):
                    if None in row:
                        raise BadData(f"{path}, row {number} has more cells than the first row has names.")
                    yield row
        else:
            text = path.read_text(encoding="utf-8-sig")
            lines = [line for line in text.split("\n") if line.strip()]
            rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in lines]
            json.dumps(rows, ensure_ascii=False).encode()  # an escape may stand for half a character
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("a row is no object")
            yield from rows
    except (ValueError, csv.Error, OSError, RecursionError) as error:
        raise BadData(f"{path} is not a {file_format} file ({type(error).__name__}). Check its format and encoding.") from error


def rendered(task: Task, row: dict[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """Query, context and labels of a row by the templates of a task; raises BadData where they do not fit it."""
    asked = _text(task.doc_to_text, row, "doc_to_text")
    query = "\n".join(part for part in (task.description.strip(), asked) if part)
    context = _text(task.doc_to_context, row, "doc_to_context")
    if not query and not context:
        raise BadData("the text is empty")
    return query, context, _labels(task, row) if task.output_type == "multiple_choice" else ()


def _example(task: Task, number: int, split: str, row: dict[str, Any]) -> Example:
    query, context, labels = rendered(task, row)
    answer = _answer(task, row, labels)
    about, group = minhash_keys(context or query), f"{task.name}/{number}"
    if task.group_column is not None:
        if _text_of(row.get(task.group_column)) == "":
            raise BadData(f"column '{task.group_column}' (group_column) is missing or empty")
        group = dedup_key(f"{task.name} group {row[task.group_column]}")
        about = (group, *about)
    return Example(
        f"{task.name}/{number}", task.task_type, query, context, answer, labels, split, about, task.output_type, group
    )


def _labels(task: Task, row: dict[str, Any]) -> tuple[str, ...]:
    given: Any = task.doc_to_choice
    if isinstance(given, str):
        given = _value(given, row, "doc_to_choice")
        if isinstance(given, str):
            try:
                given = json.loads(given.replace("'", '"'))
            except (ValueError, RecursionError) as error:
                raise BadData("doc_to_choice gives no list") from error
    labels = tuple(str(label).strip() for label in given) if isinstance(given, list | tuple) else ()
    if len(labels) < 2 or len(set(labels)) < len(labels) or not all(labels):
        raise BadData("doc_to_choice needs two or more labels, each once, none empty")
    return labels


def _answer(task: Task, row: dict[str, Any], labels: tuple[str, ...]) -> str:
    target = task.doc_to_target
    value = target if isinstance(target, int) else _value(target, row, "doc_to_target")
    if (label := str(value).strip()) in labels:  # 'null' may be one
        return label
    text = _text_of(value)
    if task.output_type != "multiple_choice":
        if not text:
            raise BadData("doc_to_target is empty")
        return text
    if text.isdigit() and int(text) < len(labels):
        return labels[int(text)]
    if isinstance(target, str) and target not in row and "{" not in target:
        raise BadData(f"doc_to_target '{target}' is no column and no template; the columns are {_columns(row)}")
    raise BadData(f"doc_to_target is neither one of the {len(labels)} labels nor the index of one")


def _text(template: str, row: dict[str, Any], key: str) -> str:
    return _text_of(_value(template, row, key))


def _text_of(value: Any) -> str:
    """A cell as text, '' where it is empty."""
    text = "" if value is None else str(value).strip()
    return "" if text.lower() in MISSING else text


def _value(template: str, row: dict[str, Any], key: str) -> Any:
    """The cell of a column, or the rendered template."""
    from jinja2 import TemplateError

    if template in row:
        return row[template]
    try:
        return _compiled(template).render(row)
    except TemplateError as error:
        raise BadData(f"{key}: {type(error).__name__}; the columns are {_columns(row)}") from error
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise BadData(f"{key} cannot be rendered ({type(error).__name__})") from error


@cache
def _compiled(template: str) -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False).from_string(template)


def _columns(row: Mapping[str, Any]) -> str:
    return ", ".join(map(str, row))
