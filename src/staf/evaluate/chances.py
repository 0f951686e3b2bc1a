"""From the likelihood of a label to the chance that it belongs: what several labels need, and one right label does not.

A language model says how likely a label is beside others, never whether it belongs. A few adaptation examples say what a score
means: two numbers by logistic regression over all their labels (Platt, 1999), and the log-odds from which on answering a label
gives the best micro F1 there. No label has numbers of its own, so a label that was never seen is judged as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from staf.errors import MissingData


@dataclass(frozen=True)
class Scale:
    """Log-odds of a score: slope * score + intercept; a label is answered from the threshold on."""

    slope: float
    intercept: float
    threshold: float

    def log_odds(self, scores: np.ndarray) -> np.ndarray:
        """Of scores of any shape."""
        return self.slope * scores + self.intercept


def fit_scale(scores: Sequence[np.ndarray], gold: Sequence[np.ndarray]) -> Scale:
    """The scale that adaptation examples show.

    Args:
        scores: for each example (labels,) log-likelihoods. gold: for each (labels,), true where the label is right.

    Raises:
        MissingData: there are no examples, or every label of all of them is right, or none is.
    """
    values = np.concatenate(list(scores)) if len(scores) else np.empty(0)
    right = np.concatenate(list(gold)) if len(gold) else np.empty(0, dtype=bool)
    if not right.any() or right.all():
        raise MissingData(
            f"{len(scores)} adaptation examples with {int(right.sum())} right labels of {len(right)} cannot say what a score "
            "means: some labels must be right and some wrong. Draw more (calibration_examples)."
        )
    from sklearn.linear_model import LogisticRegression

    centre, width = values.mean(), max(values.std(), 1e-12)
    fitted = LogisticRegression(C=1e4).fit(((values - centre) / width)[:, None], right)
    slope = float(fitted.coef_[0, 0]) / width
    intercept = float(fitted.intercept_[0]) - slope * centre
    return Scale(slope, intercept, best_threshold(slope * values + intercept, right))


def best_threshold(log_odds: np.ndarray, right: np.ndarray) -> float:
    """The value from which on answering gives the best micro F1: halfway between two log-odds that are met."""
    order = np.argsort(-log_odds, kind="stable")
    sorted_odds, hits = log_odds[order], np.cumsum(right[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + right.sum())
    last = np.append(sorted_odds[:-1] > sorted_odds[1:], True)  # equal ones are answered together
    best = int(np.argmax(np.where(last, f1, -1)))
    after = sorted_odds[best + 1] if best + 1 < len(order) else sorted_odds[best] - 2.0
    return float((sorted_odds[best] + after) / 2)
