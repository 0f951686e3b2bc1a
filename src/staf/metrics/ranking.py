"""Area under the ROC curve and average precision: does a label score higher on the items that have it?

Macro is the mean over labels, micro is one ranking of all pairs of item and label. A label without a positive, or for AUC
without a negative, has no value (never 0.5): it is left out of the macro mean, and how many were is told.

scikit-learn computes the same values (the tests compare), one ranking at a time; a bootstrap needs thousands of them on the
same order, which is why the sums over one order are written out here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from staf.metrics.bootstrap import Statistic
from staf.metrics.shapes import Prediction, membership, softmax
from staf.metrics.ties import Ties

Area = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Positives and negatives (b, groups), best score first, to (b,) values, NaN where undefined."""


def roc_area(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """The chance that a positive scores above a negative, a tie counting half."""
    worse = negatives.sum(1, keepdims=True) - np.cumsum(negatives, axis=1)
    won = (positives * (worse + negatives / 2)).sum(1)
    pairs = positives.sum(1) * negatives.sum(1)
    return np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)


def average_precision(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Sum over thresholds of precision times the recall gained there; items of one score share one threshold."""
    found = np.cumsum(positives, axis=1)
    shown = found + np.cumsum(negatives, axis=1)
    precision = np.divide(found, shown, out=np.zeros_like(found), where=shown > 0)
    total = positives.sum(1)
    return np.divide((positives * precision).sum(1), total, out=np.full(len(total), np.nan), where=total > 0)


@dataclass(frozen=True)
class Ranking:
    """Items or pairs of item and label in groups of equal score, best first; what lies between two positives is one group."""

    item: np.ndarray
    """(m,) item of each place"""
    starts: np.ndarray
    """(groups,) places where a group begins"""
    positive: np.ndarray
    """(m,) whether a place is a positive one"""

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
            places = np.flatnonzero(self.positive)
            first = np.searchsorted(places, self.starts[holds])
            positives[:, holds] = np.add.reduceat(counts[:, self.item[places]], first, axis=1)
        return area(positives, every - positives)


def macro(area: Area, scores: np.ndarray, gold: np.ndarray) -> Statistic:
    """Mean of an area over labels, from (n, labels) scores and (n, labels) booleans; tells labels and labels left out."""
    items, labels = scores.shape
    rankings = [Ranking.of(scores[:, c], gold[:, c], np.arange(items)) for c in range(labels)]
    usable = [ranking for ranking in rankings if not np.isnan(ranking.areas(area, np.ones((1, items)))).any()]

    def value(counts: np.ndarray) -> np.ndarray:
        total, defined = np.zeros(len(counts)), np.zeros(len(counts))
        for ranking in usable:
            values = ranking.areas(area, counts)
            total += np.nan_to_num(values)
            defined += ~np.isnan(values)
        return np.divide(total, defined, out=np.full(len(counts), np.nan), where=defined > 0)

    return Statistic(items, value, details={"classes": len(usable), "classes_left_out": labels - len(usable)})


def micro(area: Area, scores: np.ndarray, gold: np.ndarray) -> Statistic:
    """An area over all pairs of item and label, from (n, labels) scores and (n, labels) booleans."""
    items, labels = scores.shape
    ranking = Ranking.of(scores.ravel(), gold.ravel(), np.repeat(np.arange(items), labels))
    return Statistic(items, lambda counts: ranking.areas(area, counts), width=scores.size)


def choice_rankings(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """(n, labels) probabilities by softmax, and (n, labels) booleans of gold, of choices among fixed labels."""
    chances = np.stack([softmax(p["scores"]) for p in predictions])
    return chances, membership([[p["gold"]] for p in predictions], chances.shape[1])


def several_rankings(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """(n, labels) log-odds and (n, labels) booleans of gold, of multi-label answers that have scores."""
    scores = np.array([p["scores"] for p in predictions], dtype=float)
    return scores, membership([p["gold"] for p in predictions], scores.shape[1])
