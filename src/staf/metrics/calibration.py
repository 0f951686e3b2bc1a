"""Calibration and selective prediction: whether probabilities can be trusted, and what trusting the surest gains.

The expected calibration error (Naeini et al. 2015, Guo et al. 2017) puts probabilities into bins of equal width and takes the
mean distance between the mean probability of a bin and its share of right answers, weighted by how many the bin holds. It
depends on the number of bins, and sampling noise keeps it above 0: compare only equal numbers of items and bins. The Brier
score (1950) needs no bins.

Risk is 1 minus the mean quality (0 to 1) of the items answered, surest first; coverage is their share. AURC is the mean risk
at the coverages 1/n, 2/n ... 1 (Geifman and El-Yaniv 2017), lower being better. Among items of equal confidence the mean over
all their orders is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from staf.metrics.classification import Ties, multi_label_rankings
from staf.metrics.schema import Prediction, predicted, softmax
from staf.metrics.stats import Statistic, measure


def ece(probs: np.ndarray, right: np.ndarray, bins: int) -> Statistic:
    """Expected calibration error of (n, m) probabilities against (n, m) booleans, m of each item pooled; 0 is best.

    Bin k of B holds the probabilities above (k - 1) / B up to k / B; the first one holds 0 too.
    """
    bin_of = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probs, side="left")  # (n, m)
    gaps = np.zeros((len(probs), bins))
    np.add.at(gaps, (np.arange(len(probs))[:, None], bin_of), (probs - right) / probs.shape[1])

    def value(counts: np.ndarray) -> np.ndarray:
        return np.abs(counts @ gaps).sum(1) / counts.sum(1)

    return Statistic(len(probs), value, higher_is_better=False, width=bins)


def choice_probs(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """(n, 1) probability of the label answered, by softmax of the scores, and (n, 1) booleans of whether it is right."""
    right = [predicted(p["scores"]) == p["gold"] for p in predictions]
    return choice_confidence(predictions)[:, None], np.array(right)[:, None]


def multi_label_probs(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """(n, labels) probability of each label from its log-odds, and (n, labels) booleans of whether it is gold."""
    log_odds, gold = multi_label_rankings(predictions)
    return np.exp(-np.logaddexp(0.0, -log_odds)), gold


def choice_brier(predictions: Sequence[Prediction]) -> np.ndarray:
    """(n,) squared distance of the probabilities of all labels from the right one, summed: 0 (best) to 2."""
    scores = []
    for prediction in predictions:
        probs = softmax(prediction["scores"])
        probs[prediction["gold"]] -= 1.0
        scores.append(float(probs @ probs))
    return np.array(scores)


def multi_label_brier(predictions: Sequence[Prediction]) -> np.ndarray:
    """(n,) mean over labels of the squared distance of a label's probability from 1 or 0: 0 (best) to 1."""
    probs, gold = multi_label_probs(predictions)
    return np.asarray(((probs - gold) ** 2).mean(1))


def aurc(quality: np.ndarray, confidence: np.ndarray) -> Statistic:
    """Area under the risk-coverage curve, from (n,) quality between 0 and 1 and (n,) confidence of any scale."""
    items, ties = len(quality), Ties.of(confidence)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, items + 1))])

    def value(counts: np.ndarray) -> np.ndarray:
        size, lost = _grouped(counts, 1 - quality, ties)
        after = np.cumsum(size, axis=1)
        before = after - size
        rate = np.divide(lost, size, out=np.zeros_like(lost), where=size > 0)
        excess = np.cumsum(lost, axis=1) - lost - before * rate
        steps = harmonic[after.astype(int)] - harmonic[before.astype(int)]
        return np.asarray((lost + excess * steps).sum(1) / items)

    return Statistic(items, value, higher_is_better=False)


def selective_quality(quality: np.ndarray, confidence: np.ndarray, coverage: float) -> Statistic:
    """Mean quality of the surest share `coverage` (above 0, at most 1) of the items, rounded up to an item."""
    ties, kept = Ties.of(confidence), ceil(round(coverage * len(quality), 9))

    def value(counts: np.ndarray) -> np.ndarray:
        size, gained = _grouped(counts, quality, ties)
        taken = np.clip(kept - (np.cumsum(size, axis=1) - size), 0, size)
        share = np.divide(taken, size, out=np.zeros_like(taken), where=size > 0)
        return np.asarray((gained * share).sum(1) / kept)

    return Statistic(len(quality), value)


def coverage_curve(
    quality: np.ndarray, confidence: np.ndarray, coverages: Sequence[float], resamples: int, seed: int = 0
) -> list[dict[str, Any]]:
    """Points of quality against coverage with 95 % intervals: {"coverage", "value", "low", "high", "confidence"}.

    The last is the confidence down to which items are answered at that coverage.
    """
    measured = measure([selective_quality(quality, confidence, coverage) for coverage in coverages], resamples, seed)
    surest_first = -np.sort(-confidence)
    return [
        {
            "coverage": coverage, "value": point.value, "low": point.low, "high": point.high,
            "confidence": float(surest_first[ceil(round(coverage * len(quality), 9)) - 1]),
        }
        for coverage, point in zip(coverages, measured, strict=True) if point is not None
    ]  # fmt: skip


def choice_confidence(predictions: Sequence[Prediction]) -> np.ndarray:
    """(n,) probability of the best label among those of the item."""
    return np.array([float(softmax(p["scores"]).max()) for p in predictions])


def confidence_of(predictions: Sequence[Prediction]) -> np.ndarray | None:
    """(n,) the method's own confidence for any output type but multiple_choice; None where it gave none.

    Multi-label answers that have scores need not give it: theirs is the log-probability that every label is as answered.
    """
    if "confidence" in predictions[0]:
        return np.array([p["confidence"] for p in predictions], dtype=float)
    if "scores" not in predictions[0]:
        return None
    return np.array([_logprob(p["scores"], p["answer"]) for p in predictions])


def _logprob(log_odds: Sequence[float], answer: Sequence[int]) -> float:
    signed = -np.asarray(log_odds, dtype=float)
    signed[list(answer)] *= -1
    return float(-np.logaddexp(0.0, -signed).sum())


def _grouped(counts: np.ndarray, amounts: np.ndarray, ties: Ties) -> tuple[np.ndarray, np.ndarray]:
    """(b, groups) how many items and how much of `amounts` each group of equal confidence holds."""
    ordered = counts[:, ties.order]
    return ties.sums(ordered), ties.sums(ordered * amounts[ties.order])
