"""Answers for a file of new inputs, by a router with its base and experts, or by the base for a task; resumable.

In:   JSON lines, CSV or Parquet with "context"; "id", "query" and "labels" (in CSV separated by "; ") are optional
Out:  the same three formats, by the name of the file: line, id, answer and, where labels are scored, their probabilities

A router needs no data of its task: it keeps the query, the labels and their calibration. Each answer is appended at once (for
CSV and Parquet to OUT.partial.jsonl), so an interrupted run resumes after the last one. Messages name lines, never their text.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from staf.data.example import Example
from staf.data.selection import task_examples
from staf.data.task import Task
from staf.errors import BadData, DamagedFile, MissingData
from staf.evaluate.answer import Answerer, calibrate, predictions_of, routed
from staf.evaluate.calibrate import LabelCalibrator
from staf.evaluate.settings import EvaluationSettings
from staf.io import read_json, sha256_of, write_bytes, write_json
from staf.routing.merge import Mixture
from staf.routing.store import Router
from staf.routing.task_prompt import SEPARATOR, TaskPrompt
from staf.stages import Context, calibration_set, router_and_mixture

BLOCK = 64
"""Lines answered between two writes."""
TABLES = (".csv", ".parquet")


@dataclass(frozen=True)
class Predictor:
    """What answers: a prompt, its calibrator, and the experts' weights or none."""

    task: str
    prompt: TaskPrompt
    calibrator: LabelCalibrator | None
    router: Router | None = None
    mixture: Mixture | None = None

    @classmethod
    def of_router(cls, context: Context, folder: Path, experts: Path | None, task: Task | None) -> Predictor:
        """A router's predictor.

        Raises:
            MissingData: no experts, or several labels without a calibration. ConfigError: a router of another task.
        """
        if experts is None:
            raise MissingData("a router needs its experts: add --experts and their folder.")
        router, mixture = router_and_mixture(context, folder, experts, None if task is None else task.name)
        if router.prompt.output_type == "multi_label" and router.calibration is None:
            raise MissingData(
                f"the router in {folder} has no calibration of its labels. Adapt again with more labelled examples."
            )
        calibrator = None if router.calibration is None else LabelCalibrator.read(router.calibration)
        return cls(router.task, router.prompt, calibrator, router, mixture)

    @classmethod
    def of_task(cls, context: Context, task: Task, settings: EvaluationSettings) -> Predictor:
        """The base model's predictor for a task, with the task's own adaptation examples as calibration."""
        prompt = TaskPrompt.of(task_examples(task, "adaptation", context.store), settings.max_length)
        examples = calibration_set(context, task, settings)
        return cls(task.name, prompt, calibrate(Answerer(context.base, settings), examples) if examples else None)

    def answer(self, answerer: Answerer, examples: list[Example]) -> list[dict[str, Any]]:
        """What is written of each example: answer and probabilities."""
        kind = self.prompt.output_type
        weights, granularity = (None, "task") if self.router is None else (self.router.weights, self.router.recipe.granularity)
        with routed(answerer.base, self.mixture, weights, granularity):
            rows = predictions_of(kind, answerer, examples, calibrator=self.calibrator)
        return [_answer(kind, example, row) for example, row in zip(examples, rows, strict=True)]


def predict_file(
    context: Context, file: Path, out: Path, *, router: Path | None = None, experts: Path | None = None,
    task: Task | None = None, settings: EvaluationSettings | None = None,
) -> int:  # fmt: skip
    """Answer every line of `file` that `out` does not have yet; returns the number of answers in `out`.

    Args:
        router, experts: their folders; without a router the base answers `task`.
        settings: of reading and writing; None is the router's prompt budget, or the defaults.

    Raises:
        MissingData: no such file, or a router without its experts, or neither router nor task. BadData: a line that is not as
            described above. ConfigError: a router of another task. DamagedFile: `out` is of another input, router or settings.
    """
    if not file.is_file():
        raise MissingData(f'no file {file}. Give JSON lines, CSV or Parquet with "context".')
    if router is not None:
        predictor = Predictor.of_router(context, router, experts, task)
        settings = settings or EvaluationSettings(max_length=predictor.prompt.max_length)
    elif task is not None:
        settings = settings or EvaluationSettings()
        predictor = Predictor.of_task(context, task, settings)
    else:
        raise MissingData("nothing says what to answer: give --router, or --task for the base model.")
    maker = {
        "input": sha256_of(file), "task": predictor.task, "base": context.identity["fingerprint"], "dtype": context.dtype,
        "router": None if predictor.router is None else predictor.router.record.get("run"), "settings": settings.digest(),
    }  # fmt: skip
    journal = out.with_name(f"{out.name}.partial.jsonl") if out.suffix in TABLES else out
    done, finished = _complete_lines(journal), journal != out and out.is_file()
    _check_maker(out, maker, done, finished)
    total = sum(1 for _ in _rows(file))
    if finished:
        return total
    _append(context, predictor, settings, islice(_rows(file), done, None), done, total, journal)
    if journal != out:
        _write_table(out, [json.loads(line) for line in journal.read_bytes().splitlines()])
        journal.unlink()
    return total


def _append(
    context: Context, predictor: Predictor, settings: EvaluationSettings, rows: Iterator[dict[str, Any]], done: int, total: int,
    journal: Path,
) -> None:  # fmt: skip
    answerer = Answerer(context.base, settings)
    with context.progress.bar("predict", total - done) as bar, journal.open("a", encoding="utf-8") as stream:
        while block := list(islice(rows, BLOCK)):
            examples = [predictor.prompt.example(row["where"], row["context"], row["query"], row["labels"]) for row in block]
            for row, answer in zip(block, predictor.answer(answerer, examples), strict=True):
                done += 1
                stream.write(json.dumps({"line": done, "id": row["id"], **answer}, ensure_ascii=False) + "\n")
            stream.flush()
            bar.advance(len(block))


def _check_maker(out: Path, maker: dict[str, Any], done: int, finished: bool) -> None:
    """One file never mixes answers of two inputs, models or settings: OUT.made-by.json says whose they are."""
    note = out.with_name(f"{out.name}.made-by.json")
    if (done or finished) and (not note.is_file() or read_json(note) != maker):
        raise DamagedFile(
            f"{out} holds answers for another input, task, base or router, or with other settings. Delete it, or give another "
            "file with --out."
        )
    write_json(note, maker)


def _answer(output_type: str, example: Example, row: dict[str, Any]) -> dict[str, Any]:
    if output_type not in ("multiple_choice", "multi_label"):
        return {"answer": row["answer"]}
    scores = torch.tensor(row["scores"])
    probs = (scores.softmax(0) if output_type == "multiple_choice" else scores.sigmoid()).tolist()
    pairs = sorted(zip(example.labels, probs, strict=True), key=lambda pair: -pair[1])
    return {
        "answer": pairs[0][0] if output_type == "multiple_choice" else [example.labels[index] for index in row["answer"]],
        "probabilities": {label: round(prob, 4) for label, prob in pairs},
    }


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """Context, id, query, labels and place of each line."""
    for number, row in enumerate(_records(file), start=1):
        where = f"{file}, line {number}"
        labels = row.get("labels") if isinstance(row, dict) else None
        if not isinstance(row, dict) or not isinstance(row.get("context"), str):
            raise BadData(f'{where}: "context" (text) is missing.')
        if isinstance(labels, str):
            labels = [label.strip() for label in labels.split(SEPARATOR.strip()) if label.strip()]
        if labels is not None and not (isinstance(labels, list) and all(isinstance(label, str) and label for label in labels)):
            raise BadData(f'{where}: "labels" must be a list of texts.')
        yield {
            "where": where, "context": row["context"], "id": row.get("id", number), "query": row.get("query") or None,
            "labels": labels,
        }  # fmt: skip


def _records(file: Path) -> Iterator[Any]:
    """The lines of a JSON lines, CSV or Parquet file."""
    if file.suffix == ".parquet":
        import pyarrow.parquet

        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(BLOCK):
            yield from batch.to_pylist()
    elif file.suffix == ".csv":
        with file.open(encoding="utf-8-sig", newline="") as stream:
            for row in csv.DictReader(stream):
                yield {name: value for name, value in row.items() if value or name == "context"}
    else:
        with file.open("rb") as lines:
            for number, raw in enumerate(lines, start=1):
                try:
                    yield json.loads(raw)
                except ValueError as error:
                    raise BadData(f'{file}, line {number}: not JSON. Each line is an object with "context".') from error


def _write_table(out: Path, answers: list[dict[str, Any]]) -> None:
    """Answers as CSV or Parquet: a column for each label's probability if all lines have the same labels."""
    import pyarrow.csv
    import pyarrow.parquet

    labels = sorted({label for row in answers for label in row.get("probabilities", ())})
    same = all(len(row.get("probabilities", ())) == len(labels) for row in answers)
    rows = []
    for row in answers:
        probs = row.pop("probabilities", None)
        answer = row["answer"] if isinstance(row["answer"], str) else json.dumps(row["answer"], ensure_ascii=False)
        columns = {f"probability of {label}": probs[label] for label in labels} if probs and same else {}
        columns |= {"probabilities": json.dumps(probs, ensure_ascii=False)} if probs and not same else {}
        rows.append({"line": row["line"], "id": str(row["id"]), "answer": answer, **columns})
    names = list(rows[0]) if rows else ["line", "id", "answer"]
    table, data = pyarrow.table({name: [row[name] for row in rows] for name in names}), io.BytesIO()
    (pyarrow.parquet.write_table if out.suffix == ".parquet" else pyarrow.csv.write_csv)(table, data)
    write_bytes(out, data.getvalue())


def _complete_lines(journal: Path) -> int:
    """Number of complete answers in a file; an incomplete last line is removed."""
    if not journal.is_file():
        return 0
    data = journal.read_bytes()
    complete = data[: data.rfind(b"\n") + 1]
    try:
        numbers = [json.loads(line)["line"] for line in complete.splitlines()]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"{journal} is not an output of staf predict. Give another file with --out.") from error
    if numbers != list(range(1, len(numbers) + 1)):
        raise DamagedFile(f"{journal} lacks lines in between. Delete it and run the same command again.")
    if len(complete) != len(data):
        with journal.open("r+b") as stream:
            stream.truncate(len(complete))
    return len(numbers)
