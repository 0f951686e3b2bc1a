"""Micro and macro F1 from three counts per item and class: right, in the gold answer, in the method's answer.

    F1 = 2 right / (gold + answered)

A class is a label, or a type of entity. Micro takes the counts of all classes together; macro is the mean F1 of the classes
that occur as gold or as answer. With exactly one label per item micro F1 is the accuracy, so it is not reported there. Accuracy
over labels counts what is rightly left out as well, so it needs to know all labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from staf.metrics.bootstrap import Statistic
from staf.metrics.shapes import Prediction, label_count, membership, predicted


def micro_f1_of(right: np.ndarray, gold: np.ndarray, answered: np.ndarray) -> Statistic:
    """Micro F1 from (n, classes) counts; undefined where there is no class in any answer, gold or given."""
    per_item = np.stack([right.sum(1), (gold + answered).sum(1)], axis=1).astype(float)

    def value(counts: np.ndarray) -> np.ndarray:
        sums = counts @ per_item
        return _ratio(2 * sums[:, 0], sums[:, 1])

    return Statistic(len(right), value)


def macro_f1_of(right: np.ndarray, gold: np.ndarray, answered: np.ndarray) -> Statistic:
    """Macro F1 from (n, classes) counts, over the classes that occur in a resample; tells how many occur in the items."""
    hits, both = right.astype(float), (gold + answered).astype(float)

    def value(counts: np.ndarray) -> np.ndarray:
        scores = _ratio(2 * (counts @ hits), counts @ both)  # (b, classes), NaN where absent
        return _ratio(np.nansum(scores, axis=1), (~np.isnan(scores)).sum(1))

    occurring = int((both.sum(0) > 0).sum())
    return Statistic(len(right), value, details={"classes": occurring}, width=right.shape[1])


def choice_counts(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, labels) counts right, gold, answered of choices among fixed labels."""
    labels = max(len(p["scores"]) for p in predictions)
    gold = membership([[p["gold"]] for p in predictions], labels)
    answered = membership([[predicted(p["scores"])] for p in predictions], labels)
    return _counted(gold, answered)


def several_counts(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, labels) counts right, gold, answered of multi-label answers."""
    labels = label_count(predictions)
    gold, answered = (membership([p[key] for p in predictions], labels) for key in ("gold", "answer"))
    return _counted(gold, answered)


def item_f1(right: np.ndarray, gold: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """(n,) F1 of each item by itself, 1 where nothing was to be answered and nothing was."""
    scores = _ratio(2.0 * right.sum(1), (gold + answered).sum(1))
    return np.where(np.isnan(scores), 1.0, scores)


def item_label_accuracy(right: np.ndarray, gold: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """(n,) share of an item's labels that are rightly named or rightly left out."""
    wrong = (gold + answered - 2 * right).sum(1)
    return 1.0 - wrong / right.shape[1]


def best_threshold(log_odds: np.ndarray, right: np.ndarray) -> float:
    """The value from which on answering gives the best micro F1: halfway between two log-odds that are met."""
    order = np.argsort(-log_odds, kind="stable")
    sorted_odds, hits = log_odds[order], np.cumsum(right[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + right.sum())
    last = np.append(sorted_odds[:-1] > sorted_odds[1:], True)  # equal ones are answered together
    best = int(np.argmax(np.where(last, f1, -1)))
    after = sorted_odds[best + 1] if best + 1 < len(order) else sorted_odds[best] - 2.0
    return float((sorted_odds[best] + after) / 2)


def _counted(gold: np.ndarray, answered: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (gold & answered).astype(int), gold.astype(int), answered.astype(int)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the lower number is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
