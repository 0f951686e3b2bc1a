"""Answers for new inputs, by a router with its base and experts, or by the base for a task: in memory, or a file of them.

In:   CSV, TSV, JSON lines, JSON, Parquet or an Excel workbook: rows with the columns of the task's own table, whose templates
      the router keeps; or with "context". "id" (or note_id, ...), "query" and "labels" (in a cell "a; b") are optional
Out:  JSON lines, CSV, Parquet or a workbook: row, id, answer and, where labels are scored, their probabilities

A router needs no data of its task: it keeps query, labels, templates and calibration, and where its experts are. The input is
read twice, row by row: first all rows are checked, then they are answered in blocks. Predictions are kept in OUT.partial.jsonl
until all are there, so an interrupted run resumes after the last batch; OUT.made-by.json says what OUT was made of. Messages
and answers number the rows of data from 1; no message holds their text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from staf.compute import numerics
from staf.data.example import LABEL_TYPES, Example
from staf.data.read_report import HALF_CHARACTER, ReadReport
from staf.data.row_templates import RowTemplates, rendered, used_columns
from staf.data.selection import task_examples
from staf.data.table_files import table_rows
from staf.data.task import Task
from staf.errors import BadData, ConfigError, MissingData
from staf.evaluate.answer import Answerer, OnDone, PartialPredictions, calibrate, predictions_of, routed
from staf.evaluate.answer_files import FORMATS, Answers, write_answers
from staf.evaluate.calibrate import LabelCalibrator
from staf.evaluate.probe import Probe
from staf.evaluate.score import probe_of
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet
from staf.io import locked, read_json, sha256_of, write_json
from staf.lm.prompts import PLAIN
from staf.log import Log
from staf.routing.store import SEPARATOR, Router, TaskPrompt, load_router
from staf.stages.adaptation import calibration_set
from staf.stages.context import Context
from staf.stages.evaluation import checked_router

BLOCK = 1_024
"""Rows of a file in memory at a time; they are answered in the order of their lengths."""
SHOWN = 5
"""Bad rows that a message names."""


class Predicted(NamedTuple):
    """What a file of answers holds."""

    rows: int
    abstained: int
    """Rows whose answer is below the threshold."""


@dataclass
class _Rows(ReadReport):
    """Counts rows of data, and names a bad one by its number in the place of a reader's."""

    skip_rejected: bool = True
    good: int = 0

    @property
    def number(self) -> int:
        """Of the row that is read now."""
        return 1 + self.good + len(self.rejected)

    def reject(self, problem: BadData, content: object) -> None:
        """Keep the problem of a bad row."""
        super().reject(BadData(re.sub(r", (line|record) \d+", f", row {self.number}", str(problem), count=1)), content)


class Predictor(NamedTuple):
    """What answers: a task's prompt, the weights of experts or none, and what calibrates the scores of several labels."""

    task: str
    prompt: TaskPrompt
    settings: EvaluationSettings
    router: Router | None = None
    experts: ExpertSet | None = None
    calibration: Sequence[Example] = ()
    threshold: float | None = None

    @classmethod
    def of_router(
        cls, router: Router, experts: ExpertSet, settings: EvaluationSettings | None, threshold: float | None
    ) -> Predictor:
        """The predictor of a router; raises MissingData where it has several labels and no calibration of them."""
        if router.prompt.output_type == "multi_label" and router.calibration is None and router.probe is None:
            raise MissingData(
                f"the router for '{router.task}' has no calibration of its labels. Adapt again with more labelled examples."
            )
        own = settings or EvaluationSettings(max_length=router.prompt.max_length)
        return cls(router.task, router.prompt, own, router, experts, (), threshold)._checked()

    @classmethod
    def of_base(cls, context: Context, task: Task, settings: EvaluationSettings | None, threshold: float | None) -> Predictor:
        """The predictor of the base, with a task's own adaptation examples as calibration."""
        own = settings or EvaluationSettings()
        templates = task.templates if task.is_local else None
        prompt = TaskPrompt.of(task_examples(task, "adaptation", context.store), own.max_length, templates)
        calibration = calibration_set(context, task, own)
        return cls(task.name, prompt, own, calibration=calibration, threshold=threshold)._checked()

    def _checked(self) -> Predictor:
        if self.settings.scoring == "calibrated":
            raise ConfigError(
                "scoring = calibrated takes the mean over all test items off, so an answer would depend on the other rows. "
                "Use scoring = mean or sum."
            )
        if self.router is not None and self.settings.prompt_format == "chat":
            raise ConfigError(
                "prompt_format = chat is for the base without a router: a router reads plain prompts, as it was trained. Leave "
                "prompt_format out."
            )
        if self.threshold is None:
            return self
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold {self.threshold}: a probability between 0 and 1 was expected.")
        if self.prompt.output_type not in LABEL_TYPES:
            raise ConfigError(f"the answers of '{self.task}' are text, which has no probability. Leave the threshold out.")
        return self

    @contextmanager
    def answering(self, context: Context, on_done: OnDone) -> Iterator[Callable[..., Answers]]:
        """What answers some examples within the block, in which the base is routed; it may take partial predictions."""
        router, mixture = self.router, None if self.experts is None else context.mixture(self.experts)
        weights, granularity = (None, "task") if router is None else (router.weights, router.recipe.granularity)
        written = PLAIN if router is not None else context.prompt_format(self.settings.prompt_format)
        base, output_type = replace(context.base, prompt_format=written), self.prompt.output_type
        fitted: LabelCalibrator | Probe | None = None
        answerer = Answerer(base, self.settings, on_done)
        with routed(base, mixture, weights, granularity):
            if router is not None and router.probe is not None:
                fitted = probe_of(router)
            elif router is not None and router.calibration is not None:
                fitted = LabelCalibrator.read(router.calibration)
            elif output_type == "multi_label":
                fitted = calibrate(answerer, self.calibration)

            def answer(examples: Sequence[Example], partial: PartialPredictions | None = None) -> Answers:
                found = predictions_of(output_type, answerer, examples, calibrator=fitted, partial=partial)
                return [answer_of(example, row, self.threshold) for example, row in zip(examples, found, strict=True)]

            yield answer


def answer_rows(
    context: Context, router: Router, experts: ExpertSet, rows: Sequence[str | Mapping[str, Any]], *,
    settings: EvaluationSettings | None = None, threshold: float | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Answers to inputs in memory, in their order.

    Args:
        rows: texts (contexts), or rows as a file has them.
        settings: of reading and writing; None is the router's prompt budget.
        threshold: probability below which a label is not answered.

    Returns:
        for each row its `answer`: a label, a list of labels, or text; of labels also `probabilities`, by label, the most
        probable first; with a threshold also `abstained`, and then None is the answer.

    Raises:
        BaseMismatch, ExpertMismatch: they do not belong together. BadData: a row does not fit. MissingData: no calibration of
            several labels. ConfigError: a query that does not fit into the prompt, or a threshold for text.
    """
    router.check(context.identity, experts)
    predictor = Predictor.of_router(router, experts, settings, threshold)
    examples = [example_of(router.prompt, f"row {number}", row) for number, row in enumerate(rows, start=1)]
    if not examples:
        return []
    with context.progress.bar("predict", len(examples)) as bar, predictor.answering(context, bar.advance) as answer:
        return answer(examples)


def predict_file(
    context: Context, file: Path, out: Path, *, router: Path | None = None, experts: Path | None = None,
    task: Task | None = None, settings: EvaluationSettings | None = None, threshold: float | None = None,
    skip_invalid: bool = False,
) -> Predicted:  # fmt: skip
    """Answer every row of `file` into `out`, from where an interrupted run stopped; returns how many rows it answered.

    Args:
        router: its folder; without one the base answers `task`.
        experts: their folder; None is where they were when the router was made.
        settings, threshold: as `answer_rows`; without a router the default settings.
        skip_invalid: leave out rows that do not fit, named in OUT.made-by.json.

    Raises:
        MissingData: no such file, or a router without its experts or calibration, or neither router nor task. BadData: no
            rows, or some that are not as described above. ConfigError: a router of another task, another format, or `out` has
            answers of something else.
    """
    if out.suffix not in FORMATS:
        raise ConfigError(f"--out {out}: the name must end in {', '.join(FORMATS)}, which says the format of the answers.")
    if not file.is_file():
        raise MissingData(f"no file {file}. Check the path.")
    context, predictor = _predictor(context, router, experts, task, settings, threshold)
    maker = {
        "input": f"{file.name} (sha256 {sha256_of(file)[:16]})", "task": predictor.task,
        "router": None if predictor.router is None else predictor.router.record.get("run"),
        "base": context.identity["fingerprint"], "dtype": context.dtype, "settings": predictor.settings.digest(),
        "threshold": threshold,
    }  # fmt: skip
    note, journal = (out.with_name(f"{out.name}.{ending}") for ending in ("made-by.json", "partial.jsonl"))
    with locked(out):
        if out.exists() or journal.exists():
            _check_maker(out, note, maker)
        count, skipped = _checked(file, predictor.prompt, skip_invalid, context.progress.log)
        if not out.exists():
            write_json(note, made := {**maker, "skipped": skipped, "abstained": 0})
            try:
                found = _answered(context, predictor, file, count, journal)
                write_json(note, made | {"abstained": sum(row.get("abstained", False) for row in found)})
                write_answers(out, found)
            finally:
                if not out.exists() and not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
                    journal.unlink(missing_ok=True)  # nothing was answered: its first line says how it was computed
                    note.unlink()
        journal.unlink(missing_ok=True)
        return Predicted(count, read_json(note)["abstained"])


def _checked(file: Path, prompt: TaskPrompt, skip_invalid: bool, log: Log) -> tuple[int, list[str]]:
    """The number of rows that fit, and what is wrong with the others; raises BadData where these are not to be skipped."""
    report = _Rows()
    count = sum(1 for _ in _lines(file, prompt, report))
    problems = [row.problem for row in report.rejected]
    bad = len(problems)
    if bad and not (skip_invalid and count):
        listed = "\n  ".join(problems[:SHOWN] + [f"and {bad - SHOWN} more"] * (bad > SHOWN))
        advice = "Fix them, or leave them out with --skip-invalid." if count else "Is it a table of this task?"
        raise BadData(f"{file}: {bad} of {count + bad} rows do not fit.\n  {listed}\n{advice}")
    if not count:
        raise BadData(f"{file} has no rows to answer.")
    if bad:
        log(f"{bad} of {count + bad} rows do not fit and are skipped")
    return count, problems


def _check_maker(out: Path, note: Path, maker: dict[str, Any]) -> None:
    """One file never mixes answers of two inputs, models or settings."""
    before = read_json(note) if note.is_file() else None
    if not isinstance(before, dict) or before.keys() != {*maker, "skipped", "abstained"}:
        raise ConfigError(f"{out} is not an output of staf predict. Give another file with --out.")
    if differing := [f"{name} {before[name]} there, {maker[name]} now" for name in maker if before[name] != maker[name]]:
        raise ConfigError(
            f"{out} holds other answers: {'; '.join(differing)}. Give another file with --out, or delete that one."
        )


def _predictor(
    context: Context, folder: Path | None, experts: Path | None, task: Task | None, settings: EvaluationSettings | None,
    threshold: float | None,
) -> tuple[Context, Predictor]:  # fmt: skip
    """A router's predictor with a context of its base, or without a router the base's."""
    if folder is None:
        if task is None:
            raise MissingData("nothing says what to answer: give --router, or --task for the base model.")
        return context, Predictor.of_base(context, task, settings, threshold)
    if context.base_name is None:
        context = context.of_base(load_router(folder).base["name"])
    found, loaded = checked_router(context, folder, experts, None if task is None else task.name)
    if task is not None and found.prompt.templates is None:  # a router of an earlier version keeps none
        found = found.of_task(task)
    return context, Predictor.of_router(found, loaded, settings, threshold)


@dataclass(frozen=True)
class _ReadOnce(PartialPredictions):
    """Partial predictions that are in memory for all blocks."""

    found: dict[str, dict[str, Any]]

    def read(self, computed: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """What was read before, and what was answered since."""
        return self.found


def _answered(context: Context, predictor: Predictor, file: Path, count: int, journal: Path) -> Answers:
    """What is written of each row; predictions in the journal are not computed again."""
    partial = _ReadOnce(journal, PartialPredictions(journal).read(numerics(context.base)))
    lines, answers = _lines(file, predictor.prompt, _Rows()), Answers()
    with (
        context.progress.bar("predict", count + len(predictor.calibration)) as bar,
        predictor.answering(context, bar.advance) as answer,
    ):
        while block := list(islice(lines, BLOCK)):
            found = answer([example for _, _, example in block], partial)
            answers += [{"row": number, "id": given, **one} for (number, given, _), one in zip(block, found, strict=True)]
    return answers


def _lines(file: Path, prompt: TaskPrompt, report: _Rows) -> Iterator[tuple[int, Any, Example]]:
    """Number, id and example of each row that fits; the others are in the report."""
    for _, row in table_rows(file, report):
        named = "id" if "id" in row else next((name for name in row if name.casefold().endswith("_id")), "")
        number, given = report.number, row.get(named)
        try:
            example = example_of(prompt, f"{file}, row {number}", row)
        except BadData as problem:
            report.reject(problem, "")
            continue
        report.good += 1
        yield number, number if given in (None, "") else given if isinstance(given, int | str) else str(given), example


def example_of(prompt: TaskPrompt, place: str, row: str | Mapping[str, Any]) -> Example:
    """The example of a text, or of a row: by the task's templates where they fit it, else of its column "context"."""
    if not isinstance(row, str | Mapping):
        raise BadData(f"{place} is of type {type(row).__name__}: a text, or values by column, was expected.")
    given = {"context": row} if isinstance(row, str) else row
    try:
        json.dumps(given, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise BadData(f"{place}: {HALF_CHARACTER}") from None
    if prompt.templates is not None and not isinstance(row, str):
        try:
            given = _rendered(prompt.templates, dict(row))
        except BadData as error:
            if "context" not in row:
                lacking = sorted(name for name in used_columns(prompt.templates) - row.keys() if name.isidentifier())
                raise BadData(f"{place}: {error}{'; the task reads ' * bool(lacking)}{', '.join(lacking)}") from error
    context, query, labels = given.get("context"), given.get("query"), given.get("labels")
    if not isinstance(context, str):
        raise BadData(f'{place}: "context" (text) is missing; with --task FILE of your own its templates make it.')
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(SEPARATOR.strip()) if label.strip()] or None
    if labels is not None and not (isinstance(labels, list) and all(isinstance(label, str) and label for label in labels)):
        raise BadData(f'{place}: "labels" must be a list of texts.')
    if query is not None and not isinstance(query, str):
        raise BadData(f'{place}: "query" must be text.')
    return prompt.example(place, context, query or None, labels)


def _rendered(templates: RowTemplates, row: dict[str, Any]) -> dict[str, Any]:
    """Context, query and labels of a row by the templates; its own query and labels where no template reads these columns."""
    query, context, labels = rendered(templates, row)
    own = {name: row[name] for name in ("query", "labels") if row.get(name) and name not in used_columns(templates)}
    return {"context": context, "query": query, "labels": list(labels) or None} | own


def answer_of(example: Example, row: dict[str, Any], threshold: float | None) -> dict[str, Any]:
    """The answer and the probability of each label, the most probable first.

    An answer of several labels is as probable as the least probable of them; an empty one as that no label is right.
    """
    if example.output_type not in LABEL_TYPES:
        return {"answer": row["answer"]}
    single, scores = example.output_type == "multiple_choice", torch.tensor(row["scores"], dtype=torch.float64)
    probs: list[float] = (scores.softmax(0) if single else scores.sigmoid()).tolist()
    pairs = sorted(zip(example.labels, probs, strict=True), key=lambda pair: -pair[1])
    answer = pairs[0][0] if single else [example.labels[index] for index in row["answer"]]
    found = {"answer": answer, "probabilities": dict(pairs)}
    if threshold is None:
        return found
    sure = pairs[0][1] if single else min((probs[index] for index in row["answer"]), default=1 - max(probs, default=0.0))
    return {"answer": answer if sure >= threshold else None, "abstained": sure < threshold, "probabilities": dict(pairs)}
