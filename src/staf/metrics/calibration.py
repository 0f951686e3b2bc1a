"""Calibration and selective prediction: whether probabilities can be trusted, and what trusting the surest gains.

The expected calibration error (Naeini et al. 2015, Guo et al. 2017) puts probabilities into bins of equal width and takes the
mean distance between the mean probability of a bin and its share of right answers, weighted by how many the bin holds. It
depends on the number of bins, and sampling noise keeps it above 0: compare only equal numbers of items and bins.

Risk is 1 minus the mean quality (0 to 1) of the items answered, surest first; coverage is their share. AURC is the mean risk
at the coverages 1/n, 2/n ... 1 (Geifman and El-Yaniv 2017), lower being better. Among items of equal confidence the mean over
all their orders is taken.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from staf.metrics.classification import by_score, ranks
from staf.metrics.stats import Statistic


def ece(probs: np.ndarray, right: np.ndarray, bins: int) -> Statistic:
    """Expected calibration error of (n, m) probabilities against (n, m) booleans, m of each item pooled; 0 is best.

    Bin k of B holds the probabilities above (k - 1) / B up to k / B; the first one holds 0 too.
    """
    bin_of = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probs, side="left")  # (n, m)
    gaps = np.zeros((len(probs), bins))
    np.add.at(gaps, (np.arange(len(probs))[:, None], bin_of), (probs - right) / probs.shape[1])
    return Statistic.of_sums(lambda gap, items: np.abs(gap).sum(1) / items, gaps, np.ones(len(probs)), higher_is_better=False)


def aurc(quality: np.ndarray, confidence: np.ndarray) -> Statistic:
    """Area under the risk-coverage curve, from (n,) quality between 0 and 1 and (n,) confidence of any scale."""
    items = len(quality)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, items + 1))])

    def value(size: np.ndarray, lost: np.ndarray) -> np.ndarray:
        after = np.cumsum(size, axis=1)
        before = after - size
        rate = np.divide(lost, size, out=np.zeros_like(lost), where=size > 0)
        excess = np.cumsum(lost, axis=1) - lost - before * rate
        steps = harmonic[after.astype(int)] - harmonic[before.astype(int)]
        return np.asarray((lost + excess * steps).sum(1) / items)

    return Statistic.of_sums(
        value, *by_score(ranks(confidence), np.arange(items), np.ones(items), 1 - quality), higher_is_better=False
    )


def kept_items(items: int, coverage: float) -> int:
    """How many items a share of them is, rounded up."""
    return ceil(round(coverage * items, 9))


def selective_quality(quality: np.ndarray, confidence: np.ndarray, coverage: float) -> Statistic:
    """Mean quality of the surest share `coverage` (above 0, at most 1) of the items."""
    items = len(quality)
    kept = kept_items(items, coverage)

    def value(size: np.ndarray, gained: np.ndarray) -> np.ndarray:
        taken = np.clip(kept - (np.cumsum(size, axis=1) - size), 0, size)
        share = np.divide(taken, size, out=np.zeros_like(taken), where=size > 0)
        return np.asarray((gained * share).sum(1) / kept)

    return Statistic.of_sums(value, *by_score(ranks(confidence), np.arange(items), np.ones(items), quality))
