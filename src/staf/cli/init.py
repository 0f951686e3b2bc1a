"""staf init: the task file of a table, and what the table holds."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from staf.cli.data import constant_lines, left_out_lines, length_lines, small_test_lines, token_lengths
from staf.cli.printing import emit, emit_table, say
from staf.errors import BadData, ConfigError, MissingData, UnknownName
from staf.io import write_bytes

if TYPE_CHECKING:
    from staf.data.table_profile import Column, TableProfile
    from staf.data.task import Task

FEW = 5
"""Rows below which a label is named."""
SHOWN = 20
"""Labels that are printed."""
COMMENTS = {
    "dataset_kwargs": "relative to this file",
    "output_type": "multiple_choice, multi_label, span, ner or generate_until",
    "label_descriptions": "what a label means, in one sentence; the model reads those that are filled in",
    "doc_to_text": "the question: text, a column or a Jinja template",
    "doc_to_context": "the text, the only part that is ever cut",
    "doc_to_target": "the column of the answer, or a column for each label",
    "ignore_case": "labels that differ only in case are one",
    "keep_overlap": "true keeps rows whose text, or one almost the same, is in the test split",
    "group_column": "rows with the same value stay in one split",
    "test_split": "share of the rows, drawn by group",
    "metric_list": "the first one is the primary metric",
}
"""What is said about a key of a task file."""


def init_task(
    file: Path, *, text: list[str] | None = None, label: list[str] | None = None, group: str | None = None,
    output_type: str | None = None, separator: str | None = None, query: str | None = None, keep_overlap: bool = False,
    out: Path | None = None, base: str | None = None, as_json: bool = False,
) -> None:  # fmt: skip
    """Write the task file of a table, and print what it holds: labels, lengths, groups, missing and repeated texts."""
    from staf.data.local import local_examples, row_number
    from staf.data.read_report import ReadReport
    from staf.data.table_profile import profile_columns, profile_table
    from staf.data.task import ANNOTATED

    file_format, rows = _rows(file)
    columns = profile_columns(rows)
    if file_format in ANNOTATED:
        context, target = ANNOTATED[file_format]
        text, label, output_type, group = text or [context], label or [target], output_type or "ner", group or "document"
    if not text or not label:
        command = _proposed(file, columns)
        if text or label:
            raise ConfigError(f"--text and --label are both needed; columns are not guessed. Such as: {command}")
        _print_columns(file, columns, command, as_json)
        return
    by_name = {column.name: column for column in columns}
    if unknown := next((name for name in (*text, *label, group) if name is not None and name not in by_name), None):
        raise UnknownName.among("column", unknown, by_name)
    if (out := out or Path(f"{file.absolute().name.partition('.')[0]}.yaml")).exists():
        raise ConfigError(f"{out} is there and was left as it is. Delete it, or name another file with --out.")
    task = _task(file, out, by_name, text, label, group, output_type, separator, query)
    task = task.model_copy(update={"keep_overlap": keep_overlap})
    examples = local_examples(task, report := ReadReport())
    test = {row_number(example) - 1 for example in examples if example.split == "test"}
    profile, lengths = profile_table(rows, task, test), token_lengths(examples, base)
    groups = [] if group else [c.name for c in columns if c.role == "group" and c.name not in (*text, *label)]
    write_bytes(out, _with_comments(task.to_yaml(out.parent), groups).encode())
    splits = Counter(example.split for example in examples)
    lines = [f"{out}: task '{task.name}', {task.output_type}, judged by {task.metric}"]
    lines += [f"{profile.rows} rows: {splits['test']} for the test, {splits['adaptation']} for adaptation"]
    lines += [
        *small_test_lines(splits["test"]),
        *left_out_lines(report.skipped, report.rows),
        *_joined_lines(task, rows),
        *_label_lines(task, profile),
        *_text_lines(profile),
        *length_lines(lengths),
    ]
    lines += _group_lines(groups, out)
    lines += [f"Look at {out}, fill in what is empty, then: staf compare --task {shlex.quote(str(out))}"]
    record = {"out": str(out), "task": task.name, "splits": splits, "left_out": report.skipped, "tokens": lengths}
    emit(as_json, {**record, "groups": groups, **asdict(profile)}, *lines)


def _rows(file: Path) -> tuple[str, list[dict[str, Any]]]:
    """The format and the rows of a table, or of annotated texts.

    Raises:
        MissingData: it is not there. BadData: it has none, or its first row is no row of names; others as `read_rows`.
    """
    from staf.data.local import files_of, read_rows
    from staf.data.own_table import format_of
    from staf.data.table_profile import looks_headless

    if not file.exists():
        raise MissingData(f"no file {file}. Check the path.")
    file_format = format_of(file)
    rows = [row for path in files_of(file) for row in read_rows(path, file_format)]
    if not rows:
        raise BadData(f"{file} holds no rows. A first row with names of columns and a row for each text were expected.")
    if file_format in ("csv", "xlsx") and looks_headless(rows):
        raise BadData(
            f"{file}: its first row does not hold names of columns: one is very long, or its own column holds it too. "
            "Add a first row with a short name for each column; the name of a file in CoNLL columns ends in .conll."
        )
    return file_format, rows


def _print_columns(file: Path, columns: Sequence[Column], command: str, as_json: bool) -> None:
    """What each column looks like, and the command that would make a task of them."""
    shown = ("name", "filled", "distinct", "words", "role")
    rows = [{name: getattr(column, name) for name in shown} for column in columns]
    if as_json:
        emit(True, {"columns": rows, "command": command})
        return
    emit_table(False, rows, shown, f"columns of {file}")
    say("No task file was written: name the columns of the text and of the answer; they are not guessed. Such as:", command)


def _proposed(file: Path, columns: Sequence[Column]) -> str:
    """A command that names the columns that look like a text, an answer and a group."""
    text = max((column for column in columns if column.role == "text"), key=lambda column: column.words, default=None)
    label = next((column for column in reversed(columns) if column.role == "label"), None)
    group = next((column for column in columns if column.role == "group"), None)
    flags = [column.name for column in columns if column.is_flag] if label and label.is_flag else []
    command = ["staf", "init", str(file), "--text", text.name if text else "TEXT"]
    command += [part for name in flags or [label.name if label else "LABEL"] for part in ("--label", name)]
    command += ["--separator", label.separator] if label and label.separator else []
    command += ["--type", label.listed] if label and label.listed else []
    command += ["--group", group.name] if group else []
    return shlex.join(command)


def _task(
    file: Path, out: Path, columns: Mapping[str, Column], text: list[str], label: list[str], group: str | None,
    output_type: str | None, separator: str | None, query: str | None,
) -> Task:  # fmt: skip
    """The task of a table, with an empty description for each label.

    Raises:
        ConfigError: the answers are no labels, or all the same, or several in a cell; a built-in task has its name.
    """
    from staf.data.own_table import task_name
    from staf.data.task import METRICS, Task, find_task

    answers, several = columns[label[0]], len(label) > 1
    if output_type is None and separator is None and answers.separator and not several:
        raise ConfigError(
            f"cells of column '{label[0]}' seem to hold several labels. If so, add --separator '{answers.separator}' "
            "(--type multi_label); if each cell is one label, add --type multiple_choice."
        )
    if output_type in (None, "multiple_choice", "multi_label") and answers.listed == "ner":
        raise ConfigError(f"cells of column '{label[0]}' hold offsets or tags of words in the text: add --type ner.")
    if output_type == "multiple_choice" and answers.listed:
        raise ConfigError(f"cells of column '{label[0]}' hold several labels: use --type multi_label.")
    output_type = output_type or answers.listed or ("multi_label" if separator or several else "multiple_choice")
    task = Task.from_csv(
        file, text=text, label=label, query=query, output_type=output_type, separator=separator or ";", group=group,
        name=task_name(out.stem),
    )  # fmt: skip
    labels, rows = task.doc_to_choice, answers.filled
    if output_type == "multiple_choice" and len(labels) < 2:
        raise ConfigError(
            f"column '{label[0]}' has {len(labels)} value in {rows} rows: to choose one, two or more are needed. Name another "
            "column with --label, or add rows with another label."
        )
    if output_type == "ner" and not labels:
        raise ConfigError(
            f"column '{label[0]}' has no mention: offsets such as [0, 5, \"drug\"] or tags such as B-drug are expected."
        )
    return find_task(
        task.model_copy(update={"label_descriptions": dict.fromkeys(labels, ""), "metric_list": METRICS[output_type]})
    )


def _with_comments(text: str, groups: Sequence[str]) -> str:
    """A task file that says what its keys mean; a column that looks like a group is proposed in a comment."""
    lines = []
    for line in text.splitlines():
        comment = COMMENTS.get(line.partition(":")[0])
        lines += [f"# {comment}"] * bool(comment) + [line]
    for name in groups[:1]:
        line = yaml.safe_dump({"group_column": name}, allow_unicode=True, width=1000).strip()
        lines.append(f"# {line}  # its values repeat; uncomment to keep their rows in one split")
    return "\n".join(lines) + "\n"


def _label_lines(task: Task, profile: TableProfile) -> list[str]:
    """Labels with rows and share, what a constant would score, and labels that are rare or nearly the same."""
    shown = dict(list(profile.labels.items())[:SHOWN])
    width = max(map(len, shown), default=0)
    several = isinstance(task.doc_to_target, tuple)
    lines = ["labels, a column each:" if several else f"labels in column {task.doc_to_target}:"] * bool(shown)
    lines += [f"  {name:<{width}}  {count:>6}  {count / profile.rows:6.1%}" for name, count in shown.items()]
    lines += [f"  and {len(profile.labels) - SHOWN} more"] * (len(profile.labels) > SHOWN)
    how = "rows without a label" if several else "cells without a label ('none' or an empty list count as no label)"
    lines += [f"{how}: {profile.none}"] * bool(profile.none)
    lines += constant_lines(profile.constant, profile.labels)
    rare = [name for name, count in profile.labels.items() if count < FEW]
    return lines + [f"labels with fewer than {FEW} rows: {', '.join(rare[:SHOWN])}"] * bool(rare)


def _joined_lines(task: Task, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which spellings of labels are one, as at most one line."""
    from staf.data.local import found_labels

    spellings = found_labels(task.model_copy(update={"ignore_case": False}), rows) if task.ignore_case else ()
    others = {label: [s for s in spellings if s != label and s.casefold() == label.casefold()] for label in task.doc_to_choice}
    joined = "; ".join([f"{', '.join(found)} as {label}" for label, found in others.items() if found][:SHOWN])
    return [f"labels that differ only in case count as one (ignore_case: true): {joined}"] * bool(joined)


def _text_lines(profile: TableProfile) -> list[str]:
    """Empty, repeated and shared texts; only what there is."""
    found = {f"empty cells in column {name}": count for name, count in profile.missing.items()}
    found |= {"rows with the text of an earlier row": profile.repeated}
    found |= {"texts with two or more answers": profile.contradictory}
    found |= {f"rows outside the test with (almost) the {name} of a test row": count for name, count in profile.shared.items()}
    return [f"{what}: {count}" for what, count in found.items() if count]


def _group_lines(groups: Sequence[str], out: Path) -> list[str]:
    if not groups:
        return []
    how = f"uncomment group_column in {out}, or delete it and run this with --group {shlex.quote(groups[0])}"
    return [f"values repeat as a patient's would: {', '.join(groups)}. To keep the rows of each in one split, {how}"]
