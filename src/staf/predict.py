"""Answers for a file of new inputs, by a router with its base and experts, or by the base for a task; resumable.

In:   JSON lines, CSV or Parquet with "context"; "id", "query" and "labels" (in CSV separated by "; ") are optional;
      or the columns of a task file, whose templates give context, query and labels
Out:  the same three formats, by the name of the file: line, id, answer and, where labels are scored, their probabilities

A router needs no data of its task: it keeps the query, the labels and their calibration. Answers are kept in OUT.partial.jsonl
until all are there, so an interrupted run resumes after the last one; OUT.made-by.json says what OUT was made of. Messages name
lines, never their text.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from staf.data.example import Example
from staf.data.json_files import json_lines
from staf.data.read_report import HALF_CHARACTER, ReadReport
from staf.data.row_templates import rendered
from staf.data.selection import task_examples
from staf.data.sources import csv_rows
from staf.data.task import Task
from staf.errors import BadData, ConfigError, MissingData
from staf.evaluate.answer import LABEL_TYPES, Answerer, PartialPredictions, predictions_of, routed
from staf.evaluate.calibrate import LabelCalibrator
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet
from staf.io import locked, read_json, sha256_of, write_bytes, write_json
from staf.routing.store import SEPARATOR, Router, TaskPrompt
from staf.stages.context import Context
from staf.stages.evaluation import calibration_set, checked_router

FORMATS = (".jsonl", ".csv", ".parquet")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the start of a formula; such a cell of a CSV file starts with an apostrophe."""
Line = tuple[str, Any, tuple[str, str | None, list[str] | None]]
"""place, id, and context, query and labels"""


class Predictor(NamedTuple):
    """What answers: a task's prompt, the weights of experts or none, and what calibrates the scores of several labels."""

    task: str
    prompt: TaskPrompt
    settings: EvaluationSettings
    router: Router | None
    experts: ExpertSet | None
    calibration: Sequence[Example]


def predict_file(
    context: Context, file: Path, out: Path, *, router: Path | None = None, experts: Path | None = None,
    task: Task | None = None, settings: EvaluationSettings | None = None,
) -> int:  # fmt: skip
    """Answer every line of `file` into `out`, from where an interrupted run stopped; returns the number of answers.

    Args:
        router, experts: their folders; without a router the base answers `task`.
        settings: of reading and writing; None is the router's prompt budget, or the defaults.

    Raises:
        MissingData: no such file, or a router without its experts or calibration, or neither router nor task. BadData: no
            lines, or one that is not as described above. ConfigError: a router of another task, another format, or `out` has
            answers of something else.
    """
    if out.suffix not in FORMATS:
        raise ConfigError(f"--out {out}: the name must end in {', '.join(FORMATS)}, which says the format of the answers.")
    rows = list(_rows(file, task))
    if not rows:
        raise BadData(f"{file} has no lines to answer.")
    predictor = _predictor(context, router, experts, task, settings)
    maker = {
        "input": f"{file.name} (sha256 {sha256_of(file)[:16]})", "task": predictor.task,
        "router": None if predictor.router is None else predictor.router.record.get("run"),
        "base": context.identity["fingerprint"], "dtype": context.dtype, "settings": predictor.settings.digest(),
    }  # fmt: skip
    note, journal = (out.with_name(f"{out.name}.{ending}") for ending in ("made-by.json", "partial.jsonl"))
    with locked(out):
        if out.exists() or journal.exists():
            _check_maker(out, note, maker)
        if not out.exists():
            examples = [predictor.prompt.example(place, *given) for place, _, given in rows]
            write_json(note, maker)
            try:
                _write(out, _answers(context, predictor, rows, examples, journal))
            finally:
                if not out.exists() and not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
                    journal.unlink(missing_ok=True)  # nothing was answered: its first line says how it was computed
                    note.unlink()
        journal.unlink(missing_ok=True)
    return len(rows)


def _check_maker(out: Path, note: Path, maker: dict[str, Any]) -> None:
    """One file never mixes answers of two inputs, models or settings."""
    before = read_json(note) if note.is_file() else None
    if not isinstance(before, dict) or before.keys() != maker.keys():
        raise ConfigError(f"{out} is not an output of staf predict. Give another file with --out.")
    if differing := [f"{name} {before[name]} there, {maker[name]} now" for name in maker if before[name] != maker[name]]:
        raise ConfigError(
            f"{out} holds other answers: {'; '.join(differing)}. Give another file with --out, or delete that one."
        )


def _predictor(
    context: Context, folder: Path | None, experts: Path | None, task: Task | None, settings: EvaluationSettings | None
) -> Predictor:
    """A router's predictor; without one the base's, with the task's own adaptation examples as calibration."""
    if folder is None:
        if task is None:
            raise MissingData("nothing says what to answer: give --router, or --task for the base model.")
        own = settings or EvaluationSettings()
        prompt = TaskPrompt.of(task_examples(task, "adaptation", context.store), own.max_length)
        return Predictor(task.name, prompt, own, None, None, calibration_set(context, task, own))
    if experts is None:
        raise MissingData("a router needs its experts: add --experts and their folder.")
    router, loaded = checked_router(context, folder, experts, None if task is None else task.name)
    if router.prompt.output_type == "multi_label" and router.calibration is None:
        raise MissingData(f"the router in {folder} has no calibration of its labels. Adapt again with more labelled examples.")
    own = settings or EvaluationSettings(max_length=router.prompt.max_length)
    return Predictor(router.task, router.prompt, own, router, loaded, ())


def _answers(
    context: Context, predictor: Predictor, rows: Sequence[Line], examples: Sequence[Example], journal: Path
) -> list[dict[str, Any]]:
    """What is written of each line; answers in `journal` are not computed again."""
    router, mixture = predictor.router, None if predictor.experts is None else context.mixture(predictor.experts)
    fitted = None if router is None or router.calibration is None else LabelCalibrator.read(router.calibration)
    weights, granularity = (None, "task") if router is None else (router.weights, router.recipe.granularity)
    with (
        context.progress.bar("predict", len(examples) + len(predictor.calibration)) as bar,
        routed(context.base, mixture, weights, granularity),
    ):
        predictions = predictions_of(
            predictor.prompt.output_type, Answerer(context.base, predictor.settings, bar.advance), examples,
            predictor.calibration, calibrator=fitted, partial=PartialPredictions(journal),
        )  # fmt: skip
    return [
        {"line": number, "id": number if row[1] in (None, "") else row[1], **_answer(example, found)}
        for number, (row, example, found) in enumerate(zip(rows, examples, predictions, strict=True), start=1)
    ]


def _answer(example: Example, row: dict[str, Any]) -> dict[str, Any]:
    """The answer and the probability of each label, the most probable first."""
    if example.output_type not in LABEL_TYPES:
        return {"answer": row["answer"]}
    single, scores = example.output_type == "multiple_choice", torch.tensor(row["scores"])
    probs = (scores.softmax(0) if single else scores.sigmoid()).tolist()
    pairs = sorted(zip(example.labels, probs, strict=True), key=lambda pair: -pair[1])
    return {
        "answer": pairs[0][0] if single else [example.labels[index] for index in row["answer"]],
        "probabilities": {label: round(prob, 4) for label, prob in pairs},
    }


def _rows(file: Path, task: Task | None) -> Iterator[Line]:
    """The lines of a file, checked."""
    for place, row in _records(file):
        try:
            json.dumps(row, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            raise BadData(f"{place}: {HALF_CHARACTER}") from None
        if "context" not in row and task is not None and task.is_local:
            try:
                query, context, choices = rendered(task.templates, row)
            except BadData as error:
                raise BadData(f"{place}: {error}") from error
            row = {**row, "context": context, "query": query, "labels": list(choices) or None}
        labels = row.get("labels")
        if not isinstance(row.get("context"), str):
            raise BadData(f'{place}: "context" (text) is missing; with --task FILE of your own its templates make it.')
        if isinstance(labels, str):
            labels = [label.strip() for label in labels.split(SEPARATOR.strip()) if label.strip()] or None
        if labels is not None and not (isinstance(labels, list) and all(isinstance(label, str) and label for label in labels)):
            raise BadData(f'{place}: "labels" must be a list of texts.')
        yield place, row.get("id"), (row["context"], row.get("query") or None, labels)


def _records(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and fields of each line of a JSON lines, CSV or Parquet file."""
    if not file.is_file():
        raise MissingData(f'no file {file}. Give JSON lines, CSV or Parquet with "context".')
    if file.suffix.lower() == ".csv":
        yield from csv_rows(file, ReadReport(), ())
    elif file.suffix.lower() != ".parquet":
        yield from json_lines(file, ReadReport())
    else:
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(file)
        except (OSError, ValueError) as error:
            raise BadData(f"{file} is not a Parquet file ({type(error).__name__}). Write it again.") from error
        yield from ((f"{file}, row {number}", row) for number, row in enumerate(table.to_pylist(), start=1))


def _write(out: Path, answers: list[dict[str, Any]]) -> None:
    """Answers as JSON lines; or as CSV or Parquet, with a column for each label's probability if all have the same labels."""
    data = io.BytesIO()
    if out.suffix == ".jsonl":
        data.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in answers).encode())
    else:
        import pyarrow.csv
        import pyarrow.parquet

        same = len({tuple(sorted(row.get("probabilities", ()))) for row in answers}) == 1
        table = pyarrow.Table.from_pylist([_columns(row, same, out.suffix == ".csv") for row in answers])
        (pyarrow.parquet.write_table if out.suffix == ".parquet" else pyarrow.csv.write_csv)(table, data)
    write_bytes(out, data.getvalue(), private=True)


def _columns(row: dict[str, Any], same: bool, in_csv: bool) -> dict[str, Any]:
    probs = row.get("probabilities")
    answer = row["answer"] if isinstance(row["answer"], str) else json.dumps(row["answer"], ensure_ascii=False)
    texts = {"id": str(row["id"]), "answer": answer}
    if in_csv:
        texts = {name: f"'{text}" if text.startswith(FORMULA) else text for name, text in texts.items()}
    found = {"line": row["line"], **texts}
    if probs is None:
        return found
    if not same:
        return found | {"probabilities": json.dumps(probs, ensure_ascii=False)}
    return found | {f"probability of {label}": probs[label] for label in sorted(probs)}
