"""Calibration: of the answers given with probability 0.8, are eight in ten right?

The expected calibration error (Naeini et al. 2015, Guo et al. 2017) puts probabilities into bins of equal width and takes the
mean distance between the mean probability of a bin and its share of right answers, weighted by how many the bin holds. It
depends on the number of bins, and chance alone keeps it above 0: compare only equal numbers of items and bins. The Brier score
(1950) needs no bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from staf.metrics.bootstrap import Statistic
from staf.metrics.ranking import several_rankings
from staf.metrics.shapes import Prediction, predicted, softmax


def ece(chances: np.ndarray, right: np.ndarray, bins: int) -> Statistic:
    """Expected calibration error of (n, m) probabilities against (n, m) booleans, m of each item pooled; 0 is best.

    Bin k of B holds the probabilities above (k - 1) / B up to k / B; the first one holds 0 too.
    """
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], chances, side="left")  # (n, m)
    gaps = np.zeros((len(chances), bins))
    np.add.at(gaps, (np.arange(len(chances))[:, None], place), (chances - right) / chances.shape[1])

    def value(counts: np.ndarray) -> np.ndarray:
        return np.abs(counts @ gaps).sum(1) / counts.sum(1)

    return Statistic(len(chances), value, higher_is_better=False, width=bins)


def choice_chances(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """(n, 1) probability of the label answered, by softmax of the scores, and (n, 1) booleans of whether it is right."""
    chances = [softmax(p["scores"]).max() for p in predictions]
    right = [predicted(p["scores"]) == p["gold"] for p in predictions]
    return np.array(chances)[:, None], np.array(right)[:, None]


def several_chances(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """(n, labels) probability of each label from its log-odds, and (n, labels) booleans of whether it is gold."""
    log_odds, gold = several_rankings(predictions)
    return np.exp(-np.logaddexp(0.0, -log_odds)), gold


def choice_brier(predictions: Sequence[Prediction]) -> np.ndarray:
    """(n,) squared distance of the probabilities of all labels from the right one, summed: 0 (best) to 2."""
    scores = []
    for prediction in predictions:
        chances = softmax(prediction["scores"])
        chances[prediction["gold"]] -= 1.0
        scores.append(float(chances @ chances))
    return np.array(scores)


def several_brier(predictions: Sequence[Prediction]) -> np.ndarray:
    """(n,) mean over labels of the squared distance of a label's probability from 1 or 0: 0 (best) to 1."""
    chances, gold = several_chances(predictions)
    return np.asarray(((chances - gold) ** 2).mean(1))
