"""From answers to predictions, by output type: the keys that `staf.metrics.schema` describes, and nothing else is scored.

Predictions of labels are ids and numbers. Where the answer is words, a prediction holds the words: such a file belongs where
the data is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from staf.data.answers import Entity, answer_parts, read_entities, read_several
from staf.data.example import Example
from staf.evaluate.answer import Answerer
from staf.evaluate.calibrate import LabelCalibrator, fit_calibrator

Predictions = list[dict[str, Any]]
DIGITS = 6
"""of a saved score"""
UNTYPED = "untyped"
"""type of an answered mention that names none"""


def predictions_of(
    output_type: str, answerer: Answerer, examples: Sequence[Example], calibration: Sequence[Example] = ()
) -> Predictions:
    """Answers to examples as they are saved, in the order given.

    Args:
        output_type: of the answers of all of them.
        calibration: adaptation examples; of the form several, which needs them to know from which score on a label belongs.

    Raises:
        BadData: an example has no labels, or no context. MissingData: too few calibration examples.
        ConfigError: a query that does not fit.
    """
    if output_type == "multiple_choice":
        return [
            {"id": e.id, "gold": e.labels.index(e.answer), "scores": [round(float(x), DIGITS) for x in s]}
            for e, s in zip(examples, answerer.scores(examples), strict=True)
        ]
    if output_type == "multi_label":
        return _several(answerer, examples, calibration)
    answers = (answerer.spans if output_type == "span" else answerer.texts)(examples)
    if output_type == "ner":
        return [
            {"id": e.id, "gold": _mentions(read_entities(e.answer)), **_mentioned(a, e)}
            for e, a in zip(examples, answers, strict=True)
        ]
    return [{"id": e.id, "gold": [e.answer], "answer": a} for e, a in zip(examples, answers, strict=True)]


def _several(answerer: Answerer, examples: Sequence[Example], calibration: Sequence[Example]) -> Predictions:
    fitted_on = [scores.numpy().astype(float) for scores in answerer.scores(calibration)] if calibration else []
    labels, gold = [example.labels for example in calibration], [_belongs(example) for example in calibration]
    scale = fit_calibrator(labels, fitted_on, gold)
    scores = answerer.scores(examples)
    return [_labelled(example, scale, own.numpy().astype(float)) for example, own in zip(examples, scores, strict=True)]


def _labelled(example: Example, scale: LabelCalibrator, scores: np.ndarray) -> dict[str, Any]:
    log_odds = scale.log_odds(example.labels, scores)
    return {
        "id": example.id,
        "gold": np.flatnonzero(_belongs(example)).tolist(),
        "answer": np.flatnonzero(log_odds >= scale.threshold).tolist(),
        "scores": [round(float(x), DIGITS) for x in log_odds],
    }


def _belongs(example: Example) -> np.ndarray:
    """(labels,) true where a label is right."""
    right = set(read_several(example.answer))
    return np.array([label in right for label in example.labels])


def _mentioned(answer: str, example: Example) -> dict[str, Any]:
    """Every mention in an answer, and how many of them are not in the context or of no type of the task."""
    entities = [*read_entities(answer), *(Entity(UNTYPED, part) for part in answer_parts(answer) if ":" not in part)]
    real = sum(entity.type in example.labels and entity.text in example.context for entity in entities)
    return {"answer": _mentions(entities), "invented": len(entities) - real}


def _mentions(entities: Iterable[Entity]) -> list[dict[str, str]]:
    return [{"type": entity.type, "text": entity.text} for entity in entities]
