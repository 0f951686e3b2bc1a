"""Predictions of a system that we do not run, such as G-BERT or MedM-PLM, read from a JSON-lines file.

`staf data export` writes the test items with their ids; see docs/classifiers.md. One object a line, in any order, one for each
test item and no other. Labels are named by their text:

    multiple_choice  {"id": "7", "scores": {"yes": -0.2, "no": -1.7}}          log-likelihood of every label
                     {"id": "7", "answer": "yes"}                              or only the label answered
    multi_label      {"id": "7", "scores": {"aspirin": 1.3, "heparin": -2.0}}  log-odds of every label; above 0 is answered
                     {"id": "7", "answer": ["aspirin"]}                        only the labels answered
                     both keys                                                 where the threshold is not one half

All lines have the same keys. A choice with only an answer is scored as near certain: its accuracy and F1 are right, its AUC and
calibration are not informative.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from staf.baselines.classifiers import MIN_PROB
from staf.data.example import LABEL_TYPES, Example
from staf.errors import BadData, ConfigError, MissingData
from staf.evaluate.answer import gold_indices
from staf.metrics.schema import Finite, check

_KEYS = {"multiple_choice": ("scores", "answer"), "multi_label": ("scores", "answer", "answer, scores")}


class Line(BaseModel):
    """A line of the file; `model_fields_set` has the keys that were given."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)
    id: str
    scores: dict[str, Finite] = {}
    answer: str | list[str] = ""


def read_predictions(path: Path, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Another system's predictions as `staf.metrics.schema` has them, in the order of the examples.

    Args:
        path: JSON lines in UTF-8, as the module says.
        examples: every test example, all of one output type that has labels.

    Raises:
        MissingData: there is no such file, or no examples. ConfigError: examples of another output type, or of several.
        BadData: a line is not as the module says, names an unknown id or label or one twice, or an id has no line; names the
            line or the ids, never the text.
    """
    output_types = sorted({example.output_type for example in examples})
    if not output_types:
        raise MissingData("there are no test examples to read predictions for. See: staf data list")
    if len(output_types) > 1 or output_types[0] not in LABEL_TYPES:
        raise ConfigError(
            f"predictions are read of tasks of one output type, {' or '.join(LABEL_TYPES)}; found {', '.join(output_types)}."
        )
    by_id, found, keys = {example.id: example for example in examples}, dict[str, dict[str, Any]](), ""
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            where, entry = f"{path}, line {number}", _entry(line, f"{path}, line {number}")
            given = ", ".join(sorted(entry.model_fields_set - {"id"}))
            if given not in _KEYS[output_types[0]]:
                raise BadData(f"{where}: next to 'id' its keys must be one of: {'; '.join(_KEYS[output_types[0]])}.")
            if given != (keys := keys or given):
                raise BadData(f"{where}: it has other keys than the lines before it. Give all lines the same.")
            if entry.id not in by_id or entry.id in found:
                problem = "is there twice" if entry.id in found else "is no test item"
                raise BadData(f"{where}: its id {problem}. Give each of the {len(by_id)} test items one line.")
            found[entry.id] = _prediction(by_id[entry.id], entry, where)
    if missing := [example.id for example in examples if example.id not in found]:
        raise BadData(f"{path}: {len(missing)} of {len(examples)} test items have no line: {', '.join(missing[:3])}.")
    predictions = [found[example.id] for example in examples]
    check(output_types[0], predictions)
    return predictions


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise MissingData(f"no predictions at {path}. Check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path} is not a file of UTF-8 text. Save it as JSON lines in UTF-8.") from error


def _entry(line: str, where: str) -> Line:
    try:
        return Line.model_validate(json.loads(line, object_pairs_hook=_once))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        problem = f"; '{first['loc'][0]}': {first['msg']}" if first["loc"] else ""
    except (ValueError, RecursionError):
        problem = ""
    raise BadData(f"{where}: a JSON object as docs/classifiers.md has it, no key twice, was expected{problem}.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


def _prediction(example: Example, entry: Line, where: str) -> dict[str, Any]:
    labels, gold, one = example.labels, gold_indices(example), example.output_type == "multiple_choice"
    scores, answer = [entry.scores.get(label, math.nan) for label in labels], list[int]()
    if "scores" in entry.model_fields_set:
        if set(entry.scores) != set(labels):
            raise BadData(f"{where}: 'scores' must name each of the {len(labels)} labels of its item and no other.")
        answer = [index for index, score in enumerate(scores) if score > 0]
    if "answer" in entry.model_fields_set:
        if isinstance(entry.answer, str) != one:
            raise BadData(f"{where}: 'answer' must be {'a label' if one else 'a list of labels'}.")
        texts = [entry.answer] if isinstance(entry.answer, str) else entry.answer
        if not set(texts) <= set(labels) or len(set(texts)) < len(texts):
            raise BadData(f"{where}: 'answer' names a label that its item does not have, or one twice.")
        answer = sorted(labels.index(text) for text in texts)
    if one:
        near_certain = [0.0 if answer == [index] else math.log(MIN_PROB) for index in range(len(labels))]
        return {"id": example.id, "gold": gold[0], "scores": scores if entry.scores else near_certain}
    return {"id": example.id, "gold": gold, "answer": answer} | (
        {"scores": scores} if entry.scores else {"labels": len(labels)}
    )
