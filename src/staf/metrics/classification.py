"""F1, AUC and average precision of labels and entity types, as statistics that a bootstrap can resample.

    F1 = 2 right / (gold + answered)

Micro pools the counts of all classes, macro is the mean over classes. Of multi-label tasks macro F1 is over all labels, one
that never occurs counting 0; of single-label tasks and entity types it is over those that occur (both as scikit-learn's
`f1_score`). For AUC and average precision a label without a positive, or for AUC without a negative, has no value: it is left
out of the macro mean, and how many were is recorded.

scikit-learn computes the same values (the tests compare), one resample at a time; a bootstrap needs thousands on one sort
order, so the sums are vectorised here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from staf.metrics.schema import Prediction, label_count, membership, predicted, softmax
from staf.metrics.stats import Statistic

Counts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(n, classes) counts: right, in the gold answer, answered."""
Area = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Positives and negatives (b, groups), best score first, to (b,) values, NaN where undefined."""


def micro_f1_of(right: np.ndarray, gold: np.ndarray, answered: np.ndarray) -> Statistic:
    """Micro F1 from (n, classes) counts; undefined where no class occurs in any answer."""
    return ratio(2 * right.sum(1), (gold + answered).sum(1))


def ratio(above: np.ndarray, below: np.ndarray, *, higher_is_better: bool = True) -> Statistic:
    """Sum of (n,) numbers over the sum of others; undefined where the latter is 0."""
    both = np.stack([above, below], axis=1).astype(float)

    def value(counts: np.ndarray) -> np.ndarray:
        sums = counts @ both
        return _divide(sums[:, 0], sums[:, 1])

    return Statistic(len(both), value, higher_is_better=higher_is_better)


def macro_f1_of(right: np.ndarray, gold: np.ndarray, answered: np.ndarray, *, all_classes: bool = False) -> Statistic:
    """Macro F1 from (n, classes) counts, over the classes that occur in a resample.

    Args:
        all_classes: mean over all classes, one that does not occur counting 0; undefined where none occurs.
    """
    hits, both = right.astype(float), (gold + answered).astype(float)

    def value(counts: np.ndarray) -> np.ndarray:
        scores = _divide(2 * (counts @ hits), counts @ both)  # (b, classes), NaN where absent
        occurring = (~np.isnan(scores)).sum(1)
        classes = np.where(occurring > 0, right.shape[1], 0) if all_classes else occurring
        return _divide(np.nansum(scores, axis=1), classes)

    classes = right.shape[1] if all_classes else int((both.sum(0) > 0).sum())
    return Statistic(len(right), value, details={"classes": classes}, width=right.shape[1])


def choice_counts(predictions: Sequence[Prediction]) -> Counts:
    """(n, labels) counts of choices among fixed labels."""
    labels = max(len(p["scores"]) for p in predictions)
    gold = membership([[p["gold"]] for p in predictions], labels)
    return _counts(gold, membership([[predicted(p["scores"])] for p in predictions], labels))


def multi_label_counts(predictions: Sequence[Prediction]) -> Counts:
    """(n, labels) counts of multi-label answers."""
    labels = label_count(predictions)
    gold, answered = (membership([p[key] for p in predictions], labels) for key in ("gold", "answer"))
    return _counts(gold, answered)


def item_f1(right: np.ndarray, gold: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """(n,) F1 of each item by itself, 1 where nothing was to be answered and nothing was."""
    scores = _divide(2.0 * right.sum(1), (gold + answered).sum(1))
    return np.where(np.isnan(scores), 1.0, scores)


def item_hamming_accuracy(right: np.ndarray, gold: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """(n,) 1 - Hamming loss: share of an item's labels that are rightly answered or rightly left out."""
    wrong = (gold + answered - 2 * right).sum(1)
    return 1.0 - wrong / right.shape[1]


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
    won = (positives * (worse + negatives / 2)).sum(1)
    return _divide(won, positives.sum(1) * negatives.sum(1))


def average_precision(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Sum over thresholds of precision times the recall gained there; items of one score share one threshold."""
    found = np.cumsum(positives, axis=1)
    shown = found + np.cumsum(negatives, axis=1)
    precision = np.divide(found, shown, out=np.zeros_like(found), where=shown > 0)
    return _divide((positives * precision).sum(1), positives.sum(1))


@dataclass(frozen=True)
class Ties:
    """Groups of equal score, best first: the order within a group is arbitrary, and no metric may depend on it."""

    order: np.ndarray
    """(m,) indices of what is ordered, best score first"""
    starts: np.ndarray
    """(groups,) where each group begins in `order`"""

    @classmethod
    def of(cls, scores: np.ndarray) -> Ties:
        """The groups of (m,) scores, m at least 1."""
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        return cls(order, np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])))

    def sums(self, amounts: np.ndarray) -> np.ndarray:
        """Sums (b, groups) of amounts (b, m) that are already in `order`."""
        if len(self.starts) == amounts.shape[1]:
            return amounts
        return np.asarray(np.add.reduceat(amounts, self.starts, axis=1))


@dataclass(frozen=True)
class Ranking:
    """Items, or pairs of item and label, best score first; what lies between two positives is one group."""

    item: np.ndarray
    """(m,) item of each rank"""
    starts: np.ndarray
    """(groups,) ranks where a group begins"""
    positive: np.ndarray
    """(m,) whether a rank is a positive one"""

    @classmethod
    def of(cls, scores: np.ndarray, gold: np.ndarray, item: np.ndarray) -> Ranking:
        """The ranking of (m,) scores, with (m,) booleans of gold and the item (m,) that each belongs to."""
        ties = Ties.of(scores)
        positive = gold[ties.order]
        holds = np.logical_or.reduceat(positive, ties.starts)
        follows = np.concatenate([[True], holds[:-1]])
        return cls(item[ties.order], ties.starts[holds | follows], positive)

    def areas(self, area: Area, counts: np.ndarray) -> np.ndarray:
        """(b,) areas from (b, items) counts."""
        holds = np.logical_or.reduceat(self.positive, self.starts)
        every = np.add.reduceat(counts[:, self.item], self.starts, axis=1)
        positives = np.zeros_like(every)
        if holds.any():
            ranks = np.flatnonzero(self.positive)
            first = np.searchsorted(ranks, self.starts[holds])
            positives[:, holds] = np.add.reduceat(counts[:, self.item[ranks]], first, axis=1)
        return area(positives, every - positives)


def macro(area: Area, scores: np.ndarray, gold: np.ndarray) -> Statistic:
    """Mean of an area over labels, from (n, labels) scores and booleans; records labels and labels left out."""
    items, labels = scores.shape
    rankings = [Ranking.of(scores[:, c], gold[:, c], np.arange(items)) for c in range(labels)]
    usable = [ranking for ranking in rankings if not np.isnan(ranking.areas(area, np.ones((1, items)))).any()]

    def value(counts: np.ndarray) -> np.ndarray:
        total, defined = np.zeros(len(counts)), np.zeros(len(counts))
        for ranking in usable:
            values = ranking.areas(area, counts)
            total += np.nan_to_num(values)
            defined += ~np.isnan(values)
        return _divide(total, defined)

    return Statistic(items, value, details={"classes": len(usable), "classes_left_out": labels - len(usable)})


def micro(area: Area, scores: np.ndarray, gold: np.ndarray) -> Statistic:
    """An area over all pairs of item and label, from (n, labels) scores and booleans."""
    items, labels = scores.shape
    ranking = Ranking.of(scores.ravel(), gold.ravel(), np.repeat(np.arange(items), labels))
    return Statistic(items, lambda counts: ranking.areas(area, counts), width=scores.size)


def choice_rankings(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """(n, labels) probabilities by softmax, and (n, labels) booleans of gold, of choices among fixed labels."""
    probs = np.stack([softmax(p["scores"]) for p in predictions])
    return probs, membership([[p["gold"]] for p in predictions], probs.shape[1])


def multi_label_rankings(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """(n, labels) log-odds and (n, labels) booleans of gold, of multi-label answers that have scores."""
    scores = np.array([p["scores"] for p in predictions], dtype=float)
    return scores, membership([p["gold"] for p in predictions], scores.shape[1])


def _counts(gold: np.ndarray, answered: np.ndarray) -> Counts:
    return (gold & answered).astype(int), gold.astype(int), answered.astype(int)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the lower number is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
