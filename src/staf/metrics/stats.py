"""95 % intervals by resampling items, paired tests of two methods, and what several seeds or tasks say together.

A metric is a function of how often each item counts: a resample of n items is a row of n counts whose total is n, so one pass
over the same rows gives the intervals of all metrics, and of the difference of two methods.

A metric that is a mean over items is compared by the bootstrap interval of its mean difference and a sign-flip test. A metric
of the test set (macro F1, AUC) is measured for both methods on the same resamples; its p-value is twice the share of resamples
on the other side of 0 (Efron and Tibshirani 1993).

Over seeds a score varies with the test items and with the seed (training, the draw of examples). The variance of a mean over
seeds is that of its test items, by the bootstrap, plus the sample variance over seeds divided by their number; Student's t with
the degrees of freedom of Welch and Satterthwaite gives interval and p-value. Methods that share the draw of each seed are
paired by it. In simulations with three seeds or more equal methods are called different in at most 8 % at the level of 5 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

MAX_BLOCK = 2**20
"""Numbers in one array of a block of resamples: 8 MiB of float64."""
FAMILIES = {"f1": "F1", "auc": "AUC", "precision": "average precision", "brier": "Brier score", "ece": "ECE", "aurc": "AURC"}


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
    def averaged(cls, statistics: Sequence[Statistic]) -> Statistic:
        """The mean of one metric over several seeds, of the same items."""
        first = statistics[0]
        per_items = [statistic.per_item for statistic in statistics if statistic.per_item is not None]
        per_item = np.mean(per_items, axis=0) if len(per_items) == len(statistics) else None
        return cls(
            first.items, lambda counts: np.mean([statistic.of(counts) for statistic in statistics], axis=0), per_item,
            first.higher_is_better, width=first.width,
        )  # fmt: skip

    @property
    def value(self) -> float:
        """On the items as they are; NaN where undefined."""
        return float(self.of(np.ones((1, self.items)))[0])


class Record:
    """Numbers that results keep."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Metric(Record):
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    examples: int
    higher_is_better: bool = True


@dataclass(frozen=True)
class Comparison(Record):
    """Difference of two methods on the same items, ours minus the other's, with its 95 % interval."""

    difference: float
    low: float
    high: float
    p_value: float
    """two-sided: sign-flip test, or paired bootstrap where the metric is not a mean over items; over several seeds this or that
    of Student's t, whichever is larger"""
    freedom: float | None = None
    """degrees of freedom behind the interval; None where it is a bootstrap of items only"""


@dataclass(frozen=True)
class Spread(Record):
    """A metric over seeds: mean, standard deviation of a seed, 95 % t-interval of the mean (None for one seed)."""

    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    seeds: int


def resample(statistics: Sequence[Statistic], resamples: int, seed: int = 0) -> np.ndarray:
    """(statistics, resamples) values of metrics over the same items, all on the same resamples."""
    items = statistics[0].items
    widest = max(items, *(statistic.width for statistic in statistics))
    blocks = _counts(items, resamples, seed, rows=max(1, MAX_BLOCK // widest))
    return np.concatenate([np.stack([statistic.of(counts) for statistic in statistics]) for counts in blocks], axis=1)


def bounds(values: np.ndarray) -> tuple[float, float]:
    """Percentiles 2.5 and 97.5 of the resampled values that are defined; NaN where none is."""
    defined = values[~np.isnan(values)]
    low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (np.nan, np.nan)
    return float(low), float(high)


def interval(per_item: np.ndarray, resamples: int, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of (n,) numbers; (mean, mean) for one item."""
    return bounds(resample([Statistic.mean(per_item)], resamples, seed)[0])


def measure(statistics: Sequence[Statistic], resamples: int, seed: int = 0) -> list[Metric | None]:
    """Metrics over the same items with their intervals; None where one is undefined.

    An interval always holds its value: it is widened where resampling is biased, as it is upwards for the calibration error (a
    resample adds noise of its own) and a little for average precision (items drawn twice are ties).
    """
    values = resample(statistics, resamples, seed)
    return [_metric(statistic, bounds(row)) for statistic, row in zip(statistics, values, strict=True)]


def measure_seeds(statistics: Sequence[Statistic], resamples: int) -> Metric | None:
    """Mean of one metric over seeds with its 95 % interval over test items and seeds; None where it is undefined.

    The interval is never narrower than that of the items only, which it is for one seed.

    Args:
        statistics: of each seed, all over the same items.
    """
    mean = Statistic.averaged(statistics)
    if np.isnan(mean.value):
        return None
    values = resample([mean], resamples)[0]
    error = StandardError.of(variance_of(values), mean.items, [[statistic.value for statistic in statistics]])
    reach = error.reach if len(statistics) > 1 else 0.0
    low, high = bounds(values)
    return _metric(mean, (float(np.fmin(low, mean.value - reach)), float(np.fmax(high, mean.value + reach))))


def compare_items(difference: np.ndarray, resamples: int) -> Comparison:
    """Bootstrap interval and sign-flip p-value of the mean of items' differences (n,)."""
    return Comparison(float(difference.mean()), *interval(difference, resamples), sign_flip(difference, resamples))


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


def compare_seeds(
    ours: Sequence[Statistic], other: Sequence[Statistic], resamples: int, *, paired: bool = False
) -> Comparison | None:
    """Paired comparison of two methods, each the mean of one metric over its seeds; None where it is undefined for one of them.

    Interval and p-value are never surer than those of the items only. A method of one seed adds no variance of seeds: it has
    none, as the base model, or it cannot be seen.

    Args:
        ours, other: the metric of each seed, all over the same items in the same order.
        paired: seed k of both learned from the same draw of examples: the seeds' part is the variance of their differences.
    """
    found = _over_items(Statistic.averaged(ours), Statistic.averaged(other), resamples)
    if found is None or max(len(ours), len(other)) == 1:
        return None if found is None else found[0]
    of_items, item_variance = found
    seeds = [[seed.value for seed in method] for method in (ours, other)]
    if paired and len(ours) == len(other):
        seeds = [[one - two for one, two in zip(*seeds, strict=True)]]
    error = StandardError.of(item_variance, ours[0].items, seeds)
    return Comparison(
        of_items.difference,
        min(of_items.low, of_items.difference - error.reach),
        max(of_items.high, of_items.difference + error.reach),
        max(of_items.p_value, error.p_value(of_items.difference)),
        error.freedom,
    )


def over_tasks(comparisons: Sequence[Comparison], metrics: Sequence[str] = ()) -> Comparison:
    """Mean difference over these tasks, each with test items of its own; tasks are given, they are not a draw.

    A task's standard error is the longer half of its 95 % interval over the quantile of Student's t with its degrees of
    freedom; errors add up as those of independent draws, their degrees of freedom by Satterthwaite.

    Args:
        metrics: of each task; a mean over several families of metrics (F1, AUC, accuracy) has no meaning.

    Raises:
        ValueError: no comparison is given, or metrics of several families.
    """
    if not comparisons:
        raise ValueError("a mean difference over tasks needs at least one comparison; found none")
    if len(families := sorted({metric_family(metric) for metric in metrics})) > 1:
        raise ValueError(f"a mean over tasks needs metrics of one family; found {', '.join(families)}")
    count = len(comparisons)
    mean = sum(one.difference for one in comparisons) / count
    parts = []
    for one in comparisons:
        freedom = np.inf if one.freedom is None else one.freedom
        half = max(one.high - one.difference, one.difference - one.low)
        parts.append(((half / StandardError(1.0, freedom).reach / count) ** 2, freedom))
    error = StandardError.combined(parts)
    known = None if np.isinf(error.freedom) else error.freedom
    return Comparison(mean, mean - error.reach, mean + error.reach, error.p_value(mean), known)


def metric_family(metric: str) -> str:
    """What a metric's points are points of: accuracy and exact match, F1, AUC ...; only these can be averaged."""
    return next((family for ending, family in FAMILIES.items() if ending in metric), "accuracy")


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's method (1979), in the order given."""
    order, count = np.argsort(p_values, kind="stable"), len(p_values)
    largest = np.maximum.accumulate(np.arange(count, 0, -1) * np.take(p_values, order))
    return [float(value) for value in np.minimum(largest, 1.0)[np.argsort(order)]]


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


def variance_of(resampled: np.ndarray) -> float:
    """Variance of the resampled values that are defined; 0 for fewer than two."""
    defined = resampled[~np.isnan(resampled)]
    return float(defined.var(ddof=1)) if len(defined) > 1 else 0.0


def _metric(statistic: Statistic, ends: tuple[float, float]) -> Metric | None:
    """A metric with an interval that holds its value; None where it is undefined."""
    value, (low, high) = statistic.value, ends
    if np.isnan(value):
        return None
    return Metric(value, float(np.fmin(low, value)), float(np.fmax(high, value)), statistic.items, statistic.higher_is_better)


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
    side = min((differences <= 0).sum(), (differences >= 0).sum())  # NaN is on neither
    p_value = min(1.0, 2 * (int(side) + 1) / (int((~np.isnan(differences)).sum()) + 1))
    found = Comparison(difference, float(np.fmin(low, difference)), float(np.fmax(high, difference)), p_value)
    return found, variance_of(differences)


def _counts(items: int, resamples: int, seed: int, rows: int) -> Iterator[np.ndarray]:
    """Blocks (at most rows, items) of how often each item is drawn."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        draws = generator.integers(0, items, size=(size, items)) + np.arange(size)[:, None] * items
        yield np.bincount(draws.ravel(), minlength=size * items).reshape(size, items).astype(float)
