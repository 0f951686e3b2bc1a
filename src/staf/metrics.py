"""Metrics from saved predictions, with intervals and paired tests; never from a model.

A prediction is {"id", "gold": index of the right label, "scores": one number per label}. The labels may differ by item
(options of a question), so accuracy is defined for all tasks; macro F1 and AUC need a fixed label set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    examples: int
    higher_is_better: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """Difference of two methods on the same items, ours minus the other's."""

    difference: float
    low: float
    high: float
    p_value: float
    """two-sided sign-flip test"""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def predicted(scores: Sequence[float]) -> int:
    """Index of the best score; the first one where several are equal."""
    return int(np.argmax(np.asarray(scores)))


def correctness(predictions: Sequence[dict[str, Any]]) -> np.ndarray:
    """1 where the best-scored label is the right one, else 0: (n,) float."""
    return np.array([float(predicted(p["scores"]) == p["gold"]) for p in predictions])


def interval(per_item: np.ndarray, resamples: int, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of (n,) numbers; (mean, mean) for one item."""
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, len(per_item), size=(resamples, len(per_item)))
    low, high = np.percentile(per_item[draws].mean(1), [2.5, 97.5])
    return float(low), float(high)


def accuracy(predictions: Sequence[dict[str, Any]], resamples: int) -> Metric:
    """Share of items whose best-scored label is the right one."""
    right = correctness(predictions)
    low, high = interval(right, resamples)
    return Metric(float(right.mean()), low, high, len(right))


def macro_f1(predictions: Sequence[dict[str, Any]], resamples: int) -> Metric:
    """Mean F1 of the labels that occur as gold or as prediction, for a fixed label set."""
    gold = np.array([p["gold"] for p in predictions])
    guess = np.array([predicted(p["scores"]) for p in predictions])
    generator = np.random.default_rng(0)
    draws = generator.integers(0, len(gold), size=(resamples, len(gold)))
    values = [_macro_f1(gold[d], guess[d]) for d in draws]
    low, high = np.percentile(values, [2.5, 97.5])
    return Metric(_macro_f1(gold, guess), float(low), float(high), len(gold))


def _macro_f1(gold: np.ndarray, guess: np.ndarray) -> float:
    size = int(max(gold.max(), guess.max())) + 1
    hits = np.bincount(gold[gold == guess], minlength=size)
    both = np.bincount(gold, minlength=size) + np.bincount(guess, minlength=size)
    present = both > 0
    return float((2 * hits[present] / both[present]).mean())


def macro_auc(predictions: Sequence[dict[str, Any]]) -> float | None:
    """Mean one-against-rest AUC over the labels that have a positive and a negative; None where there is none.

    Scores are turned into probabilities over the labels of an item by softmax first.
    """
    from sklearn.metrics import roc_auc_score

    scores = np.array([p["scores"] for p in predictions], dtype=float)  # (n, labels)
    chances = np.exp(scores - scores.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    gold = np.array([p["gold"] for p in predictions])
    values = [roc_auc_score(gold == c, chances[:, c]) for c in range(scores.shape[1]) if 0 < (gold == c).sum() < len(gold)]
    return float(np.mean(values)) if values else None


def all_metrics(predictions: Sequence[dict[str, Any]], *, fixed_labels: bool, resamples: int) -> dict[str, Any]:
    """Every metric that is defined for these predictions, as plain values; null where one is undefined."""
    result: dict[str, Any] = {"accuracy": accuracy(predictions, resamples).as_dict()}
    if fixed_labels:
        result["macro_f1"] = macro_f1(predictions, resamples).as_dict()
        auc = macro_auc(predictions)
        result["macro_auc"] = None if auc is None else {"value": auc, "examples": len(predictions), "higher_is_better": True}
    return result


def compare(ours: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]], resamples: int) -> Comparison:
    """Paired comparison of accuracy on the same items: bootstrap interval of the difference, sign-flip p-value.

    Raises:
        ValueError: the two are not about the same items in the same order.
    """
    if [p["id"] for p in ours] != [p["id"] for p in other]:
        raise ValueError("predictions of two methods can be compared only on the same items in the same order")
    difference = correctness(ours) - correctness(other)  # (n,)
    low, high = interval(difference, resamples)
    signs = np.random.default_rng(1).choice([-1.0, 1.0], size=(resamples, len(difference)))
    extreme = np.abs((signs * difference).mean(1)) >= abs(difference.mean()) - 1e-12
    return Comparison(float(difference.mean()), low, high, float((extreme.sum() + 1) / (resamples + 1)))
