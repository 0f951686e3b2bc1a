"""95 % intervals by resampling items, paired tests of two methods, and what several seeds or tasks say together.

A metric is a function of how often each item counts: one pass over the same resamples gives the intervals of all metrics, and
of the difference of two methods.

Over seeds a score varies with the test items and with the seed (training, the draw of examples). The variance of a mean over
seeds is that of its test items, by the bootstrap, plus the sample variance over seeds divided by their number; Student's t with
the degrees of freedom of Welch and Satterthwaite gives interval and p-value. Two methods share the draw of a seed, so what
varies over seeds is their difference. In simulations with three seeds or more equal methods are called different in at most
8 % at the level of 5 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

MAX_BLOCK = 2**20
"""Numbers in one array of a block of resamples: 8 MiB of float64."""
LEVEL = 0.05
"""of a win or a loss"""
FAMILIES = {
    "f1": "F1", "auc": "AUC", "precision": "average precision", "rouge": "ROUGE", "invented": "invented mentions",
    "brier": "Brier score", "ece": "ECE", "aurc": "AURC",
}  # fmt: skip


@dataclass(frozen=True)
class Statistic:
    """A metric over items, before it is measured."""

    items: int
    of: Callable[[np.ndarray], np.ndarray]
    """(b, items) counts to (b,) values, NaN where undefined"""
    per_item: np.ndarray | None = None
    """(items,) where the metric is their mean, else None"""
    higher_is_better: bool = True
    details: Mapping[str, int] = field(default_factory=dict)
    """labels that it is the mean of, labels left out"""
    width: int = 0
    """numbers that `of` holds for one resample, where more than one per item"""

    @classmethod
    def mean(cls, per_item: np.ndarray, *, higher_is_better: bool = True) -> Statistic:
        """The mean of (items,) numbers."""
        return cls(len(per_item), lambda counts: counts @ per_item / counts.sum(1), per_item, higher_is_better)

    @classmethod
    def of_sums(cls, value: Callable[..., np.ndarray], *amounts: Any, **more: Any) -> Statistic:
        """A function of sums over items.

        Args:
            value: takes the sums (b,) or (b, m) of each amount. amounts: (items,) or (items, m), dense or sparse.
        """
        width = max(sum(amount.shape[1:]) for amount in amounts)
        return cls(amounts[0].shape[0], lambda counts: value(*(counts @ each for each in amounts)), width=width, **more)

    @classmethod
    def averaged(cls, statistics: Sequence[Statistic]) -> Statistic:
        """The mean of one metric over several seeds, of the same items."""
        per_items = [statistic.per_item for statistic in statistics if statistic.per_item is not None]
        return replace(
            statistics[0],
            of=lambda counts: np.mean([statistic.of(counts) for statistic in statistics], axis=0),
            per_item=np.mean(per_items, axis=0) if len(per_items) == len(statistics) else None,
        )

    def minus(self, other: Statistic) -> Statistic:
        """The difference of one metric of two methods, on the same items."""
        if self.per_item is not None and other.per_item is not None:
            return Statistic.mean(self.per_item - other.per_item)
        return replace(self, of=lambda counts: self.of(counts) - other.of(counts), per_item=None)

    @property
    def value(self) -> float:
        """On the items as they are; NaN where undefined."""
        return float(self.of(np.ones((1, self.items)))[0])


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    examples: int
    higher_is_better: bool = True


@dataclass(frozen=True)
class Comparison:
    """Difference of two methods on the same items, ours minus the other's, with its 95 % interval."""

    difference: float
    low: float
    high: float
    p_value: float
    """two-sided; over several seeds that of the items or that of Student's t, whichever is larger"""
    freedom: float | None = None
    """degrees of freedom behind the interval; None where it is a bootstrap of items only"""


@dataclass(frozen=True)
class Spread:
    """A metric over seeds: mean, standard deviation of a seed, 95 % t-interval of the mean (None for one seed)."""

    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    seeds: int


@dataclass(frozen=True)
class StandardError:
    """Of a mean over seeds, or of a difference of two, whose test items are a draw too."""

    size: float
    freedom: float
    """degrees of freedom of Student's t"""

    @classmethod
    def of(cls, item_variance: float, items: int, seeds: Sequence[Sequence[float]]) -> StandardError:
        """From the variance of the mean over its test items, and the scores over seeds whose mean it is, or whose means differ.

        Scores of one seed add nothing: their variance, if they have any, cannot be seen.
        """
        parts = [(item_variance, float(max(items - 1, 1)))]
        parts += [(float(np.var(scores, ddof=1)) / len(scores), len(scores) - 1.0) for scores in seeds if len(scores) > 1]
        return cls.combined(parts)

    @classmethod
    def combined(cls, parts: Sequence[tuple[float, float]]) -> StandardError:
        """Of a sum of independent errors, from the variance and degrees of freedom of each, by Welch and Satterthwaite."""
        total = sum(variance for variance, _ in parts)
        scatter = sum(variance**2 / freedom for variance, freedom in parts)
        return cls(total**0.5, total**2 / scatter if scatter else parts[0][1])

    @property
    def reach(self) -> float:
        """Half of the 95 % interval."""
        from scipy.stats import t

        return float(t.ppf(0.975, self.freedom)) * self.size

    def p_value(self, difference: float) -> float:
        """Two-sided, under the hypothesis that the true difference is 0."""
        from scipy.stats import t

        if not self.size:
            return float(difference == 0)
        return 2 * float(t.sf(abs(difference) / self.size, self.freedom))


def resample(statistics: Sequence[Statistic], resamples: int, seed: int = 0) -> np.ndarray:
    """(statistics, resamples) values of metrics over the same items, all on the same resamples."""
    items, generator, blocks = statistics[0].items, np.random.default_rng(seed), []
    rows = max(1, MAX_BLOCK // max(items, *(statistic.width for statistic in statistics)))
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        draws = generator.integers(0, items, size=(size, items)) + np.arange(size)[:, None] * items
        counts = np.bincount(draws.ravel(), minlength=size * items).reshape(size, items).astype(float)
        blocks.append([statistic.of(counts) for statistic in statistics])
    return np.concatenate(blocks, axis=1)


def measure(statistics: Sequence[Statistic], resamples: int, seed: int = 0) -> list[Metric | None]:
    """Metrics over the same items with their intervals; None where one is undefined.

    An interval always holds its value: it is widened where resampling is biased, as it is upwards for the calibration error (a
    resample adds noise of its own) and a little for average precision (items drawn twice are ties).
    """
    values = resample(statistics, resamples, seed)
    return [_metric(statistic, row) for statistic, row in zip(statistics, values, strict=True)]


def measure_seeds(statistics: Sequence[Statistic], resamples: int) -> Metric | None:
    """Mean of one metric over seeds with its 95 % interval over test items and seeds; None where it is undefined.

    The interval is never narrower than that of the items only, which it is for one seed.

    Args:
        statistics: of each seed, all over the same items.
    """
    mean = Statistic.averaged(statistics)
    values = resample([mean], resamples)[0]
    error = StandardError.of(_variance(values), mean.items, [[statistic.value for statistic in statistics]])
    return _metric(mean, values, error.reach if len(statistics) > 1 else 0.0)


def compare_seeds(ours: Sequence[Statistic], other: Sequence[Statistic], resamples: int) -> Comparison | None:
    """Paired comparison of two methods, each the mean of one metric over its seeds; None where it is undefined for one of them.

    Interval and p-value are never surer than those of the items only: for a mean over items by a sign-flip test, else twice the
    share of resamples on the other side of 0 (Efron and Tibshirani 1993). The seeds' part is the variance of the differences of
    seed k of both, which learned from the same draw; a method of one seed adds no variance of seeds.

    Args:
        ours, other: the metric of each seed, all over the same items in the same order.
    """
    gap = Statistic.averaged(ours).minus(Statistic.averaged(other))
    if (metric := _metric(gap, values := resample([gap], resamples)[0])) is None:
        return None
    if gap.per_item is not None:
        variance, p_value = _variance(gap.per_item) / gap.items, sign_flip(gap.per_item, resamples)
    else:
        side = min((values <= 0).sum(), (values >= 0).sum())  # NaN is on neither
        variance, p_value = _variance(values), min(1.0, 2 * (int(side) + 1) / (int((~np.isnan(values)).sum()) + 1))
    if max(len(ours), len(other)) == 1:
        return Comparison(metric.value, metric.low, metric.high, p_value)
    seeds = [[seed.value for seed in method] for method in (ours, other)]
    if len(ours) == len(other):
        seeds = [[one - two for one, two in zip(*seeds, strict=True)]]
    error = StandardError.of(variance, gap.items, seeds)
    low, high = min(metric.low, metric.value - error.reach), max(metric.high, metric.value + error.reach)
    return Comparison(metric.value, low, high, max(p_value, error.p_value(metric.value)), error.freedom)


def sign_flip(difference: np.ndarray, resamples: int, seed: int = 1) -> float:
    """Two-sided p-value of (n,) differences of items: how often random signs give a mean at least as far from 0.

    The outcome itself counts as one draw, so it is never 0 (Phipson and Smyth 2010).
    """
    generator, items = np.random.default_rng(seed), len(difference)
    rows, extreme = max(1, MAX_BLOCK // items), 0
    for start in range(0, resamples, rows):
        signs = generator.choice([-1.0, 1.0], size=(min(rows, resamples - start), items))
        extreme += int((np.abs(signs @ difference / items) >= abs(difference.mean()) - 1e-12).sum())
    return (extreme + 1) / (resamples + 1)


def holm(p_values: Sequence[float], count: int = 0) -> list[float]:
    """P-values after Holm's correction, in the order given: the chance of any false one below 0.05 is at most 5 %.

    Args:
        count: comparisons that were named beforehand, where these are more; each that was not made counts as p = 1.
    """
    order = np.argsort(p_values, kind="stable")
    factors = max(count, len(p_values)) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1.0)
    return [float(p_value) for p_value in adjusted]


def outcome_of(difference: float, p_value: float) -> Literal["win", "tie", "loss"]:
    """Win, loss, or tie where the difference is within chance."""
    return "tie" if p_value >= LEVEL or difference == 0 else "win" if difference > 0 else "loss"


def over_tasks(comparisons: Sequence[Comparison]) -> Comparison:
    """Mean difference over tasks of one family of metrics, each with test items of its own; tasks are given, not a draw.

    A task's standard error is the longer half of its 95 % interval over the quantile of Student's t with its degrees of
    freedom; errors add up as those of independent draws, with Satterthwaite's degrees of freedom.

    Raises:
        ValueError: no comparison is given.
    """
    if not comparisons:
        raise ValueError("a mean difference over tasks needs at least one comparison; found none")
    parts = []
    for one in comparisons:
        freedom = np.inf if one.freedom is None else one.freedom
        half = max(one.high - one.difference, one.difference - one.low)
        parts.append(((half / StandardError(1.0, freedom).reach / len(comparisons)) ** 2, freedom))
    mean, error = sum(one.difference for one in comparisons) / len(comparisons), StandardError.combined(parts)
    known = None if np.isinf(error.freedom) else error.freedom
    return Comparison(mean, mean - error.reach, mean + error.reach, error.p_value(mean), known)


def metric_family(metric: str) -> str:
    """What a metric's points are points of: accuracy and exact match, F1, AUC ...; only these can be averaged."""
    return next((family for ending, family in FAMILIES.items() if ending in metric), "accuracy")


def over_seeds(values: Sequence[float]) -> Spread:
    """Mean, standard deviation and 95 % t-interval of one metric's values, one per seed.

    Raises:
        ValueError: no value is given, or one is not a finite number.
    """
    finite = int(np.isfinite(values).sum())
    if not finite or finite < len(values):
        raise ValueError(f"a spread over seeds needs finite values, at least one; found {finite} finite ones of {len(values)}")
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return Spread(mean, None, None, None, 1)
    deviation = float(np.std(values, ddof=1))
    reach = StandardError(deviation / count**0.5, count - 1).reach
    return Spread(mean, deviation, mean - reach, mean + reach, count)


def _metric(statistic: Statistic, resampled: np.ndarray, reach: float = 0.0) -> Metric | None:
    """A metric from percentile 2.5 to 97.5 of its defined resamples, and at least by `reach` around its value."""
    value, defined = statistic.value, resampled[~np.isnan(resampled)]
    if np.isnan(value):
        return None
    low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (value, value)
    low, high = min(float(low), value - reach), max(float(high), value + reach)
    return Metric(value, low, high, statistic.items, statistic.higher_is_better)


def _variance(values: np.ndarray) -> float:
    """Sample variance of the values that are defined; 0 for fewer than two."""
    defined = values[~np.isnan(values)]
    return float(defined.var(ddof=1)) if len(defined) > 1 else 0.0
