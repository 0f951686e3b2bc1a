"""Answers for a file: JSON lines in, JSON lines out, streamed and resumable.

In:   {"context": "...", "id": "any"}            id and query are optional
Out:  {"line": 1, "id": "any", "answer": "...", "probabilities": {"label": 0.9, ...}}       where one label is right
      {"line": 1, "id": "any", "answer": ["..."], "probabilities": {"label": 0.9, ...}}     where several may be
      {"line": 1, "id": "any", "answer": "..."}                                             words of the context, or free text
      {"line": 1, "id": "any", "answer": [{"type": "...", "text": "..."}]}                  entities

A line of the output is written only when it is whole; a stopped run goes on after the last whole line. Messages name the
line, never its text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from staf.data.answers import NONE
from staf.data.example import Example
from staf.data.selection import task_examples
from staf.data.task import Task
from staf.errors import BadData, DamagedFile, MissingData
from staf.evaluate import Method, predict
from staf.evaluate.settings import EvaluationSettings
from staf.io import read_json, write_json
from staf.stages import Context, calibration_set, router_and_mixture, router_method

LINES_AT_ONCE = 64


def predict_file(
    context: Context, task: Task, file: Path, out: Path, experts: Path | None, router: Path | None,
    settings: EvaluationSettings | None = None,
) -> int:  # fmt: skip
    """Answer every line of `file` that `out` does not have yet; returns how many answers `out` holds in the end.

    Args:
        settings: of reading and writing, such as max_length for a task whose query is long; None takes the defaults.

    Raises:
        MissingData: no such file, or a router without its experts. BadData: a line that is not as described above.
        DamagedFile: `out` is not the output of this file.
    """
    if not file.is_file():
        raise MissingData(f'no file {file}. Give JSON lines, each with "context".')
    if router is not None and experts is None:
        raise MissingData("a router needs its experts: add --experts and the folder of the experts.")
    pattern = task_examples(task, "adaptation", context.store)[0]
    done = _whole_lines(out)
    mixture, method, maker = None, Method("original", None), None
    if router is not None and experts is not None:
        found, mixture = router_and_mixture(context, router, experts)
        method, maker = router_method(found), found.record.get("run")
    settings, usual = settings or EvaluationSettings(), EvaluationSettings()
    made_by = {"task": task.name, "base": context.identity["fingerprint"], "router": maker}
    made_by |= {} if context.dtype is None else {"dtype": context.dtype}
    _same_maker(out, done, made_by if settings == usual else {**made_by, "settings": settings.digest()})
    calibration = calibration_set(context, task, settings)
    with file.open("rb") as stream:
        total = sum(1 for _ in stream)
    items = islice(_questions(file, pattern), done, None)
    with context.progress.bar(f"answer {file.name}", total - done) as bar, out.open("a", encoding="utf-8") as stream:
        while block := list(islice(items, LINES_AT_ONCE)):
            examples = [example for _, example in block]
            answers = predict(
                context.base, mixture, method, examples, settings, output_type=task.output_type, calibration=calibration
            )
            for (name, example), row in zip(block, answers, strict=True):
                done += 1
                answer = {"line": done, "id": name, **_answer(task.output_type, example, row)}
                stream.write(json.dumps(answer, ensure_ascii=False) + "\n")
            stream.flush()
            bar.advance(len(block))
    return done


def _same_maker(out: Path, done: int, maker: dict[str, str | None]) -> None:
    """Answers of two models, or with two settings, never share a file: who made `out` is kept beside it."""
    note = out.with_name(f"{out.name}.made-by.json")
    if done and (not note.is_file() or read_json(note) != maker):
        raise DamagedFile(
            f"{out} holds {done} answers of another task, base or router, or with other settings. Delete it, or name another "
            "file with --out."
        )
    write_json(note, maker)


def _answer(output_type: str, example: Example, row: dict[str, Any]) -> dict[str, Any]:
    """What is written of a prediction."""
    if output_type not in ("multiple_choice", "multi_label"):
        return {"answer": row["answer"]}
    scores = torch.tensor(row["scores"])
    chances = (scores.softmax(0) if output_type == "multiple_choice" else scores.sigmoid()).tolist()
    pairs = sorted(zip(example.labels, chances, strict=True), key=lambda pair: -pair[1])
    return {
        "answer": pairs[0][0] if output_type == "multiple_choice" else [example.labels[index] for index in row["answer"]],
        "probabilities": {label: round(chance, 4) for label, chance in pairs},
    }


def _questions(file: Path, pattern: Example) -> Iterator[tuple[Any, Example]]:
    """Id and example of each line; query and labels are the task's unless the line has its own."""
    with file.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            try:
                row = json.loads(raw)
            except ValueError as error:
                raise BadData(f'{file}, line {number}: not JSON. Each line is an object with "context".') from error
            if not isinstance(row, dict) or not isinstance(row.get("context"), str):
                raise BadData(f'{file}, line {number}: an object with "context" (text) is expected.')
            labels = row.get("labels", list(pattern.labels))
            if pattern.output_type == "multiple_choice" and not labels:
                raise BadData(f'{file}, line {number}: its task has one right label, and "labels" holds none.')
            if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
                raise BadData(f'{file}, line {number}: "labels" must be a list of texts.')
            query, answer = (
                row.get("query", pattern.query),
                labels[0] if pattern.output_type == "multiple_choice" else NONE,
            )  # read by nobody
            name = row.get("id", number)
            yield (
                name,
                Example(
                    f"line {number}",
                    pattern.task_type,
                    query,
                    row["context"],
                    answer,
                    tuple(labels),
                    "test",
                    (),
                    pattern.output_type,
                ),
            )


def _whole_lines(out: Path) -> int:
    """Whole answers already in `out`; a last line that was cut off is removed."""
    if not out.is_file():
        return 0
    data = out.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    lines = whole.splitlines()
    try:
        numbers = [json.loads(line)["line"] for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"{out} is not an output of staf predict. Name another file with --out.") from error
    if numbers != list(range(1, len(numbers) + 1)):
        raise DamagedFile(f"{out} does not go on line by line. Delete it and run the same command again.")
    if len(whole) != len(data):
        with out.open("r+b") as stream:
            stream.truncate(len(whole))
    return len(lines)
