"""95 % intervals by resampling items, for any metric: the metric is a function of how often each item counts.

A resample of n items is then a row of n whole numbers whose total is n, and the saved predictions are the row of ones. So one
pass over the same rows gives the intervals of all metrics, and of the difference of two methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

CELLS_AT_ONCE = 2**20
"""Numbers in one array of a block of resamples: 8 MiB of float64."""


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
    """what else to tell of the metric: labels that it is the mean of, labels left out"""
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


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    examples: int
    higher_is_better: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def resample(statistics: Sequence[Statistic], resamples: int, seed: int = 0) -> np.ndarray:
    """(statistics, resamples) values of metrics over the same items, all on the same resamples."""
    items = statistics[0].items
    widest = max(items, *(statistic.width for statistic in statistics))
    blocks = _counts(items, resamples, seed, rows=max(1, CELLS_AT_ONCE // widest))
    return np.concatenate([np.stack([statistic.of(counts) for statistic in statistics]) for counts in blocks], axis=1)


def bounds(values: np.ndarray) -> tuple[float, float]:
    """Percentiles 2.5 and 97.5 of resampled values, those left out where the metric was undefined; NaN where it always was."""
    defined = values[~np.isnan(values)]
    low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (np.nan, np.nan)
    return float(low), float(high)


def interval(per_item: np.ndarray, resamples: int, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of (n,) numbers; (mean, mean) for one item."""
    return bounds(resample([Statistic.mean(per_item)], resamples, seed)[0])


def measure(statistics: Sequence[Statistic], resamples: int, seed: int = 0) -> list[Metric | None]:
    """Metrics over the same items with their intervals; None where one is undefined.

    An interval always holds its value: it is widened where resampling is biased, as it is upwards for the calibration error (a
    resample adds chance of its own) and a little for average precision (items drawn twice are ties).
    """
    found: list[Metric | None] = []
    for statistic, values in zip(statistics, resample(statistics, resamples, seed), strict=True):
        value, (low, high) = statistic.value, bounds(values)
        defined = Metric(
            value, float(np.fmin(low, value)), float(np.fmax(high, value)), statistic.items, statistic.higher_is_better
        )
        found.append(None if np.isnan(value) else defined)
    return found


def _counts(items: int, resamples: int, seed: int, rows: int) -> Iterator[np.ndarray]:
    """Blocks (at most rows, items) of how often each item is drawn."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        draws = generator.integers(0, items, size=(size, items)) + np.arange(size)[:, None] * items
        yield np.bincount(draws.ravel(), minlength=size * items).reshape(size, items).astype(float)
