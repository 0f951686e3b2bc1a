"""F1, AUC and average precision of labels and entity types, as statistics that a bootstrap can resample.

    F1 = 2 right / (gold + answered)

Micro pools the counts of all classes, macro is the mean over classes. Of multi-label tasks macro F1 is over all labels, one
that never occurs counting 0; of single-label tasks and entity types it is over those that occur (both as scikit-learn's
`f1_score`). For AUC and average precision a label without a positive, or for AUC without a negative, has no value: it is left
out of the macro mean, and how many were is recorded.

scikit-learn computes the same values (the tests compare), one resample at a time; a bootstrap needs thousands, so these are
functions of sums over items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from staf.metrics.schema import Prediction
from staf.metrics.stats import Statistic

Counts = tuple[np.ndarray, np.ndarray]
"""(n, classes) counts: rightly answered; in the gold answer plus answered."""
Area = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Positives and negatives (b, groups), best score first, to (b,) values, NaN where undefined."""


def label_scores(predictions: Sequence[Prediction]) -> np.ndarray:
    """(n, labels) scores, -inf where an item has fewer labels than others."""
    return np.array([*zip_longest(*(p["scores"] for p in predictions), fillvalue=-np.inf)], dtype=float).T


def membership(rows: Sequence[Sequence[int]], labels: int) -> np.ndarray:
    """(n, labels) booleans: which labels each row of indices holds."""
    held = np.zeros((len(rows), labels), dtype=bool)
    for index, row in enumerate(rows):
        held[index, list(row)] = True
    return held


def f1_counts(gold: np.ndarray, answered: np.ndarray) -> Counts:
    """Counts of (n, labels) booleans."""
    return (gold & answered).astype(float), gold + answered.astype(float)


def ratio(above: np.ndarray, below: np.ndarray, *, higher_is_better: bool = True) -> Statistic:
    """Sum of (n,) numbers over the sum of others; undefined where the latter is 0."""
    return Statistic.of_sums(divide, above, below, higher_is_better=higher_is_better)


def micro_f1(right: np.ndarray, both: np.ndarray) -> Statistic:
    """Micro F1 from (n, classes) counts; undefined where no class occurs in any answer."""
    return ratio(2 * right.sum(1), both.sum(1))


def macro_f1(right: np.ndarray, both: np.ndarray, *, all_classes: bool = False) -> Statistic:
    """Macro F1 from (n, classes) counts, over the classes that occur in a resample.

    Args:
        all_classes: mean over all classes, one that does not occur counting 0; undefined where none occurs.
    """

    def value(right: np.ndarray, both: np.ndarray) -> np.ndarray:
        scores = divide(2 * right, both)  # (b, classes), NaN where absent
        occurring = (~np.isnan(scores)).sum(1)
        return divide(np.nansum(scores, axis=1), scores.shape[1] * (occurring > 0) if all_classes else occurring)

    classes = both.shape[1] if all_classes else int((both.sum(0) > 0).sum())
    return Statistic.of_sums(value, right, both, details={"classes": classes})


def item_f1(right: np.ndarray, both: np.ndarray) -> np.ndarray:
    """(n,) F1 of each item by itself, 1 where nothing was to be answered and nothing was."""
    return np.nan_to_num(divide(2 * right.sum(1), both.sum(1)), nan=1.0)


def best_threshold(log_odds: np.ndarray, right: np.ndarray) -> float:
    """The value from which on answering gives the best micro F1: halfway between two log-odds that occur."""
    order = np.argsort(-log_odds, kind="stable")
    sorted_odds, hits = log_odds[order], np.cumsum(right[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + right.sum())
    last = np.append(sorted_odds[:-1] > sorted_odds[1:], True)  # equal ones are answered together
    best = int(np.argmax(np.where(last, f1, -1)))
    after = sorted_odds[best + 1] if best + 1 < len(order) else sorted_odds[best] - 2.0
    return float((sorted_odds[best] + after) / 2)


def roc_area(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """The probability that a positive scores above a negative, a tie counting half."""
    worse = negatives.sum(1, keepdims=True) - np.cumsum(negatives, axis=1)
    return divide((positives * (worse + negatives / 2)).sum(1), positives.sum(1) * negatives.sum(1))


def average_precision(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Sum over thresholds of precision times the recall gained there; items of one score share one threshold."""
    found = np.cumsum(positives, axis=1)
    shown = found + np.cumsum(negatives, axis=1)
    precision = np.divide(found, shown, out=np.zeros_like(found), where=shown > 0)
    return divide((positives * precision).sum(1), positives.sum(1))


def by_score(group: np.ndarray, item: np.ndarray, *amounts: np.ndarray) -> list[Any]:
    """Sparse (items, groups) of each amount (m,), whose products with counts of items are sums by group.

    Args:
        group: (m,) of equal scores, best first; their order within it is arbitrary, and no metric depends on it. item: (m,).
    """
    from scipy.sparse import csr_array

    shape = (item.max() + 1, group.max() + 1)
    return [csr_array((amount.astype(float), (item, group)), shape=shape) for amount in amounts]


def ranks(scores: np.ndarray) -> np.ndarray:
    """(m,) group of equal scores (m,) that each belongs to, the best first."""
    return np.unique(-scores, return_inverse=True)[1]


def micro(area: Area, scores: np.ndarray, gold: np.ndarray) -> Statistic:
    """An area over all pairs of item and label, from (n, labels) scores and booleans."""
    item, positive, group = np.repeat(np.arange(len(scores)), scores.shape[1]), gold.ravel(), ranks(scores.ravel())
    holds = np.bincount(group, positive) > 0
    group = np.cumsum(holds | np.append(True, holds[:-1]))[group] - 1
    return Statistic.of_sums(area, *by_score(group, item, positive, ~positive))


def macro(area: Area, scores: np.ndarray, gold: np.ndarray) -> Statistic:
    """Mean of an area over labels, from (n, labels) scores and booleans; records labels and labels left out."""
    items, labels = scores.shape
    each = [micro(area, scores[:, [label]], gold[:, [label]]) for label in range(labels)]
    usable = [statistic for statistic in each if not np.isnan(statistic.value)]

    def value(counts: np.ndarray) -> np.ndarray:
        values = np.array([statistic.of(counts) for statistic in usable]).reshape(len(usable), len(counts))
        return divide(np.nansum(values, axis=0), (~np.isnan(values)).sum(0))

    return Statistic(items, value, details={"classes": len(usable), "classes_left_out": labels - len(usable)})


def divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the lower number is 0."""
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
