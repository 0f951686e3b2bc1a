"""Examples of a task on local tables (CSV, JSON, Parquet, xlsx), by the templates of its task file.

No message holds a cell's text.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from staf.data.annotations import brat_rows, iob_rows
from staf.data.corpus_rows import pairs_of
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.read_report import HALF_CHARACTER, ReadReport
from staf.data.row_templates import EmptyCell, rendered, text_of
from staf.data.splits import LEFT_OUT, separate
from staf.data.table_files import table_rows
from staf.data.targets import answer_of, labels_of
from staf.data.task import Task, TestSplit
from staf.errors import BadData, ConfigError, MissingData

SHOWN = 5
"""Rows that a message names."""
SHARED = "its group or text, or one almost the same, is in another split"
"""Why a row is left out."""
FEWER = 0.1
"""Share of the test rows wanted that may be missing for the sake of groups that share a text."""


def local_examples(task: Task, report: ReadReport | None = None) -> list[Example]:
    """All examples of a task on local files, without those about something that is in another split too.

    With `test_split` every other row is for adaptation; without it all rows are for training an expert.

    Args:
        report: takes the rows that are left out, by reason (`ReadReport.skipped` and `rows`).

    Raises:
        MissingData: a file is not there. BadData: rows that the templates do not fit, named by file and number.
    """
    report, rows = report or ReadReport(), list(_rows(task))
    if task.output_type in ("multi_label", "ner") and not task.doc_to_choice:
        task = task.model_copy(update={"doc_to_choice": found_labels(task, (row for _, _, row in rows))})
    names, found = _row_names(rows), list[Example]()
    problems, number = list[str](), 0
    for place, split, row in rows:
        number += 1
        try:
            found += _examples(task, number, split, row)
        except EmptyCell as problem:
            report.skip_row(str(problem), names[number - 1])
        except BadData as problem:
            problems.append(f"{place}: {problem}")
    if problems:
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        listed = "\n  ".join(problems[:SHOWN]) + more
        raise BadData(f"task '{task.name}': {len(problems)} of {number} rows do not fit.\n  {listed}")
    if not found:
        empty = f"no complete rows ({number} without a text, answer or group)" if number else "no rows"
        raise BadData(f"task '{task.name}': its data files hold {empty}. Check data_files and the names of its splits.")
    keys = [(e.group,) if task.keep_overlap else (e.group, *e.dedup_keys) for e in found]
    splits = _drawn(found, keys, task.test_split.size) if isinstance(task.test_split, TestSplit) else [e.split for e in found]
    settled = separate(keys, splits)
    for example, split in zip(found, settled, strict=True):
        if split == LEFT_OUT:
            report.skip_row(SHARED, names[row_number(example) - 1])
    return [replace(e, split=split) for e, split in zip(found, settled, strict=True) if split != LEFT_OUT]


def row_number(example: Example) -> int:
    """The number of the row that an example of a task on local files is made of, from 1, over all its files."""
    return int(example.id.rpartition("/")[2].partition("-")[0])


def _row_names(rows: Sequence[tuple[str, str, Mapping[str, Any]]]) -> list[str]:
    """Rows by their numbers, of several files or splits by those and their names."""
    parts = [place.rpartition(", row ") for place, _, _ in rows]
    several = len({of for of, _, _ in parts}) > 1
    return [f"{Path(of).name} {number}" if several else number for of, _, number in parts]


def found_labels(task: Task, rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The labels, or types of mentions, in the answers of rows, sorted; rows that do not fit are passed over.

    Where the task ignores case, each in its most frequent spelling, of equally frequent ones the first by name.
    """
    found = Counter[str]()
    for row in rows:
        with suppress(BadData):
            found.update(set(labels_of(task, row)))
    ranked = sorted(found, key=lambda label: (-found[label], label))
    return tuple(sorted({(label.casefold() if task.ignore_case else label): label for label in reversed(ranked)}.values()))


def joined_labels(task: Task, rows: Sequence[Mapping[str, Any]], ignore_case: bool | None) -> tuple[tuple[str, ...], bool]:
    """The labels of rows, and whether those that differ only in case are one; None: where there are such labels."""
    labels = found_labels(task, rows)
    if ignore_case is None:
        ignore_case = task.output_type != "ner" and len({label.casefold() for label in labels}) < len(labels)
    return (found_labels(task.model_copy(update={"ignore_case": True}), rows) if ignore_case else labels), ignore_case


def _drawn(examples: Sequence[Example], keys: Sequence[Sequence[str]], size: float) -> list[str]:
    """Splits by group: groups in the order of their hash are test where they fit into its share.

    Groups that share a text are one, so that no row is left out, unless too few such groups fit.
    """
    ranks = [hashlib.sha256(f"split:{example.group}".encode()).hexdigest() for example in examples]
    wanted, linked = round(size * len(examples)), _linked(keys)
    first = dict[int, str]()
    for link, rank in sorted(zip(linked, ranks, strict=True)):
        first.setdefault(link, rank)
    fewest, test, names = wanted, set[str](), ranks
    for tried in ([first[link] for link in linked], ranks):
        members, left, fitting = Counter(tried), wanted, set[str]()
        for name in sorted(members):
            if members[name] <= left:
                fitting.add(name)
                left -= members[name]
        if left < fewest:
            fewest, test, names = left, fitting, tried
        if fewest <= wanted * FEWER:
            break
    if not test:
        raise BadData(
            f"no test split of {wanted} of {len(examples)} rows can be drawn: each group has more. "
            "Give a larger test_split, another group_column, or a test split of its own in data_files."
        )
    return ["test" if name in test else "adaptation" for name in names]


def _linked(keys: Sequence[Sequence[str]]) -> list[int]:
    """A number for each item, the same for items that share a key, directly or by others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers = {key: number for number, key in enumerate(dict.fromkeys(key for own in keys for key in own), len(keys))}
    pairs = [(item, numbers[key]) for item, own in enumerate(keys) for key in own]
    size = len(keys) + len(numbers)
    graph = coo_array(([1] * len(pairs), tuple(zip(*pairs, strict=True))), shape=(size, size))
    return list(connected_components(graph, directed=False)[1][: len(keys)])


def _rows(task: Task) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(file and number, split, row) of each row."""
    if task.rows_digest and not task.rows:
        raise ConfigError(f"the rows of task '{task.name}' were in memory and are gone. Make the task again.")
    given: Any = task.rows or (task.dataset_kwargs.data_files if task.dataset_kwargs is not None else ())
    by_split = given if isinstance(given, dict) else {"train": given}
    wanted = {task.training_split, task.validation_split} - {None} if isinstance(given, dict) else set()
    for name, paths in by_split.items():
        split = "test" if name == task.test_split else "train" if task.test_split is None else "adaptation"
        if split == "test" or not wanted or name in wanted:
            if task.rows:
                yield from ((f"{name}, row {number}", split, row) for number, row in enumerate(paths, 1))
                continue
            for path in (paths,) if isinstance(paths, str) else paths:
                for file in files_of((task.folder or Path()) / path):
                    for number, row in enumerate(read_rows(file, task.dataset_path[0]), 1):
                        yield f"{file}, row {number}", split, row


def source_files(task: Task) -> list[Path]:
    """The files of a task, whatever the split."""
    given = () if task.dataset_kwargs is None else task.dataset_kwargs.data_files
    parts = list(given.values()) if isinstance(given, dict) else [given]
    paths = [path for part in parts for path in ((part,) if isinstance(part, str) else part)]
    return [file for path in paths for file in files_of((task.folder or Path()) / path)]


def files_of(path: Path) -> list[Path]:
    """The files of a pattern such as notes/*.csv, or the texts of a folder; else the path itself."""
    if path.is_dir():
        return sorted(path.glob("*.txt"))
    return sorted(path.parent.glob(path.name)) if "*" in path.name else [path]


def read_rows(path: Path, file_format: str) -> Iterator[dict[str, Any]]:
    """Rows of a file of a task by column: of a table (`staf.data.table_files`), or of IOB or brat annotations.

    Raises:
        MissingData: it is not there. BadData: it is not of that format, or a column occurs twice.
    """
    if not path.is_file():
        raise MissingData(f"no data file {path}. Paths in a task file are relative to it: check data_files.")
    if file_format in ("iob", "brat"):
        yield from (iob_rows if file_format == "iob" else brat_rows)(path)
    else:
        for place, row in table_rows(path, ReadReport(), file_format):
            try:
                json.dumps(row, ensure_ascii=False, default=str).encode()
            except UnicodeEncodeError:  # an escape may stand for half a character
                raise BadData(f"{place}: {HALF_CHARACTER}") from None
            yield row


def _examples(task: Task, number: int, split: str, row: dict[str, Any]) -> list[Example]:
    """The example of a row, or those of a text or conversation."""
    files = task.dataset_kwargs
    if files is None or files.layout == "table":
        return [_example(task, str(number), number, split, row)]
    if files.column not in row:
        raise BadData(f"column '{files.column}' is missing; the columns are {', '.join(map(str, row))}")
    pairs = pairs_of(files.layout, row[files.column])
    return [_example(task, f"{number}-{n}", number, split, {**row, **pair}) for n, pair in enumerate(pairs, 1)]


def _example(task: Task, name: str, number: int, split: str, row: dict[str, Any]) -> Example:
    query, context, labels = rendered(task.templates, row)
    answer = answer_of(task, row, context, labels)
    laid_out = task.dataset_kwargs is not None and task.dataset_kwargs.layout != "table"
    texts = row["about"] if laid_out else [context or query]
    about, group = tuple(dict.fromkeys(key for text in texts for key in minhash_keys(text))), f"{task.name}/{number}"
    if task.group_column is not None:
        if task.group_column not in row:
            raise BadData(f"column '{task.group_column}' (group_column) is missing; the columns are {', '.join(map(str, row))}")
        if text_of(row[task.group_column]) == "":
            raise EmptyCell(f"column '{task.group_column}', the group, is empty")
        group = dedup_key(f"{task.name} group {row[task.group_column]}")
        about = (group, *about)
    return Example(f"{task.name}/{name}", task.task_type, query, context, answer, labels, split, about, task.output_type, group)
