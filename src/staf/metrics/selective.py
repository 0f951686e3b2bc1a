"""Selective prediction: how good are the answers when only the surest are given, and the rest go to a person?

Coverage is the share of items answered, surest first; risk is 1 minus the mean quality (0 to 1) of those. The area under the
risk-coverage curve is the mean of the risk at the coverages 1/n, 2/n ... 1 (Geifman and El-Yaniv 2017), lower being better; an
order by chance has the risk at full coverage. Among items of equal confidence the mean over all their orders is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from staf.metrics.bootstrap import Statistic, measure
from staf.metrics.shapes import Prediction, softmax
from staf.metrics.ties import Ties


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
    """Mean quality of the surest share `coverage` (above 0, at most 1) of the items, rounded up to whole items."""
    ties, kept = Ties.of(confidence), ceil(round(coverage * len(quality), 9))

    def value(counts: np.ndarray) -> np.ndarray:
        size, gained = _grouped(counts, quality, ties)
        taken = np.clip(kept - (np.cumsum(size, axis=1) - size), 0, size)
        share = np.divide(taken, size, out=np.zeros_like(taken), where=size > 0)
        return np.asarray((gained * share).sum(1) / kept)

    return Statistic(len(quality), value)


def curve(
    quality: np.ndarray, confidence: np.ndarray, coverages: Sequence[float], resamples: int, seed: int = 0
) -> list[dict[str, Any]]:
    """Points of quality against coverage with 95 % intervals: {"coverage", "value", "low", "high", "confidence"}.

    The last is the confidence down to which items are answered at that coverage.
    """
    measured = measure([selective_quality(quality, confidence, coverage) for coverage in coverages], resamples, seed)
    surest_first = -np.sort(-confidence)
    return [
        {
            "coverage": coverage,
            "value": point.value,
            "low": point.low,
            "high": point.high,
            "confidence": float(surest_first[ceil(round(coverage * len(quality), 9)) - 1]),
        }
        for coverage, point in zip(coverages, measured, strict=True)
        if point is not None
    ]


def choice_confidence(predictions: Sequence[Prediction]) -> np.ndarray:
    """(n,) probability of the best label among those of the item."""
    return np.array([float(softmax(p["scores"]).max()) for p in predictions])


def confidence_of(predictions: Sequence[Prediction]) -> np.ndarray | None:
    """(n,) what the method said of itself, in any form but choice; None where it said nothing.

    Multi-label answers that have scores need not say it: theirs is the log-probability that every label is as answered.
    """
    if "confidence" in predictions[0]:
        return np.array([p["confidence"] for p in predictions], dtype=float)
    if "scores" not in predictions[0]:
        return None
    return np.array([_log_chance(p["scores"], p["answer"]) for p in predictions])


def _log_chance(log_odds: Sequence[float], answer: Sequence[int]) -> float:
    signed = -np.asarray(log_odds, dtype=float)
    signed[list(answer)] *= -1
    return float(-np.logaddexp(0.0, -signed).sum())


def _grouped(counts: np.ndarray, amounts: np.ndarray, ties: Ties) -> tuple[np.ndarray, np.ndarray]:
    """(b, groups) how many items and how much of `amounts` each group of equal confidence holds."""
    ordered = counts[:, ties.order]
    return ties.sums(ordered), ties.sums(ordered * amounts[ties.order])
