"""What a saved prediction holds, by output type; every metric reads these keys and nothing else.

    choice     gold: index of the right label      scores: log-likelihood of each label of this item
    several    gold: indices of the right labels   answer: indices of the labels answered
                                                   scores: log-odds of each label (0 is one half); optional
    span       gold: every text that is right, [] where the context holds no answer
                                                   answer: text, '' for "no answer"
    entities   gold: [{"type", "text"}, ...]       answer: [{"type", "text"}, ...]
    text       gold: every reference               answer: text

Each also has an "id" (read where two methods are compared) and, but for choice, may have a "confidence": any number, higher
where the method is surer. An optional key is there for all items or for none. Messages name the line, never its text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np

from staf.errors import BadData, UnknownName

Prediction = dict[str, Any]
Problem = str | None


def check(output_type: str, predictions: Sequence[Prediction], *, fixed_labels: bool = False) -> None:
    """See that predictions are as the module says, before anything is computed from them.

    Args:
        fixed_labels: of choices: every item must have the same number of labels.

    Raises:
        UnknownName: no such output type. BadData: no predictions, or one that is not of this form, named by its line.
    """
    if output_type not in _PROBLEMS:
        raise UnknownName.among("output type", output_type, _PROBLEMS)
    if not predictions:
        raise BadData("there are no predictions to score. Expected one object a line, at least one.")
    for line, prediction in enumerate(predictions, start=1):
        if problem := _PROBLEMS[output_type](prediction) or _confidence_problem(prediction):
            raise BadData(
                f"prediction {line} of {len(predictions)}, output type '{output_type}': {problem}. Mend it, or predict again."
            )
    for key in ("scores", "confidence"):
        holders = sum(key in prediction for prediction in predictions)
        if 0 < holders < len(predictions):
            raise BadData(f"{holders} of {len(predictions)} predictions have '{key}'. Give it to all of them, or to none.")
    if output_type == "multi_label" or fixed_labels:
        widths = sorted({len(p["scores"]) for p in predictions if "scores" in p})
        if len(widths) > 1:
            raise BadData(f"predictions have {widths[0]} to {widths[-1]} scores. With fixed labels all need the same number.")


def predicted(scores: Sequence[float]) -> int:
    """Index of the best score; the first one where several are equal."""
    return int(np.argmax(np.asarray(scores)))


def softmax(scores: Sequence[float]) -> np.ndarray:
    """Probabilities (labels,) of the labels of one item from their log-likelihoods."""
    values = np.asarray(scores, dtype=float)
    chances: np.ndarray = np.exp(values - values.max())
    return chances / chances.sum()


def membership(rows: Sequence[Sequence[int]], labels: int) -> np.ndarray:
    """(n, labels) booleans: which labels each row of indices holds."""
    held = np.zeros((len(rows), labels), dtype=bool)
    for index, row in enumerate(rows):
        held[index, list(row)] = True
    return held


def label_count(predictions: Sequence[Prediction]) -> int:
    """How many labels there are, of form several: those scored, else up to the last one named."""
    if "scores" in predictions[0]:
        return len(predictions[0]["scores"])
    return max((index + 1 for p in predictions for key in ("gold", "answer") for index in p[key]), default=0)


def _choice_problem(prediction: Prediction) -> Problem:
    gold, scores = prediction.get("gold"), prediction.get("scores")
    if not _are_numbers(scores) or not scores:
        return "'scores' must be a list of numbers, one per label"
    return None if _is_index(gold) and gold < len(scores) else f"'gold' must be the index of one of its {len(scores)} labels"


def _several_problem(prediction: Prediction) -> Problem:
    scores = prediction.get("scores", [])
    if not _are_numbers(scores) or ("scores" in prediction and not scores):
        return "'scores' must be a list of numbers, the log-odds of each label"
    for key in ("gold", "answer"):
        found = prediction.get(key)
        if not isinstance(found, list) or not all(_is_index(i) for i in found) or len(set(found)) < len(found):
            return f"'{key}' must be a list of indices of labels, each once"
        if scores and max(found, default=-1) >= len(scores):
            return f"'{key}' names a label beyond the {len(scores)} that have a score"
    return None


def _span_problem(prediction: Prediction) -> Problem:
    gold = prediction.get("gold")
    if not isinstance(gold, list) or not all(isinstance(text, str) for text in gold):
        return "'gold' must be a list of texts"
    return None if isinstance(prediction.get("answer"), str) else "'answer' must be a text"


def _text_problem(prediction: Prediction) -> Problem:
    return "'gold' must hold at least one reference" if prediction.get("gold") == [] else _span_problem(prediction)


def _entities_problem(prediction: Prediction) -> Problem:
    for key in ("gold", "answer"):
        found = prediction.get(key)
        if not isinstance(found, list) or not all(_is_mention(mention) for mention in found):
            return f"'{key}' must be a list of objects, each with 'type' and 'text', neither blank"
    return None


def _confidence_problem(prediction: Prediction) -> Problem:
    return None if _are_numbers([prediction.get("confidence", 0.0)]) else "'confidence' must be a number"


def _is_index(value: object) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def _are_numbers(values: object) -> TypeGuard[list[float]]:
    return isinstance(values, list) and all(type(value) in (int, float) and math.isfinite(value) for value in values)


def _is_mention(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(k), str) and value[k].strip() for k in ("type", "text"))


_PROBLEMS: dict[str, Callable[[Prediction], Problem]] = {
    "multiple_choice": _choice_problem,
    "multi_label": _several_problem,
    "span": _span_problem,
    "ner": _entities_problem,
    "generate_until": _text_problem,
}


def correctness(predictions: Sequence[Prediction]) -> np.ndarray:
    """1 where the best-scored label is the right one, else 0: (n,) float."""
    return np.array([float(predicted(p["scores"]) == p["gold"]) for p in predictions])
