"""Paired comparison of two methods on the same items.

A metric that is a mean over items gets the bootstrap interval of its mean difference and a sign-flip test: were the methods
alike, each item's difference could as well have had the other sign. A metric of the whole set (macro F1, AUC) has no
differences of items to flip: both methods are measured on the same resamples, and the p-value is twice the share of resamples
on the side of 0 that the difference is not on (Efron and Tibshirani 1993).

Where a method is a mean over several seeds, these are a draw too: `compare_seeds`. Differences that are within chance task by
task may be beyond it together: `over_tasks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from staf.metrics.bootstrap import CELLS_AT_ONCE, Statistic, bounds, interval, resample
from staf.metrics.seeds import StandardError, variance_of
from staf.metrics.shapes import Prediction, correctness


@dataclass(frozen=True)
class Comparison:
    """Difference of two methods on the same items, ours minus the other's."""

    difference: float
    low: float
    high: float
    p_value: float
    """two-sided: sign-flip test, or paired bootstrap where the metric is not a mean over items; over several seeds this or that
    of Student's t, whichever is larger"""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def compare(ours: Sequence[Prediction], other: Sequence[Prediction], resamples: int) -> Comparison:
    """Paired comparison of accuracy on the same items: bootstrap interval of the difference, sign-flip p-value.

    Raises:
        ValueError: the two are not about the same items in the same order.
    """
    refuse_other_items(ours, other)
    return compare_items(correctness(ours) - correctness(other), resamples)


def compare_statistics(ours: Statistic, other: Statistic, resamples: int) -> Comparison | None:
    """Paired comparison of any metric over the same items in the same order; None where it is undefined for one of the two."""
    found = _over_items(ours, other, resamples)
    return None if found is None else found[0]


def compare_seeds(ours: Sequence[Statistic], other: Sequence[Statistic], resamples: int) -> Comparison | None:
    """Paired comparison of two methods, each the mean of one metric over its seeds; None where it is undefined for one of them.

    Test items are paired, seeds are not. Interval and p-value count both chances (`staf.metrics.seeds`), and are never surer
    than those of the items alone. A method of one seed adds no chance of seeds: it has none, as the original model, or it
    cannot be seen. Of two such methods this is `compare_statistics`.

    Args:
        ours, other: the metric of each seed, all over the same items in the same order.
    """
    found = _over_items(Statistic.averaged(ours), Statistic.averaged(other), resamples)
    if found is None or max(len(ours), len(other)) == 1:
        return None if found is None else found[0]
    alone, item_variance = found
    error = StandardError.of(item_variance, ours[0].items, [[seed.value for seed in method] for method in (ours, other)])
    return Comparison(
        alone.difference,
        min(alone.low, alone.difference - error.reach),
        max(alone.high, alone.difference + error.reach),
        max(alone.p_value, error.p_value(alone.difference)),
    )


def over_tasks(comparisons: Sequence[Comparison]) -> Comparison:
    """Mean difference over these tasks, each with test items of its own; tasks are given and no draw.

    A task's standard error is taken from the longer half of its 95 % interval, errors add up as those of independent draws, and
    the mean is normal. For each task alone this is no surer than its interval.

    Raises:
        ValueError: no comparison is given.
    """
    from scipy.stats import norm

    if not comparisons:
        raise ValueError("a mean difference over tasks needs at least one comparison; found none")
    width, count = float(norm.ppf(0.975)), len(comparisons)
    mean = sum(one.difference for one in comparisons) / count
    halves = [max(one.high - one.difference, one.difference - one.low) for one in comparisons]
    reach = float(np.linalg.norm(halves)) / count
    p_value = 2 * float(norm.sf(abs(mean) * width / reach)) if reach else float(mean == 0)
    return Comparison(mean, mean - reach, mean + reach, p_value)


def _over_items(ours: Statistic, other: Statistic, resamples: int) -> tuple[Comparison, float] | None:
    """The comparison where only items are a draw, and the variance of the difference over them; None where undefined."""
    difference = ours.value - other.value
    if np.isnan(difference):
        return None
    if ours.per_item is not None and other.per_item is not None:
        per_item = ours.per_item - other.per_item
        return compare_items(per_item, resamples), variance_of(per_item) / len(per_item)
    values = resample([ours, other], resamples)
    differences = values[0] - values[1]
    low, high = bounds(differences)
    found = Comparison(
        difference, float(np.fmin(low, difference)), float(np.fmax(high, difference)), _bootstrap_p_value(differences)
    )
    return found, variance_of(differences)


def refuse_other_items(ours: Sequence[Prediction], other: Sequence[Prediction]) -> None:
    """See that two methods answered the same items.

    Raises:
        ValueError: the two are not about the same items in the same order.
    """
    if [p["id"] for p in ours] != [p["id"] for p in other]:
        raise ValueError("predictions of two methods can be compared only on the same items in the same order")


def refuse_other_gold(ours: Sequence[Prediction], other: Sequence[Prediction]) -> None:
    """See that two methods are judged by the same right answers.

    Raises:
        ValueError: the items are the same and their gold answers are not.
    """
    differing = sum(a["gold"] != b["gold"] for a, b in zip(ours, other, strict=True))
    if differing:
        raise ValueError(f"{differing} of {len(ours)} items have another gold answer with the other method. Predict again.")


def compare_items(difference: np.ndarray, resamples: int) -> Comparison:
    """Bootstrap interval and sign-flip p-value of the mean of items' differences (n,)."""
    low, high = interval(difference, resamples)
    return Comparison(float(difference.mean()), low, high, sign_flip(difference, resamples))


def sign_flip(difference: np.ndarray, resamples: int, seed: int = 1) -> float:
    """Two-sided p-value of (n,) differences of items: how often random signs give a mean at least as far from 0.

    The outcome itself counts as one draw, so it is never 0 (Phipson and Smyth 2010).
    """
    generator, items = np.random.default_rng(seed), len(difference)
    rows, extreme = max(1, CELLS_AT_ONCE // items), 0
    for start in range(0, resamples, rows):
        signs = generator.choice([-1.0, 1.0], size=(min(rows, resamples - start), items))
        extreme += int((np.abs(signs @ difference / items) >= abs(difference.mean()) - 1e-12).sum())
    return (extreme + 1) / (resamples + 1)


def _bootstrap_p_value(differences: np.ndarray) -> float:
    defined = differences[~np.isnan(differences)]
    side = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (side + 1) / (len(defined) + 1))
